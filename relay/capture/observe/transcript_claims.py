"""Attributes a session's texts to participants, by the transcripts in the room. Pure.

Any participant who may publish data can send a transcript under their own name. So a transcript is only a claim: it
counts for a text that the agent's own session reported.
"""

from collections import deque
from dataclasses import dataclass

WITHIN_S = 2.0
"""A session's event and its transcript in the room are sent by two tasks of the agent: either may come first."""
GRACE_S = 0.3
"""A claim that came before its text may be a guess. The agent's own transcript contradicts it within this time."""
MOST_TEXTS = 32
"""The number of session texts, and of claims per participant, that are remembered."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The speaker of ``text``; None where two participants claim it."""

    text: str
    identity: str | None


@dataclass(slots=True)
class _SessionText:
    text: str
    at: float
    claimant: str | None = None
    contested: bool = False
    grace_until: float = 0.0
    """Until then the claim may be contradicted."""
    held: bool = False
    """Whether the text waits for that: it would change the participant that the session is known to listen to."""


class Claims:
    """Matches claims with texts. The first claim of a text wins; a text that two had claimed when it came has no
    speaker.

    Times are seconds of a monotonic clock.
    """

    def __init__(self) -> None:
        self._said: deque[_SessionText] = deque(maxlen=MOST_TEXTS)
        self._early: dict[str, deque[tuple[str, float]]] = {}
        """Claims of texts that the session has not reported, by participant."""

    @property
    def pending(self) -> bool:
        """Whether a text waits for its claim to be decided, which :meth:`overdue` does after ``GRACE_S``."""
        return any(said.held for said in self._said)

    def clear(self) -> None:
        """Another session starts."""
        self._said.clear()
        self._early.clear()

    def said(self, text: str, now: float, *, known: str | None) -> Verdict | None:
        """The session reported ``text``. ``known`` is the participant that it is known to listen to."""
        text = text.strip()
        self._forget(now)
        if not text:
            return None
        if (again := self._find(text)) is not None:
            again.at = now  # a final repeats its last interim: it belongs to the same participant
            return None
        said = _SessionText(text, now)
        self._said.append(said)
        claimants = {who for who, early in self._early.items() if any(claimed == text for claimed, _ in early)}
        if len(claimants) > 1:
            return _contested(said)
        for said.claimant in claimants:
            said.grace_until = now + GRACE_S
            said.held = said.claimant != known
        return None

    def claimed(self, identity: str, text: str, now: float) -> Verdict | None:
        """A transcript arrived under the name of ``identity``, for that participant's microphone."""
        text = text.strip()
        self._forget(now)
        said = self._find(text)
        if said is None:
            self._early.setdefault(identity, deque(maxlen=MOST_TEXTS)).append((text, now))
        elif said.claimant is None and not said.contested:
            said.claimant = identity
            return Verdict(text, identity)
        elif said.claimant != identity and (said.held or now < said.grace_until):
            return _contested(said)
        return None

    def overdue(self, now: float) -> list[Verdict]:
        """Verdicts on claims that were not contradicted in time."""
        decided = [said for said in self._said if said.held and said.grace_until <= now]
        for said in decided:
            said.held = False
        return [Verdict(said.text, said.claimant) for said in decided]

    def _find(self, text: str) -> _SessionText | None:
        return next((said for said in self._said if said.text == text), None)

    def _forget(self, now: float) -> None:
        self._said = deque((said for said in self._said if said.held or said.at >= now - WITHIN_S), maxlen=MOST_TEXTS)
        for identity, early in list(self._early.items()):
            while early and early[0][1] < now - WITHIN_S:
                early.popleft()
            if not early:
                del self._early[identity]


def _contested(said: _SessionText) -> Verdict:
    said.claimant, said.contested, said.held, said.grace_until = None, True, False, 0.0
    return Verdict(said.text, None)
