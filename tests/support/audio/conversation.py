"""A script of who speaks when, and its comparison with the reported speech."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from relay.events.speech import SpeechEnd
from relay.events.stream import StreamEnd


@dataclass(frozen=True, slots=True)
class Phrase:
    """A stretch of speech in a recording. Its times are those that Silero finds in the file itself."""

    recording: str
    onset_ms: int
    end_ms: int
    word: str
    """One of its words that Moonshine recognizes correctly."""


@dataclass(frozen=True, slots=True)
class Says:
    """``at_s`` is the onset, in seconds since the script began."""

    at_s: float
    who: str
    phrase: Phrase

    @property
    def start_ms(self) -> int:
        return round(self.at_s * 1000)

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.phrase.end_ms - self.phrase.onset_ms


@dataclass(frozen=True, slots=True)
class Does:
    """``changes track``: unpublishes one track, and publishes another at once."""

    at_s: float
    who: str
    what: Literal["mutes", "unmutes", "leaves", "returns", "changes track"]


@dataclass(frozen=True, slots=True)
class Script:
    """All of the ``cast`` are present from the beginning, unmuted; the room is closed at ``end_s``."""

    cast: Sequence[str]
    lines: Sequence[Says | Does]
    end_s: float

    def of(self, who: str) -> list[Says | Does]:
        return sorted((line for line in self.lines if line.who == who), key=lambda line: line.at_s)


@dataclass(frozen=True, slots=True)
class Track:
    """One published track: a participant's first is number 0. Milliseconds since the script began."""

    who: str
    number: int
    from_ms: int
    until_ms: int
    end: StreamEnd


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of speech, scripted or reported. Milliseconds since the script began."""

    who: str
    track: int
    start_ms: int
    end_ms: int | None
    """None: reported, and not measured."""
    reason: SpeechEnd
    text: str
    """Reported: the transcript. Scripted: a word in it; empty where the speech was cut off."""

    def __str__(self) -> str:
        return f"{self.who} (track {self.track}) from {self.start_ms} to {self.end_ms} ms, {self.reason}"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Several participants who speak at once, scripted or reported."""

    who: frozenset[str]
    start_ms: int
    end_ms: int | None
    peak: int

    def __str__(self) -> str:
        return f"{', '.join(sorted(self.who))} from {self.start_ms} to {self.end_ms} ms, {self.peak} at once"


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between script and report. Two are equal where the same is wrong with the same part of the script,
    also in another performance of it."""

    what: str
    about: tuple[str, ...]
    detail: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


def tracks(script: Script) -> list[Track]:
    """The published tracks, by participant, each in order."""
    return [track for who in script.cast for track in _tracks(script, who)]


def _tracks(script: Script, who: str) -> Iterator[Track]:
    number, since = 0, 0 if who in script.cast else None
    for line in script.of(who):
        at = round(line.at_s * 1000)
        match line:
            case Does(what="leaves" | "changes track" as what):
                assert since is not None, f"{who} is not there at {line.at_s} s"
                yield Track(who, number, since, at, "disconnected" if what == "leaves" else "unpublished")
                number, since = number + 1, at if what == "changes track" else None
            case Does(what="returns"):
                since = at
    if since is not None:
        yield Track(who, number, since, round(script.end_s * 1000), "room_ended")


def utterances(script: Script, late_ms: Mapping[tuple[str, int], int] | None = None) -> list[Utterance]:
    """The expected speech, by its start. ``late_ms`` is how late the speech at (who, start) was."""
    found = [each for track in tracks(script) for each in _heard_of(script, track, late_ms or {})]
    return sorted(found, key=lambda each: each.start_ms)


def _heard_of(script: Script, track: Track, late_ms: Mapping[tuple[str, int], int]) -> Iterator[Utterance]:
    cuts: list[tuple[int, SpeechEnd]] = [(begin, "muted") for begin, _ in _mutes(script, track.who)]
    cuts.append((track.until_ms, track.end))
    for says in script.of(track.who):
        if not isinstance(says, Says) or not track.from_ms <= says.start_ms < track.until_ms:
            continue
        if any(begin <= says.start_ms < end for begin, end in _mutes(script, track.who)):
            continue
        late = late_ms.get((track.who, says.start_ms), 0)
        start, end = says.start_ms + late, says.end_ms + late
        cut, reason = min(each for each in cuts if each[0] > start)
        if cut < end:
            yield Utterance(track.who, track.number, start, cut, reason, "")
        else:
            yield Utterance(track.who, track.number, start, end, "silence", says.phrase.word)


def _mutes(script: Script, who: str) -> list[tuple[int, int]]:
    turns = [line for line in script.of(who) if isinstance(line, Does) and line.what in ("mutes", "unmutes")]
    assert all(a.what != b.what for a, b in pairwise(turns)), f"{who} mutes or unmutes twice"
    at = [round(line.at_s * 1000) for line in turns] + [round(script.end_s * 1000)] * (len(turns) % 2)
    return list(zip(at[::2], at[1::2], strict=True))


def overlaps(speech: Iterable[Utterance], min_ms: int = 300) -> list[Overlap]:
    """All times at which two or more spoke at once for at least this long, in order. All times of ``speech`` must be
    known."""
    changes = []
    for each in speech:
        assert each.end_ms is not None
        changes += [(each.start_ms, 1, each.who), (each.end_ms, -1, each.who)]
    found: list[Overlap] = []
    speaking: set[str] = set()
    begun: Overlap | None = None
    for at, change, who in sorted(changes):
        speaking = speaking | {who} if change > 0 else speaking - {who}
        if len(speaking) < 2 and begun is not None:
            if at - begun.start_ms >= min_ms:
                found.append(replace(begun, end_ms=at))
            begun = None
        elif len(speaking) >= 2:
            begun = begun or Overlap(frozenset(), at, None, 0)
            begun = replace(begun, who=begun.who | speaking, peak=max(begun.peak, len(speaking)))
    return found


def unclear(script: Script, tolerance_ms: int) -> list[str]:
    """The expectations that would change if everything moved by ``tolerance_ms``: a script must be unambiguous."""
    speech = utterances(script)
    told = [
        [(each.who, each.peak) for each in overlaps(_shorter(speech, by))] for by in (0, tolerance_ms, -tolerance_ms)
    ]
    faults = [] if told[0] == told[1] == told[2] else ["who overlaps depends on the tolerance"]
    by_person = sorted(speech, key=lambda each: (each.who, each.start_ms))
    for a, b in pairwise(by_person):
        if a.who == b.who and a.end_ms is not None and b.start_ms - a.end_ms < 1_000:
            faults.append(f"{b} follows on {a} too soon")
    return faults


def _shorter(speech: Iterable[Utterance], ms: int) -> Iterator[Utterance]:
    """The intervals shortened by ``ms`` at either end; those with nothing left are omitted."""
    for each in speech:
        assert each.end_ms is not None
        if each.end_ms - each.start_ms > 2 * ms:
            yield replace(each, start_ms=each.start_ms + ms, end_ms=each.end_ms - ms)


def reconcile(scripted: Sequence[Utterance], told: Sequence[Utterance], tolerance_ms: int) -> list[Fault]:
    """The errors in the reported speech: wrong, missing, repeated or invented. Empty where all is correct.

    Words are checked against those of other simultaneous speakers; :func:`misheard` checks for the right ones.
    """
    pairs, left = _paired(scripted, told, tolerance_ms)
    faults: list[Fault] = []
    for number, (said, heard) in enumerate(pairs):
        about = (said.who, str(sum(other.who == said.who for other, _ in pairs[:number])))
        if heard is None:
            faults.append(Fault("not heard", about, str(said)))
            continue
        if heard.reason != said.reason:
            faults.append(Fault("ended otherwise", about, f"{said}, told as {heard}"))
        if heard.end_ms is None and said.reason == "silence":
            faults.append(Fault("its end was not measured", about, str(said)))
        if said.end_ms is not None and heard.end_ms is not None and abs(heard.end_ms - said.end_ms) > tolerance_ms:
            faults.append(Fault("its end is off", about, f"{said}, told as {heard}"))
        if not _has_word(said, heard) and any(_has_word(other, heard) for other in scripted if _beside(said, other)):
            faults.append(Fault("another's words", about, f"{said}, as {heard.text!r}"))
    return faults + [Fault("never said", (each.who, str(each.track)), str(each)) for each in left]


def misheard(scripted: Sequence[Utterance], told: Sequence[Utterance], tolerance_ms: int) -> list[Fault]:
    """Speech that was reported without its expected word."""
    pairs, _ = _paired(scripted, told, tolerance_ms)
    return [
        Fault("misheard", (said.who, said.text), f"{said}, with the word {said.text!r}, as {heard.text!r}")
        for said, heard in pairs
        if heard is not None and not _has_word(said, heard)
    ]


def _has_word(said: Utterance, heard: Utterance) -> bool:
    return said.text in heard.text.lower()


def _beside(said: Utterance, other: Utterance) -> bool:
    """Whether another participant said it at the same time, with a word that identifies it."""
    assert said.end_ms is not None
    assert other.end_ms is not None
    at_once = other.start_ms < said.end_ms and said.start_ms < other.end_ms
    return at_once and other.who != said.who and other.text not in ("", said.text)


def _paired(
    scripted: Sequence[Utterance], told: Sequence[Utterance], tolerance_ms: int
) -> tuple[list[tuple[Utterance, Utterance | None]], list[Utterance]]:
    """Pair the scripted speech with the reported speech; also return the rest of the latter.

    Two match where participant and track are the same and the starts are close.
    """
    left = list(told)
    pairs: list[tuple[Utterance, Utterance | None]] = []
    for said in scripted:
        same = [each for each in left if (each.who, each.track) == (said.who, said.track)]
        heard = next((each for each in same if abs(each.start_ms - said.start_ms) <= tolerance_ms), None)
        if heard is not None:
            left.remove(heard)
        pairs.append((said, heard))
    return pairs, left


def reconcile_overlaps(scripted: Sequence[Overlap], told: Sequence[Overlap], tolerance_ms: int) -> list[Fault]:
    """The errors in the reported overlaps, in the order of the script."""
    left = list(told)
    faults: list[Fault] = []
    for was in scripted:
        near = [each for each in left if abs(each.start_ms - was.start_ms) <= tolerance_ms]
        if not near:
            faults.append(Fault("not told", tuple(sorted(was.who)), str(was)))
            continue
        heard = near[0]
        left.remove(heard)
        off = heard.end_ms is None or was.end_ms is None or abs(heard.end_ms - was.end_ms) > tolerance_ms
        if off or (heard.who, heard.peak) != (was.who, was.peak):
            faults.append(Fault("told otherwise", tuple(sorted(was.who)), f"{was}, as {heard}"))
    return faults + [Fault("did not overlap", tuple(sorted(each.who)), str(each)) for each in left]


def reconcile_tracks(scripted: Collection[Track], told: Collection[tuple[str, int, StreamEnd | None]]) -> list[str]:
    """Tracks that did not have exactly one stream, or whose stream ended differently. ``told``: (who, number, its
    end)."""
    there = sorted((each.who, each.number, each.end) for each in scripted)
    left = sorted((who, number, end or "") for who, number, end in told)
    missing = [f"no such stream: {each}" for each in there if each not in left]
    return missing + [f"no such track: {each}" for each in left if each not in there or left.count(each) > 1]
