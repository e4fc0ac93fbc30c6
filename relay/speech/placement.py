"""Assigns texts to utterances, and divides a final whose words lie in several.

Two intervals overlap only where they share time: words that merely touch an utterance are not in it. A word without a
length counts as one millisecond.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from relay.events.speech import Word
from relay.speech.timing import Span
from relay.speech.utterance import Said, Utterance

_FOREVER = 2**62


@dataclass(frozen=True, slots=True)
class _PlacedUtterance:
    """An utterance and its position in the audio."""

    utterance: Utterance
    start: int
    end: int

    def overlap(self, bounds: tuple[int, int]) -> int:
        """Shared milliseconds; zero or negative, the gap between them."""
        shared = _shared(bounds, (self.start, self.end))
        # A completed utterance that only its words timed ends with them. A provider's next words may start slightly
        # before its last ones ended.
        only_words = self.utterance.phase == "completed" and not self.utterance.heard
        return 0 if only_words and 0 < shared * 2 < bounds[1] - bounds[0] else shared


def timed(span: Span) -> bool:
    """Whether the times are reliable enough to find the utterance."""
    return span.reliable and _bounds(span) is not None


def place(said: Said, live: Sequence[Utterance], done: Sequence[Utterance]) -> list[tuple[Said, Utterance | None]]:
    """Divide a final with reliable times into parts, in order, each with its utterance; None: one of its own.

    ``live`` are the utterances that are not completed, ``done`` the newest completed ones; both oldest first. Each word
    goes to the utterance that it overlaps most; a word outside all utterances goes with the nearest word of the final.
    A final whose words are all outside goes whole to the nearest live utterance. A final that cannot be divided,
    because its words have no times or do not match its text, goes whole to the utterance that it overlaps most.
    """
    places = _places([*live, *done])
    owners = _owners(said.words, places)
    if len({id(owner) for owner in owners}) > 1:
        parts = _divided(said, owners)
        if parts is not None:
            return parts
    whole, words = _bounds(said.span) or (0, 0), _timed(said.words)

    def fit(there: _PlacedUtterance) -> tuple[int, int]:
        return sum(max(there.overlap(word), 0) for word in words), there.overlap(whole)

    best = max(places, key=fit, default=None)
    if best is not None and max(fit(best)) > 0:
        return [(said, best.utterance)]
    nearest = max((there for there in places if there.utterance in live), key=fit, default=None)
    return [(said, nearest.utterance if nearest is not None else live[0] if live else None)]


def place_interim(said: Said, live: Sequence[Utterance], done: Sequence[Utterance]) -> Utterance | None:
    """Return an interim's utterance: the one that contains its newest word, else the newest live one, else a completed
    one that it overlaps; None: one of its own."""
    newest = live[-1] if live else None
    bounds = _bounds(said.span)
    if bounds is None or not said.span.reliable:
        return newest
    places = _places([*live, *done])
    last = [(bounds[1] - 1, bounds[1]), *_timed(said.words)][-1]
    return _around(places, last) or newest or _around(places, bounds)


def lies_in(span: Span, utterance: Utterance, live: Sequence[Utterance]) -> bool:
    """Whether part of it lies in this utterance."""
    bounds = _bounds(span)
    if bounds is None or not span.reliable:
        return False
    return any(there.utterance is utterance and there.overlap(bounds) > 0 for there in _places(live))


def _places(utterances: Sequence[Utterance]) -> list[_PlacedUtterance]:
    """The positions of these utterances, by onset: late text may have opened one that lies before an older one."""
    onsets = sorted((each.onset_ms, each.index, each) for each in utterances if each.onset_ms is not None)
    places: list[_PlacedUtterance] = []
    for start, _, utterance in onsets:
        end = utterance.end_ms
        if end is None:
            # The end was not measured: what cut the speech off bounds it, and so does the next onset.
            following = min((onset for onset, _, _ in onsets if onset > start), default=_FOREVER)
            end = min(following, _FOREVER if utterance.cut_ms is None else utterance.cut_ms)
        places.append(_PlacedUtterance(utterance, start, end))
    return places


def _owners(words: Sequence[Word], places: Sequence[_PlacedUtterance]) -> list[Utterance | None]:
    """Assign each word: a word outside all utterances goes with the nearest word inside one; a word without times goes
    with the word before it."""
    bounds = [_word_bounds(word) for word in words]
    known = [None if word is None else _around(places, word) for word in bounds]
    found = [(word, owner) for word, owner in zip(bounds, known, strict=True) if word is not None and owner is not None]
    if not found:
        return known
    owners: list[Utterance | None] = []
    for word, owner in zip(bounds, known, strict=True):
        if word is None:
            owners.append(owners[-1] if owners else found[0][1])
        else:
            owners.append(owner or found[_nearest(word, [other for other, _ in found])][1])
    return owners


def _nearest(word: tuple[int, int], others: Sequence[tuple[int, int]]) -> int:
    return max(range(len(others)), key=lambda at: _shared(word, others[at]))


def _around(places: Sequence[_PlacedUtterance], bounds: tuple[int, int]) -> Utterance | None:
    """The utterance with the most overlap; None where none overlaps."""
    best = max(places, key=lambda there: there.overlap(bounds), default=None)
    return best.utterance if best is not None and best.overlap(bounds) > 0 else None


def _divided(said: Said, owners: Sequence[Utterance | None]) -> list[tuple[Said, Utterance | None]] | None:
    starts = _starts(said.text, said.words)
    if starts is None:
        return None
    parts: list[tuple[Said, Utterance | None]] = []
    runs = [[at for at, _ in run] for _, run in groupby(enumerate(owners), key=lambda pair: id(pair[1]))]
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        text = said.text[starts[run[0]] if parts else 0 : None if following is None else starts[following[0]]]
        words = said.words[run[0] : run[-1] + 1]
        parts.append((replace(said, text=text.strip(), words=words, span=_hull(words, said.span)), owners[run[0]]))
    return parts


def _starts(text: str, words: Sequence[Word]) -> list[int] | None:
    """The offset of each word in the text, including preceding punctuation; None where words and text differ."""
    starts, at = list[int](), 0
    for word in words:
        spoken = word.text.strip()
        found = re.compile(re.escape(spoken), re.IGNORECASE).search(text, at) if spoken else None
        if found is None or any(letter.isalnum() for letter in text[at : found.start()]):
            return None
        # Text directly before a word belongs to that word; text after the last word belongs to the last word.
        gap = text[at : found.start()]
        blank = max((i + 1 for i, letter in enumerate(gap) if letter.isspace()), default=len(gap))
        starts.append(at + blank)
        at = found.end()
    return None if any(letter.isalnum() for letter in text[at:]) else starts


def _hull(words: Sequence[Word], span: Span) -> Span:
    bounds = _timed(words)
    if not bounds:
        return Span(reliable=span.reliable)
    return replace(span, start_ms=min(start for start, _ in bounds), end_ms=max(end for _, end in bounds))


def _timed(words: Sequence[Word]) -> list[tuple[int, int]]:
    return [bounds for bounds in map(_word_bounds, words) if bounds is not None]


def _word_bounds(word: Word) -> tuple[int, int] | None:
    if word.start_ms is None or word.end_ms is None:
        return None
    return word.start_ms, max(word.end_ms, word.start_ms + 1)


def _bounds(span: Span) -> tuple[int, int] | None:
    start = span.start_ms if span.start_ms is not None else span.end_ms
    end = span.end_ms if span.end_ms is not None else span.start_ms
    return None if start is None or end is None else (start, max(end, start + 1))


def _shared(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Shared milliseconds; zero or negative, the gap between them."""
    return min(one[1], other[1]) - max(one[0], other[0])
