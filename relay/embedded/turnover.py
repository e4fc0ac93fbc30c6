"""Whose an observation is after a session switched to another participant: its detectors go on as before."""

from collections import deque

from relay.speech.observations import (
    Observation,
    RealtimeEnded,
    RealtimeStarted,
    StateChanged,
    SttEnded,
    SttStarted,
    SttTranscript,
    Transcribed,
    TurnEnded,
    VadEnded,
    VadStarted,
)

_KINDS: dict[type[Observation], str] = {
    VadStarted: "vad",
    VadEnded: "vad",
    SttStarted: "stt",
    SttEnded: "stt",
    RealtimeStarted: "realtime",
    RealtimeEnded: "realtime",
}
_NEVER = -(1 << 62)
_MOST_TEXTS = 64
"""Of one turn. Where a session makes no turns, nothing else limits them."""


class Turnover:
    """Decides whether an observation is still the former participant's. Feed it every observation.

    Media times decide where a detector gives them. Without them, a text is the former one's while theirs is still
    due: what they said last has no final yet, or their speech has not ended. A turn with words of theirs is theirs.
    """

    def __init__(self, uncertain_ms: int) -> None:
        """``uncertain_ms``: how much earlier than :meth:`switched` is called the switch may have been."""
        self._uncertain_ms = uncertain_ms
        self._at_ms = self._at_wall_ms = _NEVER
        self._open: set[str] = set()
        """What speaks now, by kind."""
        self._due = False
        """Whether speech has no final text yet."""
        self._old: set[str] = set()
        """What spoke at the switch and has not ended since."""
        self._owed = False
        """Whether the speech before the switch has no final text yet."""
        self._last: tuple[str, bool] | None = None
        """The provider's newest text, which the session repeats, and whether it was the former participant's."""
        self._finals: deque[str] = deque(maxlen=_MOST_TEXTS)
        """The present participant's that are in no turn yet."""
        self._old_finals: list[str] = []
        """The former participant's that are in no turn yet."""

    def switched(self, at_ms: int, wall_ms: int) -> None:
        """The session switched. ``at_ms`` is the media time, ``wall_ms`` the wall time in epoch milliseconds."""
        self._at_ms, self._at_wall_ms = at_ms, wall_ms
        # A text that is still due to an earlier one is not the next one's either.
        self._old, self._open = self._old | self._open, set()
        self._owed, self._due = self._owed or self._due, False
        self._old_finals += self._finals
        self._finals.clear()

    def of_former(self, observation: Observation) -> bool:
        """Note the observation, and return whether it is, in whole or in part, not of the present participant."""
        match observation:
            case VadStarted(onset_ms=at_ms) | SttStarted(at_ms=at_ms) | RealtimeStarted(at_ms=at_ms):
                return self._started(_KINDS[type(observation)], at_ms)
            case VadEnded() | SttEnded() | RealtimeEnded():
                return self._ended(_KINDS[type(observation)])
            case StateChanged(new="speaking"):
                return self._started("session", None)
            case StateChanged():
                return self._ended("session")
            case SttTranscript(text=text, final=final, start_ms=start_ms):
                former = self._said(text, final=final, start_ms=start_ms if observation.reliable else None)
                self._last = text, former
                return former
            case Transcribed(text=text, final=final):
                if self._last is not None and self._last[0] == text:
                    return self._last[1]
                return self._said(text, final=final, start_ms=None)
            case TurnEnded(text=text, started_speaking_at=began_ms):
                return self._turned(text, began_ms)
            case _:
                return False

    @property
    def _stale(self) -> bool:
        return self._owed or bool(self._old)

    def _before(self, at_ms: int | None) -> bool:
        if at_ms is None or self._at_ms - self._uncertain_ms <= at_ms < self._at_ms:
            return self._stale
        return at_ms < self._at_ms

    def _started(self, kind: str, at_ms: int | None) -> bool:
        former = self._before(at_ms)
        self._old.discard(kind)  # an end may be missing, as where a detector failed
        if former:
            self._old.add(kind)
            self._owed = True
        else:
            self._open.add(kind)
            self._due = True
        return former

    def _ended(self, kind: str) -> bool:
        if kind in self._old:
            self._old.discard(kind)
            return True
        self._open.discard(kind)
        return False

    def _said(self, text: str, *, final: bool, start_ms: int | None) -> bool:
        former = self._before(start_ms)
        if former:
            self._owed = not final
        else:
            self._due = not final
            self._owed = False  # the texts of a provider come in order
        if final and text:
            (self._old_finals if former else self._finals).append(text)
        return former

    def _turned(self, text: str, began_ms: int | None) -> bool:
        began_before = self._stale if began_ms is None else began_ms < self._at_wall_ms
        former = began_before or any(said in text for said in self._old_finals)
        # turns come in the order of their texts
        self._old_finals = [said for said in self._old_finals if said not in text] if former else []
        self._finals.clear()
        return former
