"""When it was said, as the log has it: through a real LiveKit server, with the microphone's clock beside it."""

import asyncio
import statistics
from pathlib import Path
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.plugins import silero

from relay import SpeechRelay
from relay.capture.detectors import Providers
from relay.capture.livekit.room import RoomMembership
from relay.clock import SystemClock, epoch_ms
from relay.config.capture import Capture, Provider
from relay.config.models import Speech
from relay.events.detectors import VadSpeechStarted
from relay.events.envelope import StreamEvent
from relay.outbox.outbox import Outbox
from relay.recording.track import Listeners
from tests.support.audio.spoken import Manner, Speaker, script, write
from tests.support.audio.story import told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.embedding import Job, configured, ever_tried
from tests.support.livekit.livekit_server import livekit_server

pytestmark = pytest.mark.live

NEAR_MS = 150
"""The half of all onsets, on a machine that may be busy; bench/onsets.py measures how near they are on an idle one."""


@pytest.mark.timeout(120)
async def test_onsets_inside_an_agent_are_where_they_were_said(tmp_path: Path) -> None:
    lines = script(6)
    wav = await write(tmp_path / "said.wav", 48_000, lines)
    async with receiving() as receiver, livekit_server() as server:
        room, job = rtc.Room(), Job()
        await room.connect(server.url, server.token("agent", "times", kind="agent"))
        job.room = cast("Any", room)
        relay = SpeechRelay(configured(tmp_path, receiver.url))
        session: AgentSession[None] = AgentSession(vad=relay.vad(silero.VAD.load()), stt=ever_tried())
        relay.attach(session, job.context)
        await session.start(Agent(instructions="Listen."), room=room, record=False)
        speaker = Speaker(server, "times", wav, Manner("alice", 48_000))
        await speaker.join()
        await speaker.speak()
        await session.aclose()
        await room.disconnect()
        await job.shut_down()
        await receiver.wait_for(lambda: any(stream.end for stream in told(receiver.answered, SECRET)))
        (heard,) = told(receiver.answered, SECRET)

    onsets = [
        epoch_ms(event.timing.occurred_at)
        for event in heard.events
        if isinstance(event, VadSpeechStarted) and event.timing.occurred_at is not None
    ]
    errors = [min(abs(at - speaker.wall(place.start_ms)) for at in onsets) for place, _ in lines]
    assert statistics.median(errors) < NEAR_MS, "onsets must be where the words were said"


@pytest.mark.timeout(120)
async def test_onsets_are_where_they_were_said_whatever_the_microphone_does(tmp_path: Path) -> None:
    lines = script(6)
    said = [place for place, _ in lines]
    wavs = {rate: await write(tmp_path / f"{rate}.wav", rate, lines) for rate in (16_000, 48_000)}
    pause = (said[2].end_ms + said[3].start_ms) // 20 * 10
    manners = [
        Manner("narrow", 16_000),
        Manner("paused", 48_000, gap_ms=pause, gap_for_ms=2000),
        Manner("fast", 48_000, pace=1.001),
    ]
    clock, capture, onsets = SystemClock(), Capture(), dict[str, list[int]]()

    def see(event: StreamEvent) -> None:
        if isinstance(event, VadSpeechStarted) and event.timing.occurred_at is not None:
            onsets.setdefault(event.participant.identity, []).append(epoch_ms(event.timing.occurred_at))

    providers = Providers(Provider(provider="silero"), Provider(provider="none"))
    outbox = await Outbox.open(f"sqlite:///{tmp_path}/relay.db", name="times", clock=clock)
    detectors = providers.detectors()
    listeners = Listeners(outbox, detectors, clock, capture=capture, speech=Speech(), event_listeners=[see])
    async with livekit_server() as server:
        room = rtc.Room()
        membership = RoomMembership(room, listeners, capture.participants.kinds, clock)
        await room.connect(
            server.url, server.token("relay", "times", hidden=True, kind="agent"), rtc.RoomOptions(False)
        )
        membership.start()
        people = [Speaker(server, "times", wavs[manner.rate], manner) for manner in manners]
        await asyncio.gather(*(speaker.join() for speaker in people))
        await asyncio.gather(*(speaker.speak() for speaker in people))
        await membership.close("shutdown")
        await room.disconnect()
    await outbox.aclose()
    await providers.aclose()

    for speaker in people:
        heard = onsets[speaker.manner.name]
        true = [speaker.wall(place.start_ms) for place in said]
        errors = [min(abs(at - wall) for at in heard) for wall in true]
        assert statistics.median(errors) < NEAR_MS, speaker.manner.name
        after_the_pause = errors[3:]
        assert statistics.median(after_the_pause) < NEAR_MS, speaker.manner.name
