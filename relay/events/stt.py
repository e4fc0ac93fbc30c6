"""``stt.*``: the speech-to-text provider's own SpeechStarted and SpeechEnded, passed on unchanged."""

from typing import Literal

from relay.events.envelope import Model, StreamEvent


class SttSpeechData(Model):
    request_id: str | None
    """The provider's own id of the request, for its support."""


class SttSpeechStarted(StreamEvent):
    """The provider reports that speech started."""

    type: Literal["stt.speech_started"] = "stt.speech_started"
    data: SttSpeechData


class SttSpeechEnded(StreamEvent):
    """The provider reports that speech ended."""

    type: Literal["stt.speech_ended"] = "stt.speech_ended"
    data: SttSpeechData
