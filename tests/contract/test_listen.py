"""``listen`` end to end: what ``standardwebhooks`` has signed is shown, recorded and taken; what is forged is not."""

import asyncio
import json
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook

from relay.cli.receiver import Arrival, VerifyingReceiver
from tests.support.cli import SECRET, environment, speech_relay

OTHER = "whsec_" + "QkJC" * 11
BODY = json.dumps(
    {
        "type": "transcript.final",
        "room": {"name": "support-42"},
        "participant": {"identity": "alice"},
        "data": {"text": "hello \x1b[31mthere"},
    }
)


def signed(
    body: str = BODY, secret: str = SECRET, at: datetime | None = None, message: str = "evt_1"
) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, at, body),
        "content-type": "application/json",
    }


def post(url: str, headers: dict[str, str], body: str = BODY) -> int:
    request = urllib.request.Request(url, data=body.encode(), headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status: int = response.status
            return status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


@contextmanager
def listening(cwd: Path, *arguments: str, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """``speech-relay listen`` in a process of its own; its URL once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "relay", "listen", "--port", "0", *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], 30)[0], "it never said that it listens"
        line = process.stderr.readline()
        assert line.startswith("Listening on http://127.0.0.1:"), line
        yield line.split()[2], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


def line_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], "nothing was shown"
    return process.stdout.readline()


def test_a_signed_event_is_shown_recorded_and_taken(tmp_path: Path) -> None:
    with listening(tmp_path, "--secret", SECRET, "--record", "seen.jsonl") as (url, process):
        assert post(url + "any/path", signed()) == 204
        shown = line_of(process)
        assert [part in shown for part in ("support-42", "alice", "transcript.final", "hello", "there")] == [True] * 5
        assert "\x1b" not in shown
        assert post(url, signed(secret=OTHER)) == 401
        assert "REFUSED: No matching signature found" in line_of(process)
    assert process.returncode == 0
    taken, refused = map(json.loads, (tmp_path / "seen.jsonl").read_text().splitlines())
    assert (taken["verified"], refused["verified"]) == (True, False)
    Webhook(SECRET).verify(taken["body"], taken["headers"])


def test_json_has_one_line_for_each(tmp_path: Path) -> None:
    with listening(tmp_path, "--json", WEBHOOK_SECRET=SECRET) as (url, process):
        post(url, {**signed(), "relay-previous-sequence": "6"})
        line = json.loads(line_of(process))
        post(url, signed('{"a": NaN}'), '{"a": NaN}')
        assert json.loads(line_of(process))["event"] == {}, "JSON has no such number, so that the body is none"
    assert (line["verified"], line["error"], line["event"]) == (True, None, json.loads(BODY))
    assert (line["headers"]["webhook-id"], line["headers"]["relay-previous-sequence"]) == ("evt_1", "6")
    assert re.fullmatch(r"[-0-9]{10}T[:0-9]{8}\.[0-9]{3}Z", line["received_at"]), "as the times of an event"


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_it_ends_with_totals_on_standard_error(tmp_path: Path, options: tuple[str, ...]) -> None:
    with listening(tmp_path, *options, WEBHOOK_SECRET=SECRET) as (url, process):
        for headers in (signed(), signed(), signed(message="evt_2"), signed(secret=OTHER)):
            post(url, headers)
            line_of(process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines() == ["4 requests: 3 taken, 1 refused; 2 different events, 1 repeated"]


def test_it_stands_in_for_an_endpoint_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("endpoints: [{name: a, url: http://a}, {name: b, url: http://b}]")
    (tmp_path / ".env").write_text(f"A_WEBHOOK_SECRET={SECRET}\nB_WEBHOOK_SECRET={OTHER}\n")
    with listening(tmp_path, "--endpoint", "b") as (url, _):
        assert post(url, signed(secret=OTHER)) == 204
        assert post(url, signed(secret=SECRET)) == 401
    with listening(tmp_path) as (url, _):
        assert post(url, signed(secret=SECRET)) == 204


@pytest.mark.parametrize(
    ("forged", "body", "error"),
    [
        (dict, BODY, "Missing required headers"),
        (signed, BODY + " ", "No matching signature found"),
        (lambda: signed(at=datetime.now(UTC) - timedelta(minutes=6)), BODY, "Message timestamp too old"),
        (lambda: {**signed(), "webhook-id": "evt_2"}, BODY, "No matching signature found"),
        (lambda: {**signed(), "webhook-signature": "v1"}, BODY, "Malformed signature or body"),
        (lambda: {**signed(), "webhook-signature": "v1,***"}, BODY, "No matching signature found"),
        (lambda: {**signed(), "webhook-timestamp": "soon"}, BODY, "Invalid Signature Headers"),
    ],
)
async def test_why_a_signature_does_not_hold(forged: Callable[[], dict[str, str]], body: str, error: str) -> None:
    headers = forged()  # only now: it holds for five minutes
    arrivals: list[Arrival] = []
    receiver = VerifyingReceiver([SECRET], arrivals.append)
    await receiver.start()
    try:
        async with aiohttp.ClientSession() as session, session.post(receiver.url, data=body, headers=headers) as answer:
            assert answer.status == 401
    finally:
        await receiver.stop()
    assert [(arrival.verified, arrival.error) for arrival in arrivals] == [(False, error)]


async def test_a_body_that_is_not_what_its_headers_say_is_refused_quietly(caplog: pytest.LogCaptureFixture) -> None:
    arrived: list[Arrival] = []
    receiver = VerifyingReceiver([SECRET], arrived.append)
    await receiver.start()
    try:
        headers = {**signed(), "content-encoding": "gzip"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                receiver.url, data=b"not gzip", headers=headers, skip_auto_headers=["content-encoding"]
            ) as response,
        ):
            assert response.status == 400
    finally:
        await receiver.stop()
    assert arrived == []
    assert caplog.text == ""


async def test_a_sender_that_goes_away_before_its_body_is_there_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Arrival] = []
    receiver = VerifyingReceiver([SECRET], seen.append)
    await receiver.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
    writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 100 "), "it waits for the body"
    writer.close()
    await writer.wait_closed()
    await receiver.stop()
    assert (seen, caplog.records) == ([], [])


async def test_what_a_receiver_tells_of_each_arrival() -> None:
    arrivals: list[Arrival] = []
    statuses = iter([503, None])
    receiver = VerifyingReceiver([OTHER, SECRET], arrivals.append, lambda _: next(statuses))
    await receiver.start()
    before = datetime.now(UTC).timestamp() * 1e9 - 1e6
    try:
        async with aiohttp.ClientSession() as session:
            for expected in (503, 204):
                async with session.post(receiver.url, data=BODY, headers=signed()) as answer:
                    assert answer.status == expected
    finally:
        await receiver.stop()
    first = arrivals[0]
    assert len(arrivals) == 2
    assert first.verified
    assert first.body == BODY.encode()
    assert first.headers["webhook-id"] == "evt_1"
    assert first.event["type"] == "transcript.final"
    assert before <= first.received_ns <= datetime.now(UTC).timestamp() * 1e9 + 1e6


def test_a_secret_that_is_none(tmp_path: Path) -> None:
    run = speech_relay("listen", "--secret", "hush", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("--secret: not a signing secret")
    assert "hush" not in run.stderr
