"""The participant that a session listens to."""

from dataclasses import dataclass

from livekit import rtc


@dataclass(frozen=True, slots=True)
class Linked:
    """A participant, and the microphone track that the session's input uses."""

    participant: rtc.RemoteParticipant
    publication: rtc.RemoteTrackPublication

    @property
    def key(self) -> tuple[str, str]:
        """Changes when the participant rejoins or republishes."""
        return self.participant.sid, self.publication.sid
