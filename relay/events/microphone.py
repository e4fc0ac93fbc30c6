"""``microphone.*``: mute and unmute."""

from typing import Literal

from relay.events.envelope import Model, StreamEvent


class MicrophoneMutedData(Model):
    cut_speech: bool
    """Whether the participant was speaking when the microphone was muted."""


class MicrophoneMuted(StreamEvent):
    """The participant muted the track."""

    type: Literal["microphone.muted"] = "microphone.muted"
    data: MicrophoneMutedData


class MicrophoneUnmutedData(Model):
    muted_ms: int | None
    """How long the track was muted, in milliseconds; null where the mute was not observed."""


class MicrophoneUnmuted(StreamEvent):
    """The participant unmuted the track."""

    type: Literal["microphone.unmuted"] = "microphone.unmuted"
    data: MicrophoneUnmutedData
