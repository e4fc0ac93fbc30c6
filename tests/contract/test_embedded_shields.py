"""Each function of the relay that LiveKit calls may raise whatever it likes: the conversation goes on."""

import ast
import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest
from livekit.agents import APIConnectionError, LanguageCode, UserStateChangedEvent, inference, stt, vad

from relay import SpeechRelay
from relay.capture.health.error_guard import ErrorGuard
from relay.capture.realtime.speech import RealtimeSpeech
from relay.capture.session.tap import SessionTap
from relay.capture.stt.transcripts import Transcripts
from relay.embedded import realtime as embedded_realtime
from relay.embedded import recording as embedded_recording
from relay.embedded import stt as embedded_stt
from relay.embedded import vad as embedded_vad
from relay.embedded.follower import Follower
from relay.recording.recorder import StreamRecorder
from tests.support.livekit.embedding import Conversation, Job, Script, configured, ever_tried
from tests.support.livekit.failing_parts import Brittle, Failing, ending
from tests.support.providers.openai_realtime import OpenAIRealtime
from tests.support.providers.stt_script import Drop, Line, utterance

pytestmark = pytest.mark.speech
openai = pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")

AWAY = APIConnectionError("a transcript")
TRIED = (("Ever", 0.40, 0.62), ("tried.", 0.70, 1.15))

SHIELDED: dict[tuple[type, str], str] = {
    (SpeechRelay, "_attach"): "pipeline",
    (SpeechRelay, "_leave"): "pipeline",
    (Follower, "_look"): "pipeline",
    (Follower, "_looked"): "pipeline",
    (Follower, "_timed_by"): "pipeline",
    (Follower, "_track_arrived"): "pipeline",
    (Follower, "_track_left"): "pipeline",
    (Follower, "_failed"): "outage",
    (Follower, "_session_closed"): "pipeline",
    (SessionTap, "_transcribed"): "pipeline",
    (SessionTap, "_turn"): "pipeline",
    (SessionTap, "_state_changed"): "pipeline",
    (SessionTap, "_item_added"): "pipeline",
    (embedded_vad.VadObserver, "_follow"): "pipeline",
    (embedded_vad._VadStreamTap, "_pushed"): "pipeline",
    (embedded_vad._VadStreamTap, "_happened"): "pipeline",
    (embedded_vad._VadStreamTap, "_closed"): "pipeline",
    (embedded_vad._VadStreamTap, "_flushed"): "early",
    (embedded_vad._VadStreamTap, "_failed"): "outage",
    (embedded_stt._ProviderTap, "_follow"): "pipeline",
    (embedded_stt._SttStreamTap, "_pushed"): "pipeline",
    (embedded_stt._SttStreamTap, "_heard"): "pipeline",
    (Transcripts, "end"): "pipeline",
    (embedded_stt._ProviderTap, "_recognized"): "pieces",
    (embedded_realtime.RealtimeObserver, "_follow"): "realtime",
    (embedded_realtime._SessionTap, "_pushed"): "realtime",
    (embedded_realtime._SessionTap, "_started"): "realtime",
    (embedded_realtime._SessionTap, "_stopped"): "realtime",
    (embedded_realtime._SessionTap, "_reconnected"): "realtime",
    (embedded_realtime._SessionTap, "_closed"): "realtime",
    (RealtimeSpeech, "transcribed"): "realtime",
    (RealtimeSpeech, "server_message"): "realtime",
    (StreamRecorder, "observe"): "pipeline",
    (embedded_recording._RecordedTrack, "observe"): "pipeline",
}
"""Who is shielded, and a conversation in which they are called.

Some stand behind a second shield as well (``_looked``, ``_timed_by``, ``_turn``), or are called on the relay's own
thread (``observe``)."""


Site = tuple[str, int]
"""A file and a line of it."""


class Trouble(TypeError):
    """Of the one kind that LiveKit's event emitter lets through."""


class Whole(Script):
    """Speech recognition that takes whole pieces, and is done with one when the session has taken note of its end:
    which of the two comes first is else a matter of a millisecond."""

    def __init__(self) -> None:
        super().__init__()
        self._capabilities = stt.STTCapabilities(streaming=False, interim_results=False)
        self._quiet = asyncio.Event()

    def user_changed(self, changed: UserStateChangedEvent) -> None:
        if changed.old_state == "speaking":
            self._quiet.set()

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        await self._quiet.wait()
        said = stt.SpeechData(language=LanguageCode("en"), text="Ever tried.", confidence=0.9)
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=[said])


def early() -> Script:
    """Speech recognition for which speech is over in the middle of it."""
    onset, interim, (_, final), (_, end) = ever_tried().lines
    return Script(onset, interim, (1.0, final), (1.1, end))


class Nobody:
    """In the place of the relay."""

    @staticmethod
    def same(thing: Any) -> Any:
        return thing

    vad = stt = realtime = same


class Complaints(logging.Handler):
    """What LiveKit and the event loop call an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        late = isinstance(error, RuntimeError) and str(error).endswith("input ended")
        # a detector that ends its stream may be handed one more frame, with or without the relay
        if record.name.startswith(("livekit", "asyncio")) and not late:
            self.said.append(record.getMessage())

    def __enter__(self) -> list[str]:
        logging.getLogger().addHandler(self)
        return self.said

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


async def talk(kind: str, relay: Any, attach: Callable[[Conversation, Job], None]) -> tuple[list[str], Job]:
    """A conversation and what came of it for the agent, errors too."""
    job, whole = Job(), Whole()
    lost = [*utterance(*TRIED), Line(1.9, Drop())]
    async with OpenAIRealtime([lost, ()]) as server, aiohttp.ClientSession() as http:
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "pipeline": lambda: {"vad": relay.vad(inference.VAD()), "stt": relay.stt(ever_tried())},
            "pieces": lambda: {"vad": relay.vad(inference.VAD()), "stt": relay.stt(whole)},
            "early": lambda: {"vad": relay.vad(inference.VAD()), "stt": relay.stt(early())},
            "outage": lambda: {
                "vad": relay.vad(Brittle(ending, vad.VADEventType.END_OF_SPEECH)),
                "stt": relay.stt(Failing(AWAY)),
            },
            "realtime": lambda: {
                "llm": relay.realtime(openai.realtime.RealtimeModel(http_session=http, **server.options)),
                "vad": None,
            },
        }
        conversation = Conversation(job, **parts[kind]())
        if kind == "early":
            conversation.session.update_options(turn_detection="stt")
        attach(conversation, job)

        def happens_in_the_room(_: UserStateChangedEvent) -> None:
            for event in ("track_muted", "track_subscribed", "track_unsubscribed"):
                job.room.emit(event, object())

        conversation.session.on("user_state_changed", happens_in_the_room)
        conversation.session.on("user_state_changed", whole.user_changed)
        with Complaints() as complaints:
            happened = await conversation()
    return [*happened, *(f"error {type(event.error).__name__}" for event in conversation.errors), *complaints], job


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, list[str]]:
    """What each conversation comes to by itself."""

    async def alone(kind: str) -> list[str]:
        return (await talk(kind, Nobody, lambda *_: None))[0]

    return {kind: asyncio.run(alone(kind)) for kind in sorted(set(SHIELDED.values()))}


async def overheard(kind: str, folder: Path) -> list[str]:
    relay = SpeechRelay(configured(folder))
    happened, job = await talk(kind, relay, lambda having, job: relay.attach(having.session, job.context))
    await job.shut_down()
    return happened


@pytest.mark.parametrize(("where", "what"), SHIELDED, ids=lambda part: getattr(part, "__name__", part))
async def test_what_is_shielded_may_raise(
    where: type, what: str, tmp_path: Path, undisturbed: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = threading.Event()

    def raises(*_: Any, **__: Any) -> NoReturn:
        raised.set()
        raise Trouble("a transcript")

    monkeypatch.setattr(where, what, raises)
    kind = SHIELDED[where, what]
    happened = await overheard(kind, tmp_path)
    assert raised.is_set(), "it was never called"
    assert apart(happened) == apart(undisturbed[kind])
    assert "user: Ever tried." in happened


def apart(happened: list[str]) -> tuple[list[str], list[str]]:
    """What was recognized, and the rest: on a busy machine voice activity may be ahead of recognition, or behind it."""
    recognized = [each for each in happened if each.startswith("heard ")]
    return recognized, [each for each in happened if each not in recognized]


async def test_every_shielded_callback_is_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shield, sites, callbacks = ErrorGuard.__call__, set[Site](), set[tuple[type, str]]()

    def noted(self: ErrorGuard, callback: Callable[..., object]) -> Callable[..., None]:
        caller = sys._getframe(1)
        sites.add((Path(caller.f_code.co_filename).name, caller.f_lineno))
        where = type(callback.__self__)  # type: ignore[attr-defined]  # they are methods, all of them
        callbacks.add((where, callback.__name__))
        return shield(self, callback)

    monkeypatch.setattr(ErrorGuard, "__call__", noted)
    for kind in ("pipeline", "realtime"):
        await overheard(kind, tmp_path)
    assert sites >= set(written()), "a guard that no conversation comes by"
    assert callbacks == set(SHIELDED)


def written() -> Iterator[Site]:
    """Where relay/embedded says ``guard(…)``."""
    folder = Path(embedded_vad.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("guard", "self._guard"):
                yield path.name, node.lineno
