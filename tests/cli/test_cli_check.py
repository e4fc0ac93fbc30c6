"""``check``: says what will be done and finds what is not there."""

import base64
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web

from relay.capture.worker.worker import permissions
from relay.cli import probes
from relay.cli.output.plan import plan, sentences
from relay.cli.probes import probe, probe_endpoint, probe_livekit, probe_options, probe_outbox
from relay.cli.provider_probes import probe_realtime, probe_stt, probe_vad
from relay.cli.secret_probes import probe_secrets
from relay.config.capture import Capture, Provider, Realtime, Vad
from relay.config.endpoint import Endpoint
from relay.config.models import Config, LiveKit, OutboxConfig
from relay.dispatch.signing import new_secret
from relay.errors import OutboxError
from relay.outbox.log.processes import Role
from relay.outbox.opening import open_database
from tests.support.cli import SECRET, environment, speech_relay


def endpoint(url: str) -> Endpoint:
    return Endpoint(name="crm", url=url, secret=SECRET)


@pytest.fixture
async def deepgram() -> AsyncIterator[str]:
    """The one page of Deepgram's that check asks; knows the keys ``good`` and ``limited``."""
    statuses = {"Token good": 200, "Token limited": 403, "Token flood": 429}

    async def projects(request: web.Request) -> web.Response:
        return web.Response(status=statuses.get(request.headers["Authorization"], 401))

    app = web.Application()
    app.router.add_get("/v1/projects", projects)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"ws://127.0.0.1:{runner.addresses[0][1]}/v1/listen"
    await runner.cleanup()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


async def test_an_endpoint_that_is_there(deepgram: str) -> None:
    finding = await probe_endpoint(endpoint(deepgram.replace("ws://", "http://")))
    assert (finding.status, finding.subject) == ("ok", "endpoint crm")
    assert "(127.0.0.1) takes connections" in finding.detail


async def test_an_endpoint_that_is_not_there(free_port: int) -> None:
    finding = await probe_endpoint(endpoint(f"http://127.0.0.1:{free_port}/"))
    assert finding.status == "failed"
    assert finding.detail == (
        f"nothing listens on 127.0.0.1:{free_port}; `speech-relay listen` is a receiver for this machine"
    )


async def test_an_endpoint_whose_name_is_none() -> None:
    finding = await probe_endpoint(endpoint("http://nothing.invalid/"))
    assert (finding.status, finding.detail) == (
        "failed",
        "nothing.invalid does not resolve; correct the url or the DNS",
    )


async def test_an_endpoint_that_does_not_speak_tls(deepgram: str) -> None:
    finding = await probe_endpoint(endpoint(deepgram.replace("ws://", "https://")))
    assert finding.status == "failed"
    assert finding.detail.endswith("does not speak TLS; is the url rather http://?")


@pytest.mark.parametrize(
    ("key", "status"), [("good", "ok"), ("limited", "ok"), ("wrong", "failed"), ("flood", "not tried"), ("", "failed")]
)
async def test_the_key_of_deepgram(deepgram: str, key: str, status: str) -> None:
    stt = Provider(provider="deepgram", options={"base_url": deepgram})
    finding = await probe_stt(stt, {"DEEPGRAM_API_KEY": key}, offline=False)
    assert finding.status == status
    assert not key or f" {key}" not in finding.detail


async def test_a_key_among_the_options_comes_first(deepgram: str) -> None:
    stt = Provider(provider="deepgram", options={"base_url": deepgram, "api_key": "good"})
    assert (await probe_stt(stt, {"DEEPGRAM_API_KEY": "wrong"}, offline=False)).status == "ok"


async def test_deepgram_out_of_reach(free_port: int) -> None:
    stt = Provider(provider="deepgram", options={"base_url": f"http://127.0.0.1:{free_port}/v1/listen"})
    finding = await probe_stt(stt, {"DEEPGRAM_API_KEY": "good"}, offline=False)
    assert finding.status == "failed"
    assert "cannot be reached" in finding.detail


@pytest.fixture
async def openai() -> AsyncIterator[str]:
    """The one page of OpenAI's that check asks."""

    async def describe(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer good":
            return web.Response(status=401)
        return web.Response(status=200 if request.match_info["model"] == "gpt-realtime" else 404)

    app = web.Application()
    app.router.add_get("/v1/models/{model}", describe)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


@pytest.mark.parametrize(
    ("key", "model", "status", "said"),
    [
        ("good", None, "ok", "knows the key, and gpt-realtime"),
        ("good", "gpt-surreal", "failed", "knows no model gpt-surreal; correct capture.realtime.model"),
        ("wrong", None, "failed", "refuses the key; correct OPENAI_API_KEY"),
        ("", None, "failed", "no key; set OPENAI_API_KEY in .env"),
    ],
)
async def test_a_realtime_models_key(openai: str, key: str, model: str | None, status: str, said: str) -> None:
    pytest.importorskip("livekit.plugins.openai", reason="speech-relay[openai] is not installed")
    realtime = Realtime(provider="openai", model=model, options={"base_url": openai})
    finding = await probe_realtime(realtime, {"OPENAI_API_KEY": key}, offline=False)
    assert (finding.subject, finding.status) == ("realtime openai", status)
    assert finding.detail.endswith(said)


def test_the_plan_says_that_a_realtime_model_listens_alone() -> None:
    config = Config(capture=Capture(realtime=Realtime(provider="openai", model="gpt-realtime")))
    assert (
        "voice activity and transcripts from the realtime model openai/gpt-realtime, which never answers"
        in " ".join(sentences(config))
    )
    assert [plan(config)[key] for key in ("vad", "stt", "realtime")] == [None, None, "openai/gpt-realtime"]


async def test_offline_asks_nobody(free_port: int) -> None:
    stt = Provider(provider="deepgram", options={"base_url": f"http://127.0.0.1:{free_port}/v1/listen"})
    assert (await probe_stt(stt, {}, offline=True)).status == "ok"


async def test_a_plugin_that_is_not_installed() -> None:
    finding = await probe_stt(Provider(provider="no_such"), {}, offline=True)
    assert (finding.status, finding.detail) == (
        "failed",
        f"livekit.plugins.no_such is not installed; pip install livekit-plugins-no-such=={version('livekit-agents')}",
    )


def test_voice_activity() -> None:
    assert [probe_vad(Vad(provider=name)).status for name in ("silero", "livekit", "none")] == ["ok", "ok", "ok"]


async def test_livekit_without_credentials() -> None:
    finding = await probe_livekit(LiveKit(url="ws://127.0.0.1:1"))
    assert finding.status == "failed"
    assert "LIVEKIT_API_KEY" in finding.detail
    assert "LIVEKIT_API_SECRET" in finding.detail


async def test_livekit_out_of_reach(free_port: int) -> None:
    livekit = LiveKit(url=f"ws://127.0.0.1:{free_port}", api_key="key", api_secret="hush-" * 8)
    finding = await probe_livekit(livekit)
    assert finding.status == "failed"
    assert "hush" not in finding.detail


def test_where_the_outbox_will_be(tmp_path: Path) -> None:
    assert probe_outbox(OutboxConfig(url=f"sqlite:///{tmp_path}/new/relay.db")).status == "ok"
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    assert probe_outbox(OutboxConfig(url=f"sqlite:///{tmp_path}/file/relay.db")).status == "failed"
    assert probe_outbox(OutboxConfig(url=f"sqlite:///{tmp_path}")).status == "failed"


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('9999')"
        )


def _something_else(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE guests (name)")


def _link(path: Path) -> None:
    path.with_name("other.db").touch()
    path.symlink_to(path.with_name("other.db"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: shutil.rmtree(path.parent.parent),
        lambda path: path.write_bytes(b"no database " * 1000),
        lambda path: os.mkfifo(path),
        _link,
        _newer,
        _something_else,
    ],
    ids=["no folder", "garbage", "a pipe", "a link", "a newer version", "something else"],
)
def test_a_file_that_a_relay_refuses_is_a_finding(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "folder" / "of logs 100%" / "relay.db"
    path.parent.mkdir(parents=True)
    make(path)
    there = sorted(tmp_path.rglob("*"))
    finding = probe_outbox(OutboxConfig(url=f"sqlite:///{path}"))
    assert finding.status == "failed", finding.detail
    assert sorted(tmp_path.rglob("*")) == there, "it creates nothing"
    with pytest.raises(OutboxError):
        open_database(f"sqlite:///{path}")


def test_a_log_on_a_disk_that_is_almost_full_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/relay.db"
    open_database(url).close()
    assert probe_outbox(OutboxConfig(url=url)).status == "ok"
    monkeypatch.setattr(probes, "disk_usage", lambda _: SimpleNamespace(free=3_500_000))
    finding = probe_outbox(OutboxConfig(url=url))
    assert (finding.status, finding.detail.rpartition(", ")[2]) == (
        "warning",
        "but its disk has only 3 MB left: free some space",
    )


def test_an_outbox_whose_name_is_too_long_is_a_finding(tmp_path: Path) -> None:
    finding = probe_outbox(OutboxConfig(url=f"sqlite:///{tmp_path}/{'a' * 300}.db"))
    assert (finding.status, finding.detail.rpartition(": ")[2]) == ("failed", "File name too long; correct outbox.url")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_outbox_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert probe_outbox(OutboxConfig(url=f"sqlite:///{tmp_path}/relay.db")).status == "failed"
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("visible", "forwards", "said"),
    [
        (False, False, "Hidden in each room; publishes nothing there, and has no permission to."),
        (True, False, "Visible in each room as an agent that listens; publishes nothing there"),
        (False, True, "Hidden in each room; publishes transcripts to everyone there, with permission for data"),
        (True, True, "and for nothing else."),
    ],
)
def test_the_plan_says_what_the_relay_may_do_in_a_room(visible: bool, forwards: bool, said: str) -> None:
    config = Config(capture=Capture(visible=visible, forward_transcripts=forwards))
    assert said in "\n".join(sentences(config))
    assert (plan(config)["visible"], plan(config)["forward_transcripts"]) == (visible, forwards)
    granted = permissions(visible=visible, forwards=forwards)
    assert (granted.hidden, granted.can_publish_data) == (not visible, forwards)
    assert not granted.can_publish
    assert not granted.can_update_metadata


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"secret": SECRET}, "(signed)"),
        ({"signing": "livekit", "livekit_key": {"api_key": "k", "api_secret": "hush"}}, "(signed as LiveKit signs)"),
        ({"signing": "none", "format": "cloudevents"}, "(NOT signed, as CloudEvents)"),
        ({"secret": SECRET, "egress": {"public_only": True}}, "(signed, to public addresses only)"),
    ],
)
def test_the_plan_says_how_an_endpoint_gets_its_events(settings: dict[str, object], said: str) -> None:
    config = Config.model_validate({"endpoints": [{"name": "crm", "url": "https://crm.example.com/", **settings}]})
    assert said in "\n".join(sentences(config))
    assert plan(config)["endpoints"][0]["signing"] == settings.get("signing", "standard")
    assert "hush" not in json.dumps(plan(config))


def test_that_no_room_is_heard_is_said_in_words() -> None:
    first, *rest = sentences(Config(capture=Capture(rooms=[])))
    assert first == "Listens to no room, because capture.rooms is empty; keeps events in sqlite:///var/relay.db."
    assert rest == [
        "Sends nothing: there are no endpoints.",
        "Removes events from the log 7 days after every endpoint has them.",
    ]


@pytest.mark.parametrize(
    ("written", "when", "ms"),
    [
        (7, "7 seconds after", 7_000),
        ("7d", "7 days after", 604_800_000),
        ("36h", "1 day 12 hours after", 129_600_000),
        ("1m1.5s", "1 minute 1 second 500 milliseconds after", 61_500),
        (0, "as soon as", 0),
    ],
)
def test_the_plan_says_how_long_events_are_kept(written: object, when: str, ms: int) -> None:
    config = Config.model_validate({"outbox": {"retention": written}})
    said = f"Removes events from the log {when} every endpoint has them."
    assert [said in sentences(config, role) for role in ("run", "dispatch", "worker")] == [True, True, False]
    assert plan(config)["retention_ms"] == ms


@pytest.mark.parametrize(
    ("settings", "said", "warned"),
    [
        ({}, "Sends nothing: there are no endpoints.", True),
        ({"api": {"listen": None}}, "Sends nothing: there are no endpoints.", True),
        ({"api": {}}, "Sends only to endpoints made over the HTTP API: the configuration has none.", False),
    ],
)
async def test_that_nothing_is_sent_is_said_and_warned_of(
    settings: dict[str, object], said: str, warned: bool, tmp_path: Path
) -> None:
    config = Config.model_validate({"outbox": {"url": f"sqlite:///{tmp_path}/relay.db"}, **settings})
    assert said in sentences(config, "dispatch")
    for role in ("dispatch", "worker"):
        findings = await probe(config, {}, offline=True, role=role)
        details = [(each.status, each.detail) for each in findings if each.subject == "endpoints"]
        warning = ("warning", "there are none: events are kept in the log, and nothing is sent")
        assert details == ([warning] if warned and role == "dispatch" else [])


def test_the_plan_says_what_is_left_out() -> None:
    said = sentences(Config(capture=Capture(participants={"kinds": ["sip"], "sources": ["microphone"]})))
    assert ", to sip participants (microphone only), with " in said[0]
    assert ", to standard, sip, connector participants, with " in sentences(Config())[0]


def test_the_plan_says_that_webhooks_need_an_address() -> None:
    for listen, said in (("127.0.0.1:8790", "Looks at a room when"), (None, "needs an address in api.listen")):
        config = Config.model_validate({"api": {"listen": listen, "livekit_webhook": True}})
        assert said in "\n".join(sentences(config))
    assert "webhooks" not in "\n".join(sentences(Config.model_validate({"api": {"listen": None}})))


def test_the_plan_shows_no_token_of_a_url() -> None:
    for url in (
        "https://example.com/hook?token=hush",
        "https://example.com/services/hush",
        "https://example.com/#hush",
    ):
        config = Config(endpoints=(endpoint(url),))
        said = json.dumps(plan(config), ensure_ascii=False) + "".join(sentences(config))
        assert "hush" not in said
        assert said.count("https://example.com/…") == 2


def test_check_in_words_and_as_json(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "livekit: {url: wss://livekit.example.com}\n"
        "capture: {rooms: [support-*], stt: none}\n"
        "admin: {listen: '127.0.0.1:0'}\n"
        f"outbox: {{url: sqlite:///{tmp_path}/relay.db}}\n"
        "endpoints:\n"
        f"  - {{name: crm, url: https://crm.example.com/, secret: {SECRET}, rooms: [support-1], events: [speech.*]}}\n"
        "  - {name: lab, url: http://lab.example.com/, signing: none, include: {text: false}}\n"
    )
    words = speech_relay("check", "--offline", cwd=tmp_path)
    assert words.returncode == 0, words.stderr
    assert words.stdout.splitlines()[:5] == [
        "Listens on wss://livekit.example.com to rooms support-*, to standard, sip, connector participants, "
        f"with voice activity from silero; keeps events in sqlite:///{tmp_path}/relay.db.",
        "Hidden in each room; publishes nothing there, and has no permission to.",
        "Sends speech.* of rooms support-1 to crm at https://crm.example.com/ (signed).",
        "Sends stream.*, speech.*, transcript.*, utterance.completed, event.too_large to lab "
        "at http://lab.example.com/ (NOT signed, without text).",
        "Removes events from the log 7 days after every endpoint has them.",
    ]
    seen = json.loads(speech_relay("check", "--offline", "--json", cwd=tmp_path).stdout)
    assert seen["ok"] is True
    assert [each["signed"] for each in seen["plan"]["endpoints"]] == [True, False]
    assert {each["subject"]: each["status"] for each in seen["checks"]} == {
        "livekit": "not tried",
        "vad silero": "ok",
        "stt none": "ok",
        "outbox": "ok",
        "endpoint crm": "not tried",
        "endpoint lab": "not tried",
        "secret crm": "warning",
    }


def test_a_failure_is_exit_code_1(tmp_path: Path, free_port: int) -> None:
    (tmp_path / "config.yaml").write_text(
        f"capture: {{stt: none}}\nendpoints: [{{name: a, url: 'http://127.0.0.1:{free_port}/', signing: none}}]"
    )
    result = speech_relay("check", "--json", cwd=tmp_path)
    assert result.returncode == 1
    seen = json.loads(result.stdout)
    assert seen["ok"] is False
    assert {each["subject"] for each in seen["checks"] if each["status"] == "failed"} == {"livekit", "endpoint a"}


def test_the_environment_alone_will_do(tmp_path: Path) -> None:
    endpoints = json.dumps([{"name": "a", "url": "http://a.example.com", "signing": "none"}])
    result = speech_relay("check", "--offline", cwd=tmp_path, SPEECH_RELAY__ENDPOINTS=endpoints, DEEPGRAM_API_KEY="k")
    assert result.returncode == 0, result.stderr
    assert "to a at http://a.example.com/" in result.stdout


@pytest.mark.parametrize(
    ("capture", "says"),
    [
        ("vad: {provider: silero, options: {min_silence: 1}}, stt: none", "capture.vad.options.min_silence"),
        ("stt: {provider: deepgram, options: {modle: nova-3}}", "capture.stt.options.modle"),
        ("realtime: {provider: openai, options: {voise: alloy}}", "capture.realtime.options.voise"),
    ],
)
def test_an_option_that_a_detector_does_not_know_is_found_offline(tmp_path: Path, capture: str, says: str) -> None:
    (tmp_path / "config.yaml").write_text(
        f"capture: {{{capture}}}\nendpoints: [{{name: a, url: 'http://a.example.com', signing: none}}]"
    )
    result = speech_relay("check", "--offline", "--json", cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    (failed,) = (each for each in json.loads(result.stdout)["checks"] if each["status"] == "failed")
    assert failed["detail"].startswith(f"{says}: there is no such option; known are: ")


@pytest.mark.parametrize(
    ("capture", "variable"),
    [
        ({"stt": "deepgram"}, "DEEPGRAM_API_KEY"),
        ({"stt": "assemblyai"}, "ASSEMBLYAI_API_KEY"),
        ({"stt": "cartesia"}, "CARTESIA_API_KEY"),
        ({"stt": "deepgram/nova-3"}, "LIVEKIT_API_KEY"),
        ({"realtime": "openai"}, "OPENAI_API_KEY"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_providers_key_that_is_not_set_is_found_and_named(
    monkeypatch: pytest.MonkeyPatch, capture: dict[str, str], variable: str
) -> None:
    monkeypatch.setenv("LIVEKIT_API_SECRET", "s")
    monkeypatch.delenv(variable, raising=False)
    found = await probe_options(Capture.model_validate(capture))
    if any("not installed" in each.detail for each in found):
        pytest.skip("the plugin is not installed")
    ((status, subject, detail),) = [(each.status, each.subject, each.detail) for each in found]
    assert (status, subject) == ("failed", "detectors")
    assert variable in detail
    monkeypatch.setenv(variable, "k")
    assert await probe_options(Capture.model_validate(capture)) == []


def test_offline_without_the_providers_key_is_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("endpoints: [{name: a, url: 'http://a.example.com', signing: none}]")
    result = speech_relay("check", "--offline", cwd=tmp_path)
    assert result.returncode == 1
    assert "DEEPGRAM_API_KEY" in result.stdout
    (tmp_path / ".env").write_text("DEEPGRAM_API_KEY=k\n")
    assert speech_relay("check", "--offline", cwd=tmp_path).returncode == 0


def test_what_libraries_log_of_a_failed_attempt_is_not_shown(tmp_path: Path, free_port: int) -> None:
    # Only for LiveKit Cloud the SDK tries again, and logs that: here it is made to for a server on this machine.
    script = (
        "from livekit.api import twirp_client\n"
        "twirp_client.failover_attempts = lambda *_: 2\n"
        "from relay.__main__ import main\n"
        "main()\n"
    )
    (tmp_path / "config.yaml").write_text(
        f"livekit: {{url: 'ws://127.0.0.1:{free_port}', api_key: k, api_secret: s}}\ncapture: {{stt: none}}"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "check"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "cannot be reached" in " ".join(result.stdout.split())
    assert result.stderr == ""


def secrets_of(*endpoints: dict[str, object], **livekit: str) -> list[tuple[str, str]]:
    named = [{"name": f"e{n}", "url": "https://example.com/", **each} for n, each in enumerate(endpoints)]
    findings = probe_secrets(Config.model_validate({"livekit": livekit, "endpoints": named}))
    assert {finding.status for finding in findings} <= {"warning"}
    return [(finding.subject, finding.detail.partition(";")[0]) for finding in findings]


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (bytes(32), "all zero"),
        (b"A" * 24, "a few bytes over and over, or in a row"),
        (b"abcd" * 8, "a few bytes over and over, or in a row"),
        (bytes(range(100, 132)), "a few bytes over and over, or in a row"),
        (b"my-very-long-secret-for-crm-hooks", "made of words"),
        (base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "an example of the documentation"),
    ],
)
def test_a_secret_that_protects_nothing_is_warned_of(key: bytes, why: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    assert secrets_of({"secret": [new_secret(), secret]}) == [("secret e0", f"{why}: anyone can sign with it")]


def test_secrets_that_init_makes_are_not_warned_of() -> None:
    made: list[dict[str, object]] = [{"secret": new_secret()} for _ in range(200)]
    assert secrets_of(*made) == []


def test_a_secret_that_endpoints_share_is_warned_of_at_each() -> None:
    shared = new_secret()
    padded = shared.rstrip("=")  # the same key, written otherwise
    assert secrets_of(
        {"secret": [new_secret(), shared]}, {"secret": new_secret()}, {"secret": padded}, {"signing": "none"}
    ) == [
        ("secret e0", "e2 has the same: a receiver that knows one can sign for the other"),
        ("secret e2", "e0 has the same: a receiver that knows one can sign for the other"),
    ]


@pytest.mark.parametrize(("url", "warned"), [("wss://livekit.example.com", True), ("ws://127.0.0.1:7880", False)])
def test_a_short_secret_of_livekit_is_warned_of_where_others_reach_it(url: str, warned: bool) -> None:
    assert bool(secrets_of(url=url, api_key="devkey", api_secret="secret")) is warned
    assert not secrets_of(url=url, api_key="key", api_secret="a" * 16 + "b" * 16)


def test_findings_are_one_line_each_in_a_pipe_and_whole_on_a_narrow_terminal(tmp_path: Path) -> None:
    url = f"http://{'a' * 30}.example.com/"
    (tmp_path / "config.yaml").write_text(
        "capture: {stt: none}\nadmin: {listen: '127.0.0.1:0'}\n"
        f"endpoints: [{{name: {'crm' * 10}, url: '{url}', signing: none}}]"
    )
    detail = "Put it into config.yaml, .env or the environment."
    in_pipe = speech_relay("check", "--offline", cwd=tmp_path).stdout.splitlines()
    findings = in_pipe[in_pipe.index("") + 1 :]
    assert [line.split()[0] for line in findings] == ["livekit", "vad", "stt", "outbox", "endpoint"]
    assert detail in speech_relay("check", cwd=tmp_path).stdout
    shown = on_terminal(tmp_path, 20, 50, 80)
    assert " ".join(shown.split()).count(detail) == 3
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown


def on_terminal(folder: Path, *widths: int) -> str:
    """What ``check`` shows at each width, one after the other. In one process: it imports for seconds."""
    script = (
        "import contextlib, sys, termios\n"
        "from relay.__main__ import main\n"
        "sys.argv = ['speech-relay', 'check']\n"
        f"for width in {widths}:\n"
        "    termios.tcsetwinsize(1, (24, width))\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main()\n"
    )
    main, terminal = os.openpty()
    with subprocess.Popen([sys.executable, "-c", script], env=environment(NO_COLOR="1"), cwd=folder, stdout=terminal):
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: the last process has closed the terminal
            while read := os.read(main, 4096):
                shown += read
    os.close(main)
    return shown.decode()


async def test_an_endpoint_for_some_rooms_is_warned_of_events_about_all() -> None:
    url = "http://127.0.0.1:1"
    endpoints = (
        Endpoint(name="narrow", url=url, signing="none", rooms=("sales-*",), events=("speech.*", "delivery.*")),
        Endpoint(name="wide", url=url, signing="none", events=("*",)),
        Endpoint(name="silent", url=url, signing="none", rooms=("sales-*",)),
    )
    findings = await probe(Config(endpoints=endpoints), {}, offline=True)
    warnings = {finding.subject: finding.detail for finding in findings if finding.status == "warning"}
    assert warnings["endpoint narrow"].startswith("gets delivery.parked, delivery.dead about every room")
    assert not warnings.keys() & {"endpoint wide", "endpoint silent"}


async def test_networks_that_are_allowed_beside_all_others_are_a_warning() -> None:
    rules = {"alone": {"allow": ["10.1.0.0/16"]}, "both": {"allow": ["10.1.0.0/16"], "public_only": True}, "none": {}}
    endpoints = [
        {"name": name, "url": "http://127.0.0.1:1", "signing": "none", "egress": rule} for name, rule in rules.items()
    ]
    config = Config.model_validate({"api": {"listen": None}, "endpoints": endpoints})
    findings = await probe(config, {}, offline=True)
    warnings = {finding.subject: finding.detail for finding in findings if finding.status == "warning"}
    assert warnings == {
        "endpoint alone": "egress.allow changes nothing, because every network is allowed; add egress.public_only: true"
    }


@pytest.mark.parametrize(
    ("role", "subjects", "said"),
    [
        ("run", {"livekit", "outbox", "endpoint crm"}, ["Listens on ", "Sends "]),
        ("worker", {"livekit", "outbox"}, ["Listens on ", "Sends nothing: `speech-relay dispatch` does."]),
        ("dispatch", {"outbox", "endpoint crm"}, ["Listens to no room; reads ", "Sends "]),
    ],
)
async def test_check_is_about_what_a_process_of_that_role_does(
    role: Role, subjects: set[str], said: list[str], tmp_path: Path
) -> None:
    config = Config.model_validate(
        {
            "outbox": {"url": f"sqlite:///{tmp_path}/relay.db"},
            "endpoints": [{"name": "crm", "url": "https://crm.example/", "secret": SECRET}],
        }
    )
    found = await probe(config, {}, offline=True, role=role)
    assert {finding.subject for finding in found} & {"livekit", "outbox", "endpoint crm"} == subjects
    assert any(finding.subject.startswith(("vad", "stt")) for finding in found) is (role != "dispatch")
    plain = "\n".join(sentences(config, role))
    assert all(each in plain for each in said)
    assert ("Hidden in each room" in plain) is (role != "dispatch")
    assert ("crm" in plain) is (role != "worker")


def test_a_role_that_does_not_exist_is_refused_in_one_line(tmp_path: Path) -> None:
    done = speech_relay("check", "--offline", "--role", "boss", cwd=tmp_path)
    assert done.returncode == 2
    assert "'boss' is none of run, worker, dispatch" in done.stderr


async def test_an_address_in_use_is_warned_of_because_a_second_process_needs_another(
    tmp_path: Path, free_port: int
) -> None:
    address = f"127.0.0.1:{free_port}"
    config = Config.model_validate(
        {"outbox": {"url": f"sqlite:///{tmp_path}/relay.db"}, "api": {"listen": address}, "endpoints": []}
    )

    async def warned() -> list[str]:
        found = await probe(config, {}, offline=True, role="dispatch")
        return [finding.detail for finding in found if finding.subject == "api.listen"]

    assert await warned() == []
    with socket.create_server(("127.0.0.1", free_port)):
        (detail,) = await warned()
    assert detail == f"{address} is in use; a second process on this machine needs SPEECH_RELAY__API__LISTEN"
