"""Nothing that others choose reaches a log line or a terminal as a command, or as a line of its own.

Names of rooms and participants, transcripts and answers of receivers may hold any character at all.
"""

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from relay.cli.commands import check
from relay.cli.demo.screen import Screen as DemoScreen
from relay.cli.output.formatting import columns, write, write_line
from relay.cli.output.listen_output import ArrivalLines, ArrivalScreen
from relay.cli.output.terminal import guarded_streams
from relay.cli.receiver import Arrival
from relay.config.problems import Mistake, Mistakes
from relay.events.envelope import StreamEvent
from relay.events.samples import SAMPLES
from relay.telemetry.logs import setup_logging
from relay.telemetry.printable import ascii_json, printable
from tests.support.builders import said, track
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import event
from tests.support.outbox.outbox_store import sqlite

FORGED = "r\n23:59:59.000 ERROR relay.dispatch: FORGED\x1b]0;owned\x07"
"""A line of its own, and the terminal's title."""
HOSTILE = FORGED + "\x00\r\x7f\x85\x9b31m\u202e\u2066\u200f\u2028\u2029[/][bold red]\U000e0041"

# every plane, and more often than by chance what terminals act on
names = st.text(st.one_of(st.characters(), st.sampled_from("\x1b\x07\r\n\x00\x7f\x85\x9b\x9d\u202e\u2066\u2028[]")))
many = settings(deadline=None, max_examples=150)


def injected(shown: str, *, keep: str = "\n") -> set[str]:
    """Characters that a terminal may act on."""
    return {character for character in shown if not character.isprintable() and character not in keep}


def test_text_is_escaped_and_can_be_told_apart() -> None:
    assert printable("a\n\x1b\x7f\x85\u202e\u2028\ud800b") == r"a\n\x1b\x7f\x85\u202e\u2028\ud800b"
    assert printable("Müller 東京 🎉\u3000x") == "Müller 東京 🎉 x"


@many
@given(names)
def test_json_for_a_log_or_a_terminal_is_printable_ascii_with_the_same_meaning(name: str) -> None:
    written = ascii_json({name: [name]})
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written) == {name: [name]}


@pytest.fixture(scope="module")
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_restored")
@many
@given(names, names)
@example(HOSTILE, HOSTILE)
def test_a_human_log_line_is_one_line_whatever_a_name_holds(name: str, other: str) -> None:
    out = io.StringIO()
    setup_logging("human", stream=out)
    ours = logging.getLogger("relay.dispatch")
    ours.info("room %s began", name, extra={"room": other, "both": [name, other]})
    ours.info(f"room {name} ended")
    ours.error("failed on %s", other, exc_info=OSError(name))
    text = out.getvalue()
    assert injected(text) == set()
    own = [line for line in text.split("\n") if line and not line.startswith("    ")]
    assert len(own) == 3, "what is in an exception does not begin a record"
    for line in own:
        datetime.strptime(line[:12], "%H:%M:%S.%f")  # noqa: DTZ007


@pytest.mark.usefixtures("_restored")
@many
@given(names)
@example(HOSTILE)
def test_a_json_log_line_is_printable_ascii(name: str) -> None:
    out = io.StringIO()
    setup_logging("json", stream=out)
    ours = logging.getLogger("relay.dispatch")
    ours.error("failed in %s", name, extra={"room": name}, exc_info=OSError(name))
    (line,) = out.getvalue().splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["room"] == name


@many
@given(names, names)
@example(HOSTILE, HOSTILE)
def test_a_table_has_a_line_per_row_and_commands_nothing(name: str, other: str) -> None:
    shown = columns(("ROOM", "WHO"), [(name, other), (other, name)])
    assert injected(shown) == set()
    assert len(shown.split("\n")) == 3


@many
@given(names)
@example(HOSTILE)
def test_json_of_commands_is_printable_ascii(name: str) -> None:
    out = io.StringIO()
    with redirect_stdout(out):
        write({"room": name})
        write_line({"room": name})
        ArrivalLines()(_arrival(name))
    assert out.getvalue().isascii()
    assert injected(out.getvalue()) == set()


@many
@given(names)
@example(HOSTILE)
@example("[/nothing][red]")
def test_what_rich_draws_has_no_commands_and_no_markup_of_others(name: str) -> None:
    out = io.StringIO()
    console = Console(file=out, color_system=None, width=100, highlight=False)
    refused = _arrival(name, error=name)
    ArrivalScreen(console)(_arrival(name))
    ArrivalScreen(console)(refused)
    demo = DemoScreen(console)
    demo.heard(name, silent=False)
    for kind in ("transcript.interim", "speech.started", "transcript.final", "speech.ended"):
        demo.delivered(_arrival(name, kind), _event(name, kind))
    demo.refused(_arrival(name))
    demo.webhook(_arrival(name))
    with patch("rich.console.Console", return_value=console):
        check._show([(name, "ok", name), (name, "failed", name)])
    assert injected(out.getvalue()) == set()


@many
@given(names)
@example(HOSTILE)
def test_a_mistake_in_the_configuration_is_one_line(name: str) -> None:
    assert len(str(Mistakes([Mistake("config.yaml:1", name, name)])).split("\n")) == 1


@many
@given(names)
@example(HOSTILE)
def test_whatever_writes_to_standard_output_or_error_commands_nothing(name: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "stdout", out), patch.object(sys, "stderr", err), guarded_streams():
        sys.stdout.write(name)
        sys.stderr.write(name)
        Console().print(1)  # colours of our own still go to the stream itself
    assert injected(out.getvalue() + err.getvalue(), keep="\n\t") == set()


async def test_no_command_passes_on_what_a_room_or_a_participant_is_called(tmp_path: Path) -> None:
    async with sqlite(tmp_path) as store:
        outbox = await store.open()
        await outbox.lanes.sync_endpoints(["crm"])
        log = await outbox.open_stream(track(1, HOSTILE, HOSTILE))
        await log.append([said(1, 1, HOSTILE, HOSTILE)])
        folder = Folder(tmp_path)
        for command in (
            ("events",),
            ("events", "--json"),
            ("events", "show", event(1)),
            ("events", "list", "--room", HOSTILE),
            ("deliveries", "--state", "pending"),
            ("deliveries", "--state", "pending", "--json"),
            ("deliveries", "show", event(1)),
            ("deliveries", "show", HOSTILE),
            ("endpoints",),
            ("endpoints", "ping", HOSTILE),
            ("events", "--type", HOSTILE),
            ("listen", "--endpoint", HOSTILE),
            ("trigger", HOSTILE, "--endpoint", "crm"),
            ("purge", "--room", HOSTILE, "--yes"),
        ):
            done = await folder.run(*command)
            assert injected(done.stdout + done.stderr) == set(), command
            assert "\n23:59:59" not in done.stdout, command


def _event(name: str, kind: str = "transcript.final") -> StreamEvent:
    sample = SAMPLES[kind]
    assert isinstance(sample, StreamEvent)
    fields = sample.model_dump()
    fields["room"]["name"] = fields["participant"]["identity"] = name
    if "text" in fields["data"]:
        fields["data"]["text"] = name
    return type(sample).model_validate(fields)


def _arrival(name: str, kind: str = "transcript.final", *, error: str | None = None) -> Arrival:
    shown = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")
    headers = dict.fromkeys((*shown, "relay-previous-sequence"), name)
    body = ascii_json(json.loads(ascii_json(_event(name, kind).model_dump(mode="python")))).encode()
    return Arrival(headers, body, 1_700_000_000_000_000_000, error)
