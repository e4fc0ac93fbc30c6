"""(h) Error of event times against the real speech, through a real LiveKit server; detection → commit.

Participants play a file with known onsets and ends into a room. The reference is the same detector on the file itself,
through the relay's own capture, fed at full speed: positions in the file, without clock or network. The wall time of
every position is known from the microphone's clock. The relay listens in a separate process, as a job does, and the
times are those of the events in its log.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from datetime import datetime
from pathlib import Path

from livekit import rtc

from bench.opus import through_opus
from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Providers
from relay.capture.livekit.room import RoomMembership
from relay.clock import SystemClock, epoch_ms
from relay.config.capture import Capture, Provider
from relay.config.models import Speech
from relay.events.envelope import StreamEvent
from relay.outbox.operator.access import open_log
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.outbox import Outbox
from relay.outbox.records import NewStream
from relay.recording.recorder import EventLog
from relay.recording.track import Listeners
from relay.speech.observations import VadEnded, VadStarted
from tests.support.audio.speech import Heard, listening
from tests.support.audio.spoken import Manner, Speaker, Spoken, script, write
from tests.support.livekit.livekit_server import LiveKitServer, binary, livekit_server

UTTERANCES, ROOM = 22, "times"

NEAR_MS = 600
"""An event further than this from an onset or an end belongs to another one."""

STARTED, ENDED = "vad.speech_started", "vad.speech_ended"

LEAVES_WITHIN_S = 15

_KBITS = (24, 32)
"""The approximate bit rate that WebRTC uses for speech."""
_PLACES_MS = (0, 5, 11, 16, 21, 27)
"""Where a file begins within the detector's windows of 32 ms: in a call this is arbitrary."""

APART_S = 0.37
"""People do not speak in step."""


FADES_MS = {"comes and goes as a voice does": 120, "begins and ends within a sample": 0}
"""How speech begins and ends. The sample's exact ends are known only at cuts, which a microphone does not produce: the
codec extends such an end, and the detector takes the extension for speech."""


async def measure() -> None:
    print(f"\n(h) times: {UTTERANCES} utterances each, said into a room; errors in ms, load {os.getloadavg()[0]:.1f}")
    if binary() is None:
        print("    not measured, there is no livekit-server (make bench builds it where Go is)")
        return
    for how, fade_ms in FADES_MS.items():
        print(f"  speech that {how}:")
        await _measure(fade_ms)


async def _measure(fade_ms: int) -> None:
    lines = script(UTTERANCES)
    said = [place for place, _ in lines]
    with tempfile.TemporaryDirectory() as folder:
        wavs = {
            rate: await write(Path(folder, f"{rate}.wav"), rate, lines, fade_ms=fade_ms) for rate in (16_000, 48_000)
        }
        detected = {rate: await _detected(wav) for rate, wav in wavs.items()}
        through_codec = await _through_codec(wavs[48_000], detected[48_000])
        url = f"sqlite:///{folder}/relay.db"
        async with livekit_server() as server:
            # All at once: the runs share a minute.
            people = [Speaker(server, ROOM, wavs[manner.rate], manner) for manner in _manners(said)]
            appends = await _recorded(server, url, people)
        for speaker in people:
            times = await _times(url, speaker.manner.name)
            print(f"    {speaker.manner.name}: microphone at most {speaker.latest_ms:.0f} ms late")
            _print("the detector on the file", detected[speaker.manner.rate], times, speaker)
            if not fade_ms:
                _print("what was said", said, times, speaker)
    print("    the file through Opus, no network and no clock, at six places in the detector's windows:")
    for kbits, (onsets, ends) in through_codec.items():
        print(f"        {kbits} kbit/s, beside the detector on the file: onsets: {_spread(onsets)}", end="")
        print(f"    ends: {_spread(ends)}")
    cuts = statistics.quantiles(appends, n=100)
    print(
        f"    detection → commit of {len(appends)}: p50 {cuts[49]:.2f}  p99 {cuts[98]:.2f}  worst {max(appends):.2f} ms"
    )
    print(f"    load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def _manners(said: Sequence[Spoken]) -> list[Manner]:
    middle = len(said) // 2
    before, after = ((said[at].end_ms + said[at + 1].start_ms) // 20 * 10 for at in (middle, middle + 2))
    return [
        Manner("48 kHz", 48_000),
        Manner("16 kHz", 16_000),
        Manner("muted for two utterances", 48_000, muted=Spoken(before, after)),
        Manner("two seconds without a frame", 48_000, gap_ms=before, gap_for_ms=2000),
        Manner("clock 0.1 % fast", 48_000, pace=1.001),
        Manner("up to 40 ms of jitter", 48_000, shaky_ms=40),
    ]


async def _detected(wav: Path) -> list[Spoken]:
    heard = Heard()
    source = WavSource(wav, realtime=False)
    async with listening(source, heard) as session:
        await session.ended()
        await session.close("unpublished")
    ends = [ended.end_ms for ended in heard.of(VadEnded) if ended.end_ms is not None]
    return [Spoken(started.onset_ms, end) for started, end in zip(heard.of(VadStarted), ends, strict=True)]


async def _through_codec(wav: Path, detected: Sequence[Spoken]) -> dict[int, tuple[list[float], list[float]]]:
    """The onset and end errors caused by the codec and the position in a window alone, by bit rate."""
    errors: dict[int, tuple[list[float], list[float]]] = {kbits: ([], []) for kbits in _KBITS}
    for kbits, (onsets, ends) in errors.items():
        for later_ms in _PLACES_MS:
            encoded = through_opus(wav, wav.with_name(f"{kbits}-{later_ms}.wav"), kbits=kbits, later_ms=later_ms)
            heard = [Spoken(one.start_ms - later_ms, one.end_ms - later_ms) for one in await _detected(encoded)]
            onsets += _errors([one.start_ms for one in detected], [one.start_ms for one in heard])
            ends += _errors([one.end_ms for one in detected], [one.end_ms for one in heard])
    return errors


async def _recorded(server: LiveKitServer, url: str, people: Sequence[Speaker]) -> list[float]:
    """Run the speakers with a relay on this log; returns the milliseconds from each detection to its commit."""
    relay = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "bench.onsets",
            server.url,
            server.token("relay", ROOM, hidden=True, kind="agent"),
            url,
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert relay.stdout is not None
    try:
        await asyncio.gather(relay.stdout.readline(), *(speaker.join() for speaker in people))
        await asyncio.gather(*(speaker.speak(after_s=n * APART_S) for n, speaker in enumerate(people)))
        output, _ = await asyncio.wait_for(relay.communicate(b"\n"), LEAVES_WITHIN_S)
    finally:
        if relay.returncode is None:
            relay.kill()
            await relay.wait()
    took: list[float] = json.loads(output)
    return took


async def _times(url: str, participant: str) -> dict[str, list[int]]:
    """When each event happened according to the log, by type."""
    which = EventFilter(participant=participant, types=(STARTED, ENDED))
    async with open_log(url, SystemClock()) as log:
        events = [json.loads(view.body) for view in await log.inspection.events(which, limit=1000)]
    times: dict[str, list[int]] = {STARTED: [], ENDED: []}
    for event in events:
        times[event["type"]].append(epoch_ms(datetime.fromisoformat(event["timing"]["occurred_at"])))
    return times


def _print(beside: str, truth: Sequence[Spoken], times: dict[str, list[int]], speaker: Speaker) -> None:
    audible = [stretch for stretch in truth if not speaker.muted(stretch)]
    onsets = _errors([speaker.wall(stretch.start_ms) for stretch in audible], times[STARTED])
    ends = _errors([speaker.wall(stretch.end_ms) for stretch in audible], times[ENDED])
    print(f"        beside {beside:26}onsets: {_summary(onsets, audible)}    ends: {_summary(ends, audible)}")


def _errors(true_walls: Sequence[float], happened: Sequence[int]) -> list[float]:
    """For each detected item, how much later than in reality it is reported."""
    nearest = (min((at - wall for at in happened), key=abs, default=float("inf")) for wall in true_walls)
    return [error for error in nearest if abs(error) <= NEAR_MS]


def _summary(errors: Sequence[float], truth: Sequence[Spoken]) -> str:
    heard = f"{len(errors)} of {len(truth)}"
    return heard if len(errors) < 2 else f"{heard}, {_spread(errors)}"


def _spread(errors: Sequence[float]) -> str:
    sizes = [abs(error) for error in errors]
    p95 = statistics.quantiles(sizes, n=20, method="inclusive")[18]
    return f"median {statistics.median(errors):+4.0f}, p95 {p95:4.0f}, worst {max(sizes):4.0f}"


class _TimedLog:
    """A stream's log that records how long each append of a detection takes, from the detector's callback on."""

    def __init__(self, log: EventLog, took: list[float]) -> None:
        self._log, self._took = log, took

    def append(self, events: Sequence[StreamEvent]) -> Awaitable[None]:
        began = time.perf_counter()
        appended = asyncio.ensure_future(self._log.append(events))
        if any(event.type in (STARTED, ENDED) for event in events):
            appended.add_done_callback(lambda _: self._took.append((time.perf_counter() - began) * 1000))
        return appended


class _TimedOutbox:
    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.took: list[float] = []

    async def open_stream(self, stream: NewStream) -> _TimedLog:
        return _TimedLog(await self._outbox.open_stream(stream), self.took)

    async def give_up(self, stream_id: str) -> None:
        await self._outbox.give_up(stream_id)


async def _relay(server_url: str, token: str, url: str) -> None:
    """The listening process; it ends at a line on its standard input."""
    clock, capture = SystemClock(), Capture()
    providers = Providers(Provider(provider="silero"), Provider(provider="none"))
    outbox = await Outbox.open(url, name="bench", clock=clock)
    timed = _TimedOutbox(outbox)
    listeners = Listeners(timed, providers.detectors(), clock, capture=capture, speech=Speech())
    room = rtc.Room()
    membership = RoomMembership(room, listeners, capture.participants.kinds, clock)
    await room.connect(server_url, token, rtc.RoomOptions(auto_subscribe=False))
    membership.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await membership.close("shutdown")
    await room.disconnect()
    await outbox.aclose()
    await providers.aclose()
    print(json.dumps(timed.took))


if __name__ == "__main__":
    asyncio.run(_relay(*sys.argv[1:]))
