"""Somebody leaves in mid-speech: the last words are waited for, and not for ever."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import AgentSession, LanguageCode, stt
from livekit.agents.utils.aio import ChanClosed

from relay.capture.audio.wav import WavSource
from relay.capture.detectors import Detectors
from relay.capture.session.listening_session import ListeningSession
from relay.capture.session.stream_session import StreamSession
from relay.capture.vad.provider import MIN_SILENCE_S
from relay.clock import SystemClock
from relay.config.capture import Provider
from relay.speech.observations import Ended, Transcribed, TurnEnded
from tests.support.audio.speech import Heard, a_track, listening
from tests.support.providers.streaming_stt import StreamingStt
from tests.support.providers.stt_known import PROVIDERS, Known
from tests.support.providers.stt_plays import Played, opening, play
from tests.support.providers.stt_script import AT_THE_END, Final, Hang, Onset, Partial, Script

TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))
WAITED_FOR_S = 2.0
"""How long an answer is waited for when a stream ends."""
FIRST, LAST = TRIED[:1], (("tried.", 0.70, 1.95),)

remote = pytest.mark.parametrize("name", [name for name, known in PROVIDERS.items() if known.stand_in is not None])
voices = pytest.mark.parametrize("vad", ["silero", "none"])


async def leaves(known: Known, folder: Path, script: Script, *, vad: str = "silero") -> Played:
    """After two seconds, most of which are speech."""
    if not known.installed:
        pytest.skip(f"speech-relay[{known.provider}] is not installed")
    async with known.server(script) as server:
        return await play(opening(folder / "opening.wav"), known.config(server), server, None, vad=vad, realtime=False)


@remote
@voices
async def test_a_final_that_answers_the_farewell_is_heard_once(name: str, vad: str, tmp_path: Path) -> None:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(FIRST)), (AT_THE_END, Final(TRIED))]

    played = await leaves(PROVIDERS[name], tmp_path, script, vad=vad)

    assert [said.text for said in played.finals] == ["Ever tried."]
    assert [said.text for said in played.heard.of(Transcribed) if said.final] == ["Ever tried."]
    assert [turn.text for turn in played.heard.of(TurnEnded)] == ["Ever tried."]
    assert played.paired
    assert not played.faults
    assert played.connections == 1
    assert isinstance(played.heard[-1], Ended)


@remote
async def test_the_rest_of_what_was_said_answers_the_farewell(name: str, tmp_path: Path) -> None:
    script: Script = [(0.6, Onset(0.4)), (0.8, Final(FIRST)), (1.0, Onset(0.7)), (AT_THE_END, Final(LAST))]

    played = await leaves(PROVIDERS[name], tmp_path, script)

    assert [said.text for said in played.finals] == ["Ever", "tried."]
    assert played.paired


@remote
@voices
async def test_closing_is_quick_where_all_was_answered(name: str, vad: str, tmp_path: Path) -> None:
    said = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.95))

    played = await leaves(PROVIDERS[name], tmp_path, [(0.6, Onset(0.4)), (2.0, Final(said))], vad=vad)

    assert [said.text for said in played.finals] == ["Ever tried."]
    assert played.closing_s < WAITED_FOR_S, "nothing is waited for"


@voices
async def test_a_session_that_is_replaced_in_mid_word_repeats_nothing(vad: str, tmp_path: Path) -> None:
    known, heard = PROVIDERS["deepgram"], Heard()
    begins: Script = [(0.6, Onset(0.4)), (1.0, Partial(FIRST))]
    async with (
        known.server(begins, [*begins, (1.6, Final(TRIED))]) as server,
        listening(
            WavSource(opening(tmp_path / "opening.wav", 1), realtime=True),
            heard,
            vad=Provider(provider=vad),
            stt=known.config(server),
            realtime=True,
        ) as session,
    ):
        await heard.until(lambda _: bool(heard.of(Transcribed)))
        session._listening_session.renew("stalled", "it takes no audio any more")
        await session.ended()
        await session.close("unpublished")
    assert len(server.connections) == 2, "the audio without a final is heard again"
    assert [said.text for said in heard.of(Transcribed) if said.final] == ["Ever tried."]


@remote
async def test_a_provider_that_hangs_is_not_waited_for_for_ever(name: str, tmp_path: Path) -> None:
    script: Script = [(0.6, Onset(0.4)), (1.0, Partial(FIRST)), (1.2, Hang())]

    played = await leaves(PROVIDERS[name], tmp_path, script, vad="none")

    assert WAITED_FOR_S < played.closing_s < 20 * WAITED_FOR_S
    assert played.paired
    assert isinstance(played.heard[-1], Ended)


class _Slow(stt.RecognizeStream):
    """Its final does not come in time."""

    async def _run(self) -> None:
        await anext(self._input_ch)
        self._event_ch.send_nowait(_said(stt.SpeechEventType.INTERIM_TRANSCRIPT, "Ever"))
        await asyncio.Event().wait()


def _said(kind: stt.SpeechEventType, text: str) -> stt.SpeechEvent:
    return stt.SpeechEvent(kind, alternatives=[stt.SpeechData(LanguageCode("en"), text, start_time=0.5, end_time=1.1)])


@pytest.mark.parametrize("turns", range(8))
async def test_what_comes_while_the_session_closes_is_not_said_beside_its_interim(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.capture.session.stream_session.SETTLE_WITHIN_S", 0.1)
    put_away, heard, speaking = ListeningSession._put_away, Heard(), list[asyncio.Task[None]]()
    provider = StreamingStt(_Slow)
    streams, opened = provider.stream, list[stt.RecognizeStream]()

    def stream(**options: Any) -> stt.RecognizeStream:
        opened.append(streams(**options))
        return opened[-1]

    async def speak() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        with suppress(ChanClosed):
            opened[0]._event_ch.send_nowait(_said(stt.SpeechEventType.INTERIM_TRANSCRIPT, "Ever tried"))
            opened[0]._event_ch.send_nowait(_said(stt.SpeechEventType.FINAL_TRANSCRIPT, "Ever tried."))

    async def put_away_meanwhile(listening: ListeningSession, session: AgentSession[None]) -> None:
        speaking.append(asyncio.create_task(speak()))
        await put_away(listening, session)

    monkeypatch.setattr(provider, "stream", stream)
    monkeypatch.setattr(ListeningSession, "_put_away", put_away_meanwhile)
    detectors = Detectors(
        vad=None, stt="slow", shared_vad=None, new_stt=lambda: provider, tail_s=MIN_SILENCE_S, paced=()
    )
    audio = WavSource(opening(tmp_path / "opening.wav"), realtime=False)
    session = StreamSession(a_track(audio), detectors, heard, SystemClock(), realtime=False)
    await session.start()
    await session.ended()
    await session.close("unpublished")
    await asyncio.wait(speaking)
    assert [said.text for said in heard.of(Transcribed) if said.final] == ["Ever"]
