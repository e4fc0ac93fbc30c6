// A room's timeline: what is drawn, and moving in it by keyboard, pointer and buttons.
import { AXIS, Drawing, ROW, barAt, colours } from "./drawing.js";
import { loadRoom, returnToPresent } from "./feed.js";
import { Component, createRef, html, now, span, timeOfDay } from "./lib.js";
import { words } from "./model.js";

const SPANS = [15, 30, 60, 120, 300, 900, 3600].map((s) => s * 1000);
const AHEAD = 0.15; // of the width: room for the words that are being spoken
const MOST_FOLLOWING = 1500; // utterances: the present must not be pushed out by the past
const dark = matchMedia("(prefers-color-scheme: dark)");
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Timeline extends Component {
  state = { span: matchMedia("(max-width: 859px)").matches ? 30_000 : 60_000, selected: null, following: true, loading: false };
  canvas = createRef();
  plot = createRef();
  scroller = createRef();
  end = now(); // the right edge while it does not follow

  componentDidMount() {
    this.drawing = new Drawing(this.canvas.current);
    this.recolour = () => {
      this.palette = colours(this.canvas.current);
      this.draw();
    };
    dark.addEventListener("change", this.recolour);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.scroller.current);
    this.palette = colours(this.canvas.current);
    this.listen();
    this.tick();
  }

  componentDidUpdate(before) {
    if (before.room !== this.props.room) {
      this.listen();
      this.setState({ selected: null, following: true });
    }
    this.draw();
  }

  componentWillUnmount() {
    this.stop?.();
    clearTimeout(this.timer);
    this.resized.disconnect();
    dark.removeEventListener("change", this.recolour);
  }

  listen() {
    this.stop?.();
    this.stop = this.props.room.changed.subscribe(() => {
      if (this.rows().length !== this.shownRows) this.setState({});
      this.draw();
    });
  }

  rows() {
    return [...this.props.room.rows.values()].sort((a, b) => a.since - b.since);
  }

  // While it follows the present, the picture moves: as often as it would move by a pixel.
  tick() {
    clearTimeout(this.timer);
    const width = this.drawing?.width || 600;
    const every = still.matches ? 1000 : Math.max(33, this.state.span / width);
    this.timer = setTimeout(() => {
      if (this.state.following && !document.hidden && this.props.room.people) this.draw();
      this.tick();
    }, every);
  }

  view() {
    const { following, span: shown, selected } = this.state;
    const present = this.props.room.people ? now() : Math.min(now(), this.props.room.activeAt + 2000);
    const to = following ? present + shown * AHEAD : this.end;
    return { from: to - shown, to, top: this.scroller.current.scrollTop, selected, now: present };
  }

  draw = () => {
    if (this.requested) return;
    this.requested = requestAnimationFrame(() => {
      this.requested = 0;
      const scroller = this.scroller.current;
      if (!scroller || !this.palette) return;
      const height = Math.min(AXIS + Math.max(1, this.rows().length) * ROW, Math.max(200, Math.round(innerHeight * 0.6)));
      if (this.height !== height) {
        this.height = height;
        scroller.style.height = `${height}px`;
        this.canvas.current.style.height = `${height}px`;
      }
      this.drawing.fit(this.plot.current.clientWidth, height);
      this.shown = this.view();
      this.drawing.draw(this.props.room, this.rows(), this.shown, this.palette);
      this.lookFurther();
    });
  };

  // The past is loaded when one gets there.
  async lookFurther() {
    const { room } = this.props;
    const oldest = room.lines[0]?.start ?? Infinity;
    if (this.state.following && room.bars.size > MOST_FOLLOWING) return;
    if (this.loading || !room.older || this.shown.from > oldest) return;
    this.loading = true;
    this.setState({ loading: true });
    try {
      await loadRoom(room, room.older);
    } catch {
      room.older = null;
    }
    this.loading = false;
    this.setState({ loading: false });
  }

  pan(by) {
    const to = (this.state.following ? this.view().to : this.end) + by;
    if (to >= now()) return this.follow();
    this.end = to;
    return this.setState({ following: false });
  }

  follow = () => {
    this.setState({ following: true });
    if (this.props.room.detached) returnToPresent(this.props.room);
  };

  zoom(by) {
    const index = SPANS.indexOf(this.state.span) + by;
    if (SPANS[index]) this.setState({ span: SPANS[index] }, () => this.tick());
  }

  select(bar) {
    if (!bar) return;
    const { from, to } = this.view();
    if (bar.start < from || bar.start > to) {
      this.end = bar.start + this.state.span / 2;
      this.setState({ following: this.end >= now() });
    }
    const top = this.rows().indexOf(bar.row) * ROW;
    const scroller = this.scroller.current;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + ROW > scroller.scrollTop + scroller.clientHeight - AXIS) scroller.scrollTop = top + ROW - scroller.clientHeight + AXIS;
    this.setState({ selected: bar.id });
  }

  // The next bar in a direction: of the same row, or of another row the nearest in time.
  step(dx, dy) {
    const { lines, bars } = this.props.room;
    const selected = bars.get(this.state.selected);
    if (!selected) return this.select(lines.at(-1));
    if (dx) {
      const of = selected.row.bars;
      return this.select(of[of.indexOf(selected) + dx]);
    }
    const rows = this.rows();
    for (let n = rows.indexOf(selected.row) + dy; rows[n]; n += dy) {
      const nearest = rows[n].bars.reduce((best, bar) => (best && Math.abs(best.start - selected.start) < Math.abs(bar.start - selected.start) ? best : bar), null);
      if (nearest) return this.select(nearest);
    }
    return undefined;
  }

  key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => (event.shiftKey ? this.pan(-this.state.span / 4) : this.step(-1, 0)),
      ArrowRight: () => (event.shiftKey ? this.pan(this.state.span / 4) : this.step(1, 0)),
      ArrowUp: () => this.step(0, -1),
      ArrowDown: () => this.step(0, 1),
      PageUp: () => this.pan(-this.state.span),
      PageDown: () => this.pan(this.state.span),
      End: this.follow,
      "+": () => this.zoom(-1),
      "=": () => this.zoom(-1),
      "-": () => this.zoom(1),
      Enter: () => this.open(this.props.room.bars.get(this.state.selected)),
      Escape: () => this.setState({ selected: null }),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };

  open(bar) {
    if (bar) location.hash = `#/utterances/${encodeURIComponent(bar.stream)}/${encodeURIComponent(bar.id)}`;
  }

  press = (event) => {
    if (event.button !== 0) return;
    const from = { x: event.clientX, end: this.view().to, moved: false };
    const canvas = this.canvas.current;
    const move = (each) => {
      const by = ((from.x - each.clientX) / this.drawing.width) * this.state.span;
      if (!from.moved && Math.abs(each.clientX - from.x) < 5) return;
      from.moved = true;
      this.end = Math.min(from.end + by, now() + this.state.span * AHEAD);
      this.setState({ following: this.end >= now() });
    };
    const up = (each) => {
      canvas.removeEventListener("pointermove", move);
      canvas.removeEventListener("pointerup", up);
      canvas.removeEventListener("pointercancel", up);
      if (from.moved || each.type !== "pointerup") return;
      const place = canvas.getBoundingClientRect();
      const bar = barAt(this.rows(), this.shown, this.drawing.width, each.clientX - place.left, each.clientY - place.top);
      this.setState({ selected: bar?.id ?? null });
    };
    canvas.setPointerCapture(event.pointerId);
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
  };

  render({ room }, { span: shown, selected, following, loading }) {
    const rows = this.rows();
    this.shownRows = rows.length;
    const bar = room.bars.get(selected);
    return html`<section class="timeline" aria-label="Timeline">
      <div class="toolbar">
        <span class="legend" aria-hidden="true"><span><i class="open"></i>speaking</span><span><i class="wait"></i>waits for text</span><span><i class="done"></i>transcribed</span><span><i class="none"></i>without text</span><span><i class="both"></i>overlap</span></span>
        <span class="spacer"></span>
        ${loading && html`<span class="faint">loading…</span>`}
        <button type="button" onClick=${() => this.pan(-shown / 2)} aria-label="Earlier">←</button>
        <button type="button" onClick=${() => this.zoom(1)} disabled=${shown === SPANS.at(-1)} aria-label="Show more time">−</button>
        <span class="span">${span(shown)}</span>
        <button type="button" onClick=${() => this.zoom(-1)} disabled=${shown === SPANS[0]} aria-label="Show less time">+</button>
        <button type="button" class="live" aria-pressed=${String(following)} onClick=${this.follow}>Live</button>
      </div>
      <div class="scroller" ref=${this.scroller} onScroll=${this.draw}>
        <ul class="labels">
          ${rows.map((row) => html`<li key=${row.identity} class=${row.here ? "" : "gone"}><span class="name" title=${row.identity}>${row.name}</span></li>`)}
        </ul>
        <div class="plot" ref=${this.plot}>
          <canvas ref=${this.canvas} tabindex="0" role="img" onKeyDown=${this.key} onPointerDown=${this.press} onDblClick=${() => this.open(room.bars.get(this.state.selected))}
            aria-label=${`Speech of ${rows.length} participants over ${span(shown)}. Arrow keys select an utterance, Enter opens it, plus and minus zoom, End returns to the present.`}></canvas>
        </div>
      </div>
      <div class="selection" aria-live="polite">${bar ? html`<${Selected} bar=${bar} />` : html`<span class="faint">Select a bar by click or arrow keys to see what it is.</span>`}</div>
    </section>`;
  }
}

function Selected({ bar }) {
  const { said, guess } = words(bar);
  const lasts = bar.end === null ? "" : ` · ${span(bar.end - bar.start)}`;
  return html`<strong>${bar.row.name}</strong> <span class="muted">${timeOfDay(bar.start)}${lasts}${bar.reason ? ` · ended by ${bar.reason}` : ""}</span>
    <a class="after" href=${`#/utterances/${encodeURIComponent(bar.stream)}/${encodeURIComponent(bar.id)}`}>Where did the time go?</a>
    <span class="quote">${said} <i>${guess}</i></span>`;
}
