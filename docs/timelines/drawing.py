"""Draws a timeline as SVG: pure, so the same picture is always the same bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_GUTTER, _PLOT, _MARGIN = 104, 500, 40
"""Widths in pixels: names of lanes, the time axis, and right of it at least."""
_TOP, _ROW, _SECTION = 34, 20, 30
_CHARACTER = 6.7
"""Width of a character of the font below, in pixels; rounded up, so that nothing ever touches."""
_SPACE = 10

_STYLE = """
  text { font: 11px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: var(--ink) }
  .faint { fill: var(--faint) }
  .paper { fill: var(--paper) }
  .grid { stroke: var(--grid) }
  .bar { fill-opacity: .4; stroke: none }
  line { stroke-width: 1 }
  .edge { stroke-width: 2 }
  .wait { stroke-dasharray: 2 3 }
  .c0 { fill: var(--faint); stroke: var(--faint) }
  .c1 { fill: var(--blue); stroke: var(--blue) }
  .c2 { fill: var(--orange); stroke: var(--orange) }
  .c3 { fill: var(--green); stroke: var(--green) }
  svg { --paper: #fff; --ink: #1f2328; --faint: #59636e; --grid: #d1d9e0;
        --blue: #0969da; --orange: #bc4c00; --green: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --grid: #30363d;
          --blue: #58a6ff; --orange: #f0883e; --green: #3fb950 }
  }
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that was reported. Times in milliseconds on the picture's axis."""

    label: str
    began: int | None = None
    """When it was, as a bar from here …"""
    ended: int | None = None
    """… to here; one of them alone is an edge."""
    told: tuple[int, ...] = ()
    """When it was said, as dots."""
    colour: int = 0
    """0: none of an utterance; 1, 2, 3: of the first, the second, …"""

    @property
    def times(self) -> tuple[int, ...]:
        return tuple(time for time in (self.began, self.ended, *self.told) if time is not None)


@dataclass(frozen=True, slots=True)
class Lane:
    """Marks side by side where they fit, else below one another."""

    name: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class Section:
    heading: str
    lanes: tuple[Lane, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    title: str
    description: str
    """What it shows, for those who do not see it."""
    sections: tuple[Section, ...]


def svg(picture: Picture) -> str:
    """The picture as an SVG file: text as text, readable on light and on dark paper."""
    marks = [mark for section in picture.sections for lane in section.lanes for mark in lane.marks]
    axis = _Axis([time for mark in marks for time in mark.times])
    y, body = _TOP, list[str]()
    for section in picture.sections:
        y += _SECTION
        body.append(f'<text class="faint" x="8" y="{y - 10}">{escape(section.heading)}</text>')
        for lane in section.lanes:
            body.append(f'<text x="8" y="{y + 14}">{escape(lane.name)}</text>')
            for row in _rows(lane.marks, axis):
                for mark in row:
                    body.extend(_drawn(mark, axis, y + _ROW / 2))
                y += _ROW
    height, width = y + 34, max(round(max(_written(mark, axis) for mark in marks)), _GUTTER + _PLOT + _MARGIN)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
            ' role="img" aria-labelledby="title desc">',
            f'<title id="title">{escape(picture.title)}</title>',
            f'<desc id="desc">{escape(picture.description)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{width}" height="{height}"/>',
            *_grid(axis, height),
            *body,
            *_legend(height - 12),
            "</svg>\n",
        ]
    )


class _Axis:
    def __init__(self, times: Sequence[int]) -> None:
        earliest, latest = min(times), max(times)
        span = max(latest - earliest, 1)
        steps = (multiple * power for power in (10, 100, 1000, 10_000) for multiple in (1, 2, 5))
        self._step = next(step for step in steps if span / step <= 8)
        self._first = earliest // self._step * self._step
        self._last = -(-latest // self._step) * self._step

    @property
    def ticks(self) -> range:
        return range(self._first, self._last + 1, self._step)

    def x(self, time: int) -> float:
        return round(_GUTTER + (time - self._first) * _PLOT / (self._last - self._first), 1)


def _rows(marks: Sequence[Mark], axis: _Axis) -> list[list[Mark]]:
    """Each mark in the first row in which there is room for it and for what is written beside it."""
    rows, ends = list[list[Mark]](), list[float]()
    for mark in marks:
        begins = axis.x(min(mark.times))
        row = next((number for number, taken in enumerate(ends) if taken <= begins), len(rows))
        if row == len(rows):
            rows.append([])
            ends.append(0)
        rows[row].append(mark)
        ends[row] = _written(mark, axis)
    return rows


def _written(mark: Mark, axis: _Axis) -> float:
    """Where there is room again right of the mark and of what is written beside it."""
    return axis.x(max(mark.times)) + len(mark.label) * _CHARACTER + 2 * _SPACE


def _drawn(mark: Mark, axis: _Axis, y: float) -> Iterator[str]:
    times, colour = sorted(axis.x(time) for time in mark.times), f"c{mark.colour}"
    edges = [axis.x(edge) for edge in (mark.began, mark.ended) if edge is not None]
    since = edges[-1] if edges else times[0]
    if times[-1] > since:
        yield f'<line class="wait {colour}" x1="{since}" x2="{times[-1]}" y1="{y}" y2="{y}"/>'
    if len(edges) == 2:
        width = round(edges[1] - edges[0], 1)
        yield f'<rect class="bar {colour}" x="{edges[0]}" y="{y - 5}" width="{width}" height="10"/>'
    for x in edges:
        yield f'<line class="edge {colour}" x1="{x}" x2="{x}" y1="{y - 6}" y2="{y + 6}"/>'
    for told in mark.told:
        yield f'<circle class="{colour}" cx="{axis.x(told)}" cy="{y}" r="3.5"/>'
    if mark.label:
        yield f'<text x="{times[-1] + _SPACE}" y="{y + 4}">{escape(mark.label)}</text>'


def _grid(axis: _Axis, height: int) -> Iterator[str]:
    for tick in axis.ticks:
        x = axis.x(tick)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="26" y2="{height - 28}"/>'
        yield f'<text class="faint" x="{x}" y="18" text-anchor="middle">{tick}</text>'
    yield f'<text class="faint" x="{axis.x(axis.ticks[-1]) + 26}" y="18">ms</text>'


def _legend(y: int) -> Iterator[str]:
    yield f'<rect class="bar c0" x="{_GUTTER}" y="{y - 9}" width="24" height="10"/>'
    yield f'<text class="faint" x="{_GUTTER + 30}" y="{y}">when it was</text>'
    yield f'<circle class="c0" cx="{_GUTTER + 132}" cy="{y - 4}" r="3.5"/>'
    yield f'<text class="faint" x="{_GUTTER + 140}" y="{y}">when it was said</text>'
