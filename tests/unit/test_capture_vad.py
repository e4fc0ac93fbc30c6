"""The voice activity tap's bookkeeping, event by event: what real detectors do rarely."""

from livekit import rtc
from livekit.agents import vad

from relay.capture.audio.frames import stamp
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.progress import Backpressure
from relay.capture.vad.events import Segments
from relay.speech.observations import VadEnded, VadStarted

WINDOW = 512
SECOND = 16_000


class Tape:
    """A detector over a tape: one window per call, its clock counted from the last flush."""

    def __init__(self, base: int = 0) -> None:
        self.reported: list[VadStarted | VadEnded] = []
        self.lead = Backpressure("vad")
        self.segments = Segments(self.reported.append, self.lead)
        self.position = base
        self.windows = 0
        self.silence = self.speech = 0.0

    def push(self, samples: int = WINDOW) -> None:
        frame = rtc.AudioFrame.create(SECOND, 1, samples)
        stamp(frame, self.position)
        self.position += samples
        self.segments.pushed(frame)

    def infer(self, probability: float = 0.9, *, speaking: bool = True, windows: int = 1) -> None:
        for _ in range(windows):
            self.push()
            self.windows += 1
            self.segments.happened(self.event(vad.VADEventType.INFERENCE_DONE, probability, speaking=speaking))
            heard = probability >= 0.5
            self.silence = 0.0 if heard else self.silence + WINDOW / SECOND
            self.speech = self.speech + WINDOW / SECOND if heard else 0.0

    def event(
        self, kind: vad.VADEventType, probability: float = 0.0, *, speech: float = 0.0, speaking: bool = False
    ) -> vad.VADEvent:
        return vad.VADEvent(
            type=kind,
            samples_index=self.windows * WINDOW,
            timestamp=self.windows * WINDOW / SECOND,
            speech_duration=speech,
            silence_duration=self.silence,
            probability=probability,
            speaking=speaking,
            raw_accumulated_silence=self.silence,
            raw_accumulated_speech=self.speech,
        )

    def start(self, speech: float = 0.064) -> None:
        self.segments.happened(self.event(vad.VADEventType.START_OF_SPEECH, speech=speech))

    def end(self, speech: float = 1.0) -> None:
        self.segments.happened(self.event(vad.VADEventType.END_OF_SPEECH, speech=speech))

    def flush(self) -> None:
        self.segments.flushed()
        self.windows = 0
        self.silence = self.speech = 0.0


def test_times_count_from_where_the_detector_came_in() -> None:
    tape = Tape(base=10 * SECOND)
    tape.infer(0.9, speaking=False, windows=4)
    tape.start(speech=0.064)
    tape.infer(0.8, windows=10)
    tape.infer(0.1, windows=5)
    tape.end(speech=0.384)

    assert tape.reported == [
        VadStarted(onset_ms=10_064, speech_ms=64, probability=0.9),
        VadEnded(
            end_ms=10_448, speech_ms=384, silence_ms=160, probability_peak=0.9, probability_mean=round(11.6 / 14, 4)
        ),
    ]


def test_a_flush_in_mid_speech_ends_it_and_restarts_the_clock() -> None:
    tape = Tape()
    tape.infer(windows=100)
    tape.start()
    tape.flush()
    tape.infer(windows=3)
    tape.start(speech=0.064)

    first, ended, second = tape.reported
    assert isinstance(ended, VadEnded)
    assert (ended.reason, ended.end_ms, ended.speech_ms, ended.silence_ms) == ("flushed", 3_200, None, None)
    assert isinstance(first, VadStarted)
    assert isinstance(second, VadStarted)
    assert second.onset_ms == 3_200 + 96 - 64


def test_what_was_on_its_way_when_the_detector_was_flushed_counts_for_nothing() -> None:
    tape = Tape()
    tape.infer(windows=10)
    tape.start()
    late_end = tape.event(vad.VADEventType.END_OF_SPEECH)
    late_start = tape.event(vad.VADEventType.START_OF_SPEECH)
    tape.flush()
    tape.segments.happened(late_end)
    tape.segments.happened(late_start)

    assert [type(report) for report in tape.reported] == [VadStarted, VadEnded]

    tape.infer(windows=1)
    tape.start()
    assert len(tape.reported) == 3


def test_an_epoch_too_short_for_an_inference_is_skipped() -> None:
    tape = Tape()
    tape.infer(windows=2)
    tape.flush()
    tape.push(100)
    tape.flush()
    tape.infer(windows=2)
    tape.start(speech=0.064)

    [started] = tape.reported
    assert isinstance(started, VadStarted)
    assert started.onset_ms == round((2 * WINDOW + 100) / 16)


def test_closing_in_mid_speech_ends_it_once() -> None:
    tape = Tape()
    tape.infer(windows=20)
    tape.start()
    tape.infer(0.1, windows=3)
    tape.segments.closed()
    tape.segments.closed()

    ended = tape.reported[1:]
    assert [(end.reason, end.end_ms) for end in ended if isinstance(end, VadEnded)] == [("closed", 672)]


async def test_progress_is_told_in_samples_of_the_stream() -> None:
    tape = Tape(base=5 * SECOND)
    tape.lead.fed(5 * SECOND + 4 * WINDOW)
    tape.infer(windows=4)

    await tape.lead.within(0)


def test_a_guarded_callback_never_raises_and_counts() -> None:
    guard = ErrorGuard()

    def fails(value: int) -> None:
        raise TypeError(value)

    guard(fails)(1)

    assert guard.failures == 1
