"""``--api``: the commands say the same of a remote relay as of its log."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from relay.app.status import Figures, StatusReports
from relay.cli import api_client, api_relay
from relay.cli.api_client import ApiError
from relay.cli.log_relay import log_relay
from relay.clock import SystemClock
from relay.config.models import Config
from relay.outbox.records import Attempt, DeadLetter, Settlement
from tests.support.api import OPERATOR, TOKENS, serving
from tests.support.builders import endpoint
from tests.support.cli import Done, speech_relay
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.operator import NOWHERE
from tests.support.outbox.outbox_store import the_lane


async def run(*arguments: str, cwd: Path, token: str = OPERATOR) -> Done:
    return await asyncio.to_thread(speech_relay, *arguments, cwd=cwd, SPEECH_RELAY_API_TOKEN=token)


async def test_a_remote_relay_is_shown_and_changed_as_its_log_is(tmp_path: Path, receiver: Receiver) -> None:
    crm, bi = endpoint(url=receiver.url), endpoint("bi")
    (tmp_path / "away").mkdir()  # the commands with --api need no configuration
    (tmp_path / "config.yaml").write_text(
        f"outbox: {{url: 'sqlite:///{tmp_path}/relay.db'}}\n"
        f"endpoints:\n  - {{name: crm, url: '{receiver.url}', signing: none, events: ['*']}}\n"
        "  - {name: bi, url: 'http://127.0.0.1:9/', signing: none, events: ['*']}\n"
    )
    async with serving(tmp_path, [crm, bi], tokens=TOKENS) as api:
        first, second = await (await api.stream(1)).says("one", "two")
        lane = await the_lane(api.outbox.lanes)
        dead = DeadLetter(1, 3, "status 500", 0)
        await api.outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, next_at=0, dead=dead))
        for command in (
            ["endpoints"],
            ["deliveries"],
            ["deliveries", "--endpoint", "crm", "--state", "dead"],
            ["deliveries", "show", first.id],
            ["events", "--type", "utterance.*"],
            ["events", "show", second.id],
            ["events", "show", "evt_none"],
            ["status"],
            ["deliveries", "retry", first.id, "--endpoint", "bi"],
            ["deliveries", "resend", "--endpoint", "bi", "--since", "1h", "--dry-run"],
        ):
            as_json = [] if command[:2] == ["events", "show"] else ["--json"]
            here = await run(*command, *as_json, cwd=tmp_path)
            there = await run("--api", api.server.url, *command, *as_json, cwd=tmp_path / "away")
            assert there.returncode == here.returncode, (command, there.stderr)
            assert without_wait(there.stdout) == without_wait(here.stdout), command
            assert there.stderr == here.stderr, command

        remote = ("--api", api.server.url)
        retried = await run(*remote, "deliveries", "retry", first.id, "--endpoint", "crm", cwd=tmp_path / "away")
        assert "It was dead" in retried.stdout
        disabled = await run(*remote, "endpoints", "disable", "bi", cwd=tmp_path / "away")
        assert "bi is disabled" in disabled.stdout
        enabled = await run(*remote, "endpoints", "enable", "bi", "--skip", cwd=tmp_path / "away")
        assert "3 events of the log were skipped" in enabled.stdout
        pinged = await run(*remote, "endpoints", "ping", "crm", cwd=tmp_path / "away")
        assert "crm took ping" in pinged.stdout
        assert len(receiver.requests) == 1


def without_wait(output: str) -> object:
    """What was written, without what only the log's own machine can tell: who sends, and times that pass."""
    try:
        found = json.loads(output)
    except ValueError:
        return output
    if isinstance(found, dict):
        found.pop("waits_for", None)
    return found


@pytest.mark.parametrize("is_remote", [True, False])
async def test_dead_events_are_retried_and_discarded_together(tmp_path: Path, is_remote: bool) -> None:
    (tmp_path / "config.yaml").write_text(
        f"outbox: {{url: 'sqlite:///{tmp_path}/relay.db'}}\n"
        "endpoints:\n  - {name: crm, url: 'http://127.0.0.1:9/', signing: none, events: ['*']}\n"
    )
    async with serving(tmp_path, [endpoint("crm")], tokens=TOKENS) as api:
        alice = await api.stream(1)
        remote = ("--api", api.server.url) if is_remote else ()
        for command, said in (
            (("discard", "--dead", "--endpoint", "crm", "--since", "1h"), "1 dead events are discarded."),
            (("discard", "--dead", "--all"), "There are no dead events."),
            (("retry", "--dead", "--all"), "1 dead events for crm are"),
            (("retry", "--dead", "--endpoint", "crm"), "There are no dead events."),
        ):
            if "There are no" not in said:
                await alice.says("one more")
                lane = await the_lane(api.outbox.lanes)
                dead = DeadLetter(lane.cursor + 1, 3, "status 500", SystemClock().now_ms())
                await api.outbox.lanes.settle(
                    Settlement(lane.id, lane.fence, lane.cursor + 1, lane.cursor + 1, 0, next_at=0, dead=dead)
                )
            done = await run(*remote, "deliveries", *command, cwd=tmp_path)
            assert said in done.stdout, done.stderr


@pytest.mark.parametrize("is_remote", [True, False])
async def test_an_endpoint_made_over_the_api_is_removed(tmp_path: Path, is_remote: bool) -> None:
    (tmp_path / "config.yaml").write_text(f"outbox: {{url: 'sqlite:///{tmp_path}/relay.db'}}\nendpoints: []\n")
    async with serving(tmp_path, tokens=TOKENS, as_=OPERATOR) as api:
        order = {"url": "https://hooks.example.com/in"}
        assert (await api.client.put("/v1/endpoints/acme", json=order)).status_code == 201
        remote = ("--api", api.server.url) if is_remote else ()
        reports = StatusReports(api.outbox, SystemClock(), lambda: Figures(()), process="this")
        async with reports:
            await reports.ready()
            status = await run(*remote, "status", cwd=tmp_path)
        assert status.returncode == 0, status.stdout + status.stderr  # though no configuration names it
        removed = await run(*remote, "endpoints", "remove", "acme", cwd=tmp_path)
        assert removed.stdout == "acme is removed: what it has not received is dropped\n", removed.stderr
        assert await api.log.api_endpoints.get("acme") is None
        again = await run(*remote, "endpoints", "remove", "none", cwd=tmp_path)
        assert again.returncode == 2
        assert len(again.stderr.splitlines()) == 1


async def test_an_unknown_endpoint_is_told_beside_those_made_over_the_api(tmp_path: Path) -> None:
    config = (
        f"outbox: {{url: 'sqlite:///{tmp_path}/relay.db'}}\nendpoints: [{{name: bi, url: {NOWHERE}, signing: none}}]\n"
    )
    (tmp_path / "config.yaml").write_text(config)
    async with serving(tmp_path, tokens=TOKENS, as_=OPERATOR) as api:
        order = {"url": "https://hooks.example.com/in"}
        assert (await api.client.put("/v1/endpoints/acme", json=order)).status_code == 201
        for command in (["endpoints", "ping"], ["endpoints", "disable"], ["deliveries", "resend", "--since", "1h"]):
            name = ["--endpoint", "zeta"] if "resend" in command else ["zeta"]
            refused = await run(*command, *name, cwd=tmp_path)
            assert (refused.returncode, refused.stderr) == (2, "no endpoint is called zeta; known here: acme, bi\n")


async def test_what_is_appended_and_attempted_is_followed_from_afar(tmp_path: Path) -> None:
    config = Config.model_validate({"outbox": {"url": f"sqlite:///{tmp_path}/relay.db"}})
    async with (
        serving(tmp_path, [endpoint("crm")], tokens=TOKENS) as api,
        log_relay(config) as here,
        api_relay.api_relay(api.server.url, OPERATOR) as there,
    ):
        alice = await api.stream(1)
        await alice.says("before")
        lane = await the_lane(api.outbox.lanes)
        for relay in (here, there):
            events = relay.appended(room="*", participant="*", pattern="*")
            attempts = relay.attempted("crm")
            event = asyncio.ensure_future(anext(events))
            attempt = asyncio.ensure_future(anext(attempts))
            while not (event.done() and attempt.done()):  # the first ones may come before they are followed
                (said,) = await alice.says("now")
                sequence = said.stream.sequence
                tries = (Attempt(lane.id, sequence, 1, sequence, "ok", 200, 1.0),)
                await api.outbox.lanes.settle(Settlement(lane.id, lane.fence, sequence, sequence, 0, tries=tries))
                await asyncio.wait({event, attempt}, timeout=1)
            assert (event.result().type, event.result().room) == ("utterance.completed", alice.room)
            assert json.loads(event.result().body)["data"]["text"] == "now"
            assert (attempt.result().endpoint, attempt.result().stage) == ("crm", "ok")
            following = asyncio.ensure_future(anext(attempts))
            (said,) = await alice.says("after")
            tries = (Attempt(lane.id, said.stream.sequence, 7, 1, "ok", 200, 1.0),)
            await api.outbox.lanes.settle(
                Settlement(lane.id, lane.fence, said.stream.sequence, said.stream.sequence, 0, tries=tries)
            )
            async with asyncio.timeout(30):
                while (await following).number != 7:
                    following = asyncio.ensure_future(anext(attempts))
            for each in (events, attempts):
                await each.aclose()  # type: ignore[union-attr] # they are generators


async def test_what_a_remote_relay_cannot_be_asked_is_said_in_one_line(tmp_path: Path) -> None:
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        url = api.server.url
        for token, arguments, said in (
            ("wrong" * 5, ("--api", url, "endpoints"), "does not know the token in SPEECH_RELAY_API_TOKEN\n"),
            ("", ("--api", url, "endpoints"), "requires a token: put one of its api.tokens in SPEECH_RELAY_API_TOKEN"),
            (OPERATOR, ("--api", url, "endpoints", "disable", "none"), "No endpoint has this name"),
            (OPERATOR, ("--api", url, "endpoints", "remove", "crm"), "This endpoint is one of the configuration file"),
            (OPERATOR, ("--api", "http://127.0.0.1:9", "status"), "cannot be asked"),
            (OPERATOR, ("--api", "ftp://x", "status"), "not the URL of a relay"),
            (OPERATOR, ("--api", "http://127.0.0.1:99999", "status"), "not the URL of a relay"),
            (OPERATOR, ("--api", "http://[::1", "status"), "not the URL of a relay"),
            (OPERATOR, ("--api", "http://\x1b[31m", "status"), "not the URL of a relay"),
            ("tökentökentöken", ("--api", url, "status"), "SPEECH_RELAY_API_TOKEN has a character that"),
            ("token\r\nX-Other: 1", ("--api", url, "status"), "SPEECH_RELAY_API_TOKEN has a character that"),
            (OPERATOR, ("--api", "http://user:secret@127.0.0.1", "status"), "without credentials"),
        ):
            refused = await run(*arguments, cwd=tmp_path, token=token)
            assert refused.returncode == 2, arguments
            assert said in refused.stderr, refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            assert not token or token not in refused.stderr
            assert "secret" not in refused.stderr


@pytest.mark.parametrize("command", ["run", "init", "purge", "demo", "verify"])
async def test_a_command_for_this_machine_alone_refuses_api(tmp_path: Path, command: str) -> None:
    refused = await run("--api", "https://relay.example.com", command, cwd=tmp_path)
    assert refused.returncode == 2
    assert "works on this machine alone" in refused.stderr


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        ("403 Forbidden", '{"detail": "no\\r\\nrelay running"}', "has answered 403: no relay running\n"),
        ("200 OK", "[" * 100_000, "has answered 200: this is not a relay's API\n"),
        ("200 OK", "{}", "has not answered as a relay's API of this version\n"),
        ("200 OK", '{"endpoints": 7, "next": null}', "has not answered as a relay's API of this version\n"),
        ("200 OK", '{"endpoints": [{"name": 1e999}], "next": null}', "as a relay's API of this version\n"),
        ("200 OK", '{"endpoints": [], "next": "again"}', "as a relay's API of this version\n"),
        (
            "200 OK\r\nContent-Encoding: gzip",
            "no gzip",
            "cannot be asked: Error -3 while decompressing data: incorrect header check\n",
        ),
        (
            "302 Found\r\nLocation: http://127.0.0.1:9/",
            "",
            "redirects to another address: give --api the relay's own\n",
        ),
        ("500 Oops", '{"errors": [7]}', "has not answered as a relay's API of this version\n"),
        ("500 Oops", '{"detail": "\\u001b[2J' + "x" * 10_000 + '"}', "x…\n"),
    ],
)
async def test_what_is_no_relay_is_told_of_in_one_line(status: str, body: str, says: str) -> None:
    async with answering(lambda _: (status, body.encode())) as url:
        said = await refusal(url)
    assert f"{said}\n".endswith(says), said
    assert said.isprintable(), "what answers must not control the terminal"
    assert len(said) < 1000


async def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(api_client, "MOST_PAGES", 20)
    bomb = gzip.compress(b" " * (64 << 20))
    many = b'{"endpoints": [' + b"{}," * 600 + b'{}], "next": null}'
    page = '{"endpoints": [], "next": "%d"}'
    for answer, says in (
        (lambda _: ("200 OK", b" " * (4 << 20)), "has sent more than 1 MB at once: this is no relay"),
        (lambda _: ("200 OK\r\nContent-Encoding: gzip", bomb), "has sent more than 1 MB at once: this is no relay"),
        (lambda n: ("200 OK", (page % n).encode()), "has sent 20 pages and has more: ask for less, such as by --since"),
        (lambda _: ("200 OK", many), "has not answered as a relay's API of this version"),
    ):
        async with answering(answer) as url:
            assert (await refusal(url)).endswith(says)


async def refusal(url: str) -> str:
    """What is said of the relay at this URL."""
    async with api_relay.api_relay(url, None) as relay:
        with pytest.raises(ApiError) as refused:
            await relay.endpoints()
    return str(refused.value)


@asynccontextmanager
async def answering(answer: Callable[[int], tuple[str, bytes]]) -> AsyncIterator[str]:
    """The URL of a server with these answers: a status with further headers, and a body, for the nth request."""
    requests = count(1)

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            status, body = answer(next(requests))
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answers, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
