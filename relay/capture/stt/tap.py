"""Runs speech recognition: reports every event of the provider, and restarts it when it fails."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, stt

from relay.capture.audio.source import SAMPLE_RATE
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import Outages
from relay.capture.health.progress import Backpressure
from relay.capture.health.watchdog import DeafnessDetector, level_db
from relay.capture.stt.replay_buffer import KEPT_S, ReplayBuffer
from relay.capture.stt.stream import DeclaredStt, SttAttempts, SttStream
from relay.capture.stt.transcripts import LONGEST_S, TEXTS, Transcripts
from relay.events.stream import SourceFailure
from relay.speech.observations import SttEnded, SttStarted, SttTranscript, VadEnded, VadStarted

log = logging.getLogger(__name__)

Report = Callable[[SttStarted | SttEnded | SttTranscript], None]

_CONNECT_WITHIN_S = 4.0
"""Within the time that speech waits for its text: a connection that hangs must cost no more than one attempt."""
_RECOGNIZE_WITHIN_S = 10.0
"""LiveKit's own, for a whole request of a provider that does not stream."""
_TRIES_AT_THE_END = 6
"""Failures in a row after which a stream whose audio is over is abandoned. Its closer waits for less."""
_ANSWER_FIRST_S = 1.0
"""The delay before audio is sent on a connection that may be rejected again: a plugin that is busy sending finds the
connection closed before it reads the reason."""
_STEADY_S = 15.0
"""A connection without a failure or a report for this long is good."""
_RESUME_WITHIN_S = 5.0
"""How long a new connection may take to report the speech that was in progress on the old one."""
_RELEASE_WITHIN_S = 2.0
_WITHDRAWN = stt.SpeechEvent(
    stt.SpeechEventType.INTERIM_TRANSCRIPT, alternatives=[stt.SpeechData(LanguageCode(""), "")]
)
"""What the session gets in place of a repeated final: it would add the text to its turn once more. An empty interim
retracts the interim before the repeated final, which the session would turn into a final when it is closed."""
_LAST_WORDS_WITHIN_S = 1.0
"""How long a provider that has answered for the end of the audio may take to report more. Deepgram's plugin ends its
stream some seconds after the connection."""


class SttTap:
    """Runs the provider over a session's audio.

    The library's own reconnection is disabled: it would log each attempt, and count its times from wall time. A
    provider's stream that ends, for whatever reason, is recreated after a delay, and first gets the audio that has no
    answer yet (see :class:`ReplayBuffer`), so no word is lost or repeated. It gets the place of its first audio in the
    LiveKit stream as its ``start_time_offset``, so its times are media times.

    ``on_speech_lost`` is called where only the provider reported the speech in progress, and will not report its end.
    """

    def __init__(
        self,
        provider: stt.STT[Any],
        name: str,
        *,
        voiced: bool,
        report: Report,
        on_speech_lost: Callable[[], None],
        lead: Backpressure,
        guard: ErrorGuard,
        outages: Outages,
    ) -> None:
        self.declared = DeclaredStt(provider)
        self._provider = provider
        self._voiced = voiced
        self._on_speech_lost = guard(on_speech_lost)
        self._guard = guard
        self._lead = lead
        self._attempts = SttAttempts(name, outages)
        streams = not isinstance(provider, stt.StreamAdapter)
        self._options = APIConnectOptions(max_retry=0, timeout=_CONNECT_WITHIN_S if streams else _RECOGNIZE_WITHIN_S)
        self._transcripts = Transcripts(report, timed=streams)
        self._owed = ReplayBuffer(voiced=voiced)
        self._doubt = None if voiced else DeafnessDetector(talks_along=True)
        self._inbox: asyncio.Queue[tuple[SttStream | None, stt.SpeechEvent | Exception | None]]
        self._stream: SttStream | None = None
        self._reader: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[None]] = set()
        self._audio_over = False
        self._concluded = False
        """A final came after all the audio."""
        self._news = asyncio.Event()
        self._base = 0
        self._heard_to = 0
        """The position up to which some connection is known to have processed the audio."""
        self._used_s = 0.0
        self._opened_at = 0.0
        self._signed = False
        self._caught_up = False
        self._rejected = False
        """The last connection failed before it gave a sign of life."""
        self._resume_until: float | None = None
        provider.on("error", guard(self._attempts.answered))

    async def events(self, audio: AsyncIterable[rtc.AudioFrame]) -> AsyncIterator[stt.SpeechEvent]:
        """The provider's events, until the audio ends."""
        self._inbox = asyncio.Queue()
        self._audio_over = self._concluded = False
        self._reader = reader = asyncio.create_task(self._read(audio), name="stt_tap")
        try:
            while True:
                stream, came = await self._inbox.get()
                if stream is not self._stream:
                    continue
                if stream is not None and isinstance(came, stt.SpeechEvent):
                    self._heard(came, stream)
                    yield _WITHDRAWN if self._transcripts.repeated else came
                elif stream is None or (self._audio_over and not (isinstance(came, Exception) and self._worth_a_try)):
                    return
                else:
                    # If this were raised, LiveKit would stop transcribing this participant, or retry twice a second.
                    self._failed(came if isinstance(came, Exception) else None)
                    if self._audio_over:
                        await self._finish()
        finally:
            reader.cancel()
            self._release()
            await asyncio.wait([reader, *self._releasing], timeout=_RELEASE_WITHIN_S)
            self._guard(self._transcripts.end)()
            self._reader = None
            self._news.set()

    async def hang_up(self) -> None:
        """All audio has come: notify the provider, which makes some send their last words. Returns once nothing is
        outstanding, or the provider has ended its stream."""
        if self._reader is None or self._audio_over:
            return
        self._audio_over = True
        await self._finish()
        with contextlib.suppress(TimeoutError):
            while self._reader is not None and self._owes:
                self._news.clear()
                await asyncio.wait_for(self._news.wait(), _LAST_WORDS_WITHIN_S if self._concluded else None)

    def stop(self) -> None:
        """Report nothing more: the session is closed, and makes a final of its interim. Another would repeat it."""
        self._audio_over = True
        self._release()

    async def aclose(self) -> None:
        """Release the provider."""
        await self._provider.aclose()

    def voice(self, edge: VadStarted | VadEnded) -> None:
        """Take a voice activity observation of the same audio."""
        self._owed.voice(edge)
        self._news.set()

    def stalled(self) -> None:
        """The connection gives no sign of life during speech."""
        if self._stream is not None:
            self._failed(None, "stalled")

    def cut_off(self) -> None:
        """The audio has stopped."""
        self._resume_until = 0.0 if self._transcripts.open and not self._voiced else self._resume_until

    def look(self) -> None:
        """Run the time-based checks; call it about every second."""
        now = asyncio.get_running_loop().time()
        if self._doubt is not None and self._stream is not None and self._doubt.alarm(now):
            self.stalled()
        if self._stream is not None and not self._attempts.silent and now - self._opened_at >= _STEADY_S:
            self._sign_of_life()
            self._owed.unheard = False
            self._attempts.recovered()
        deaf = self._stream is not None and now - self._opened_at >= _RESUME_WITHIN_S
        if self._resume_until is not None and (deaf or now >= self._resume_until):
            self._resume_until = None
            self._on_speech_lost()
            self._guard(self._transcripts.end)()

    # One task for as long as the node lives: cancelling a read of LiveKit's generator would end it.
    async def _read(self, audio: AsyncIterable[rtc.AudioFrame]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for frame in audio:
                if self._audio_over:
                    return  # What LiveKit adds itself at the close is not speech.
                self._owed.heard(frame)
                if self._doubt is not None:
                    self._doubt.heard(level_db(frame), frame.duration, speaking=self._transcripts.open)
                if self._stream is None:
                    if loop.time() >= self._attempts.wait_until:
                        self._open()
                elif self._caught_up:
                    self._stream.hear((frame,))
                elif loop.time() >= self._opened_at + _ANSWER_FIRST_S:
                    self._catch_up(self._stream)
        except Exception as error:
            log.warning("the audio of a track broke off on its way to speech recognition: %s", type(error).__name__)
        if not self._audio_over:
            self._audio_over = True
            await self._finish()

    @property
    def _owes(self) -> bool:
        unanswered = self._owed.any if self._doubt is None else self._doubt.any or self._owed.unheard
        return unanswered or self._transcripts.open

    @property
    def _worth_a_try(self) -> bool:
        """The speech of a participant who hung up in an outage still counts."""
        return self._owed.any and self._attempts.failures < _TRIES_AT_THE_END

    async def _finish(self) -> None:
        """Finish after the last audio: only the audio without an answer remains."""
        if self._stream is None and self._worth_a_try:
            await asyncio.sleep(self._attempts.wait_until - asyncio.get_running_loop().time())
            self._open()
        if self._stream is None:
            self._inbox.put_nowait((None, None))
        else:
            if not self._caught_up:
                self._catch_up(self._stream)
            self._stream.end_input()

    def _open(self) -> None:
        now = asyncio.get_running_loop().time()
        try:
            stream = SttStream(self._provider.stream(conn_options=self._options), self._inbox)
        except Exception as error:
            self._failed(error)
            return
        self._stream, self._opened_at, self._signed, self._caught_up = stream, now, False, False
        if self._doubt is not None:
            self._doubt.opened(now)
        if not self._rejected:
            self._catch_up(stream)

    def _catch_up(self, stream: SttStream) -> None:
        """Replay the audio without an answer; from here on audio goes straight to the stream."""
        self._caught_up = True
        self._base, self._used_s = self._owed.begins, 0.0
        self._transcripts.offset_s = self._base / SAMPLE_RATE
        stream.begin(self._transcripts.offset_s)
        stream.hear(self._owed)

    def _release(self) -> None:
        if self._stream is not None:
            leaving, self._stream = self._stream.release(), None
            self._releasing.add(leaving)
            leaving.add_done_callback(self._releasing.discard)

    def _heard(self, event: stt.SpeechEvent, stream: SttStream) -> None:
        if event.type is not stt.SpeechEventType.RECOGNITION_USAGE:
            self._sign_of_life()
            if self._doubt is not None:
                self._doubt.said(asyncio.get_running_loop().time())
            self._heard_to, self._resume_until = self._owed.ends, None
            if event.type in TEXTS:
                self._owed.unheard = False
                self._attempts.spoke()
        given_s = self._owed.ends / SAMPLE_RATE
        self._guard(self._transcripts.heard)(event, stream.offset_s, stream.began_at_s, given_s)
        if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
            self._owed.answered(self._transcripts.final_to_ms)
            self._concluded = self._audio_over
        self._news.set()
        if (used := event.recognition_usage) is not None and 0 <= used.audio_duration < LONGEST_S:
            self._used_s += used.audio_duration
            self._lead.heard("stt", self._base + round(self._used_s * SAMPLE_RATE))

    def _sign_of_life(self) -> None:
        if not self._signed:
            self._signed = True
            self._attempts.missed(max(0, self._base - self._heard_to))

    def _failed(self, error: Exception | None, reason: SourceFailure | None = None) -> None:
        """The stream ended: by an error, by itself (None), or because it is silent."""
        now = asyncio.get_running_loop().time()
        self._release()
        self._lead.lost("stt")
        self._rejected = not self._signed
        if self._signed and reason != "stalled":
            self._heard_to = self._owed.ends
        self._signed, self._owed.unheard = False, True
        if self._voiced or not self._transcripts.open:
            self._guard(self._transcripts.end)()
        elif self._resume_until is None:
            self._resume_until = now + KEPT_S
        self._attempts.ended(now, error, reason)
