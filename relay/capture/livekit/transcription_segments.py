"""Turns transcripts into the segments that a frontend shows, one per utterance."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from relay.events.envelope import StreamEvent
from relay.events.speech import UtteranceCompleted
from relay.events.stream import StreamEnded
from relay.events.transcript import TranscriptFinal, TranscriptInterim
from relay.speech.settings import KEPT_UTTERANCES

_Transcript = TranscriptInterim | TranscriptFinal


@dataclass(frozen=True, slots=True)
class Line:
    """The complete current text of a segment. A newer line of the segment replaces an older one."""

    segment: str
    """The utterance's id."""
    text: str
    """Empty where only a retracted interim was shown."""
    final: bool
    """Nothing more comes in this segment."""
    identity: str
    """The speaker's identity."""
    track_sid: str
    language: str
    """Empty where unknown."""


@dataclass(slots=True)
class _Said:
    """The transcripts of one stream's utterances that are not completed."""

    finals: dict[str, list[str]] = field(default_factory=dict)
    """By utterance, with an entry for each that has been shown."""
    guessed_in: str | None = None
    """The utterance that shows the current interim. Recognition has one interim at a time, so a newer interim or a
    final replaces it wherever it is shown."""
    closed: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_UTTERANCES))
    """The newest completed utterances. Late text of one is shown with its next completion."""


class Segments:
    """Turns transcripts into lines. An utterance is a segment; its text is its finals so far and the current interim.

    A segment is closed once, with the utterance: more finals may follow a final. A segment with interims only is closed
    with no text, because nothing was confirmed. An utterance that is completed again, with late text, has its segment
    rewritten as a whole.
    """

    def __init__(self) -> None:
        self._streams: dict[str, _Said] = {}

    def take(self, event: StreamEvent) -> list[Line]:
        """The lines that an event changes, in display order."""
        match event:
            case TranscriptInterim() | TranscriptFinal():
                return list(self._transcript(event))
            case UtteranceCompleted():
                return self._completed(event)
            case StreamEnded():
                self._streams.pop(event.stream.id, None)
                return []
            case _:
                return []

    def _transcript(self, event: _Transcript) -> Iterator[Line]:
        said = self._streams.setdefault(event.stream.id, _Said())
        utterance = event.utterance.id
        if utterance in said.closed:
            return
        if said.guessed_in is not None and said.guessed_in != utterance:
            yield _line(event, said.guessed_in, said.finals[said.guessed_in])
        finals = said.finals.setdefault(utterance, [])
        if isinstance(event, TranscriptFinal):
            said.guessed_in = None
            finals.append(event.data.text)
            yield _line(event, utterance, finals)
        else:
            said.guessed_in = utterance
            yield _line(event, utterance, [*finals, event.data.text])

    def _completed(self, event: UtteranceCompleted) -> list[Line]:
        said, utterance = self._streams.setdefault(event.stream.id, _Said()), event.utterance.id
        if event.data.revises is None:
            said.closed.append(utterance)
        finals = said.finals.pop(utterance, None)
        if said.guessed_in == utterance:
            said.guessed_in = None
        if finals is None and event.data.revises is None:
            return []
        return [_line(event, utterance, [event.data.text], final=True)]


def _line(event: _Transcript | UtteranceCompleted, segment: str, texts: list[str], *, final: bool = False) -> Line:
    return Line(
        segment=segment,
        text=" ".join(texts),
        final=final,
        identity=event.participant.identity,
        track_sid=event.stream.track_sid,
        language=event.data.language or "",
    )
