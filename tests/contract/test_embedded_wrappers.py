"""Whatever an agent's author hands to a wrapper, it comes back, and nothing is raised."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import AgentSession, inference
from livekit.agents.types import NOT_GIVEN

from relay import SpeechRelay
from relay.embedded.speech_relay import name_of, provider_of
from tests.support.audio.story import told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.embedding import Conversation, Job, Script, configured, ever_tried


@pytest.fixture
def relay(tmp_path: Path) -> SpeechRelay:
    return SpeechRelay(configured(tmp_path))


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project's key."""
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_KEY", "a-key")
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_SECRET", "s" * 40)


class Final(Script):
    """No class may follow it."""

    def __init_subclass__(cls) -> None:
        raise RuntimeError("a transcript")


class Own:
    """Somebody's own, which is nothing of LiveKit's."""


class Shy(Script):
    """Says nothing of itself, and raises until it is ``loaded``."""

    loaded = False

    @property
    def provider(self) -> Any:
        return None

    @property
    def model(self) -> str:
        if not self.loaded:
            raise RuntimeError("a transcript")
        return "unknown"


REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "no detector": ("vad", lambda: None),
    "none given": ("stt", lambda: NOT_GIVEN),
    "one not made yet": ("vad", lambda: inference.VAD),
    "one of another kind": ("vad", ever_tried),
    "something else": ("stt", Own),
    "a class that refuses": ("stt", Final),
    "no model": ("realtime", lambda: None),
    "a string that names no detector": ("vad", lambda: "silero"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_overheard_is_given_back_and_said_in_one_line(
    case: str, relay: SpeechRelay, caplog: pytest.LogCaptureFixture
) -> None:
    wrapper, make = REFUSED[case]
    thing = make()
    with caplog.at_level(logging.DEBUG):
        assert getattr(relay, wrapper)(thing) is thing
    (said,) = caplog.messages
    assert said.startswith(f"speech-relay cannot overhear a {type(thing).__name__} (")
    assert "a transcript" not in caplog.text


@pytest.mark.usefixtures("gateway")
async def test_a_string_is_what_it_is_to_a_session(relay: SpeechRelay) -> None:
    session: AgentSession[None] = AgentSession(stt=relay.stt("deepgram/nova-3:de"), vad=None)
    assert isinstance(session.stt, inference.STT)
    assert type(session.stt) is not inference.STT, "it is overheard"
    alone = AgentSession[None](stt="deepgram/nova-3:de", vad=None).stt
    assert isinstance(alone, inference.STT)
    assert session.stt._opts == alone._opts
    assert name_of(session.stt) == "livekit/deepgram/nova-3"

    model = relay.realtime("openai/gpt-realtime")
    assert isinstance(model, inference.RealtimeModel)
    assert type(model) is not inference.RealtimeModel


@pytest.mark.usefixtures("gateway")
def test_a_string_that_names_no_realtime_model_stays_what_it_is(relay: SpeechRelay) -> None:
    assert relay.realtime("openai/gpt-4.1-mini") == "openai/gpt-4.1-mini"


def test_a_string_without_a_key_is_the_sessions_to_refuse(
    relay: SpeechRelay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "LIVEKIT_INFERENCE_API_KEY", "LIVEKIT_INFERENCE_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert relay.stt("deepgram/nova-3") == "deepgram/nova-3"
    assert caplog.messages == ["speech-relay cannot overhear a str (ValueError): it is used as it is"]


@pytest.mark.speech
async def test_one_that_says_nothing_of_itself_is_overheard_all_the_same(tmp_path: Path) -> None:
    shy = Shy(*ever_tried().lines)
    assert name_of(shy) == provider_of(shy) == "tests"
    async with receiving() as receiver:
        relay, job = SpeechRelay(configured(tmp_path, receiver.url)), Job()
        conversation = Conversation(job, vad=relay.vad(inference.VAD()), stt=relay.stt(shy))
        shy.loaded = True
        relay.attach(conversation.session, job.context)
        await conversation()
        await job.shut_down()
        (heard,) = told(receiver.answered, SECRET)
    assert heard.text == "Ever tried."
    assert {event.source.stt for event in heard.events} == {"tests"}
