"""Whom a session listens to."""

from dataclasses import dataclass

from livekit import rtc


@dataclass(frozen=True, slots=True)
class Linked:
    """A participant, and the microphone track that the session's input takes of theirs."""

    participant: rtc.RemoteParticipant
    publication: rtc.RemoteTrackPublication

    @property
    def key(self) -> tuple[str, str]:
        """Another one where the participant joined anew, or published anew."""
        return self.participant.sid, self.publication.sid
