"""Runs the streams of a speech recognition provider, and counts those that fail."""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError, NotGivenOr, stt, utils
from livekit.agents.types import NOT_GIVEN, TimedString
from livekit.agents.utils import is_given

from relay.capture.health.outages import Outages, RetriedSource, describe, kind_of
from relay.events.stream import SourceFailure


class SttStream:
    """Puts the provider's events into ``inbox``, and finally how it ended: by an error, or by itself (None).

    A stream that rejects its input has failed, as one that raises by itself.
    """

    def __init__(self, stream: stt.RecognizeStream, inbox: asyncio.Queue[tuple[Any, Any]]) -> None:
        self._stream = stream
        self._inbox = inbox
        self._listening = asyncio.create_task(self._listen(), name="stt_stream")

    @property
    def offset_s(self) -> float:
        """The current media time of its first audio: it moves when the library reconnects."""
        return self._stream.start_time_offset

    @property
    def began_at_s(self) -> float:
        """The wall time of its first audio."""
        return self._stream.start_time

    def begin(self, offset_s: float) -> None:
        """Set where its first audio begins."""
        with self._reporting_failure():
            self._stream.start_time_offset = offset_s

    def hear(self, frames: Iterable[rtc.AudioFrame]) -> None:
        with self._reporting_failure():
            for frame in frames:
                self._stream.push_frame(frame)

    def end_input(self) -> None:
        """No more audio comes."""
        with self._reporting_failure():
            self._stream.end_input()

    def release(self) -> asyncio.Task[None]:
        """Abandon it. Its end may hang for an unlimited time, until the task is done."""
        self._listening.cancel()
        return self._listening

    async def _listen(self) -> None:
        error = None
        try:
            async with self._stream as stream:
                async for event in stream:
                    if _mended(event):
                        self._inbox.put_nowait((self, event))
        except Exception as raised:
            error = raised
        self._inbox.put_nowait((self, error))

    @contextlib.contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError:
            pass  # A stream that has just ended takes no more input. Its end is about to be reported.
        except Exception as error:
            self._inbox.put_nowait((self, error))


def _mended(event: stt.SpeechEvent) -> bool:
    """Give an event's values the types that they are declared with; False for one without a text.

    Some plugins pass on what the provider's JSON has. LiveKit's session stops transcribing the participant for good
    where a value is of another type.
    """
    for spoken in event.alternatives:
        for name in ("start_time", "end_time", "confidence"):
            if not isinstance(getattr(spoken, name), int | float):
                setattr(spoken, name, 0.0)
        if spoken.speaker_id is not None:
            spoken.speaker_id = str(spoken.speaker_id)
        if not all(map(_is_timed, spoken.words or ())):
            spoken.words = None
    return all(isinstance(spoken.text, str) for spoken in event.alternatives)


def _is_timed(word: Any) -> bool:
    values = (word.start_time, word.end_time, word.confidence) if isinstance(word, TimedString) else (None,)
    return all(isinstance(value, int | float) for value in values if is_given(value))


class SttAttempts(RetriedSource):
    """The failures of a provider's streams. One that fell silent after it had transcribed something is an outage."""

    def __init__(self, name: str, outages: Outages) -> None:
        super().__init__("stt", outages)
        self._name = name
        self._refusal: Exception | None = None
        self._spoke = False
        self.silent = False
        """Whether it was silent during speech, and no text has come since."""

    def answered(self, event: stt.STTError) -> None:
        """The provider's answer: the error that the stream ends with does not always contain it."""
        if isinstance(event.error, APIStatusError):
            self._refusal = event.error

    def ended(self, now: float, error: Exception | None, reason: SourceFailure | None) -> None:
        """A stream ended: by an error, by itself (neither is given), or for this reason."""
        error, self._refusal = self._refusal or error, None
        reason = reason or ("lost" if error is None else kind_of(error))
        stalled = reason == "stalled"
        self.silent = self.silent or stalled
        what = "says nothing any more" if stalled else f"failed: {describe(error)}"
        words = f"speech recognition by {self._name} {what}; it is tried again until it answers"
        self.failed(now, reason, words, certain=stalled and self._spoke)

    def spoke(self) -> None:
        """Text came."""
        self._spoke, self.silent = True, False
        self.recovered()


class DeclaredStt(stt.STT[Any]):
    """Gives the session the provider's description without the provider itself: the session would count the provider's
    errors until it closes itself, and keep each of its metrics for as long as it lives. The tap runs the provider."""

    def __init__(self, inner: stt.STT[Any]) -> None:
        super().__init__(capabilities=inner.capabilities)
        self._inner = inner

    @property
    def model(self) -> str:
        return self._inner.model

    @property
    def provider(self) -> str:
        return self._inner.provider

    def prewarm(self) -> None:
        self._inner.prewarm()

    async def _recognize_impl(
        self, buffer: utils.AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        raise NotImplementedError("the agent's stt_node listens")
