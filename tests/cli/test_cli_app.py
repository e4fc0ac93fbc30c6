"""The command line itself: immediate, honest about mistakes, without tracebacks."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relay.cli.app import COMMANDS, app
from tests.support.cli import SECRET, environment, speech_relay
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_store import sqlite


def test_help_names_every_command_in_full() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    for name, line in COMMANDS.items():
        assert f"{name} " in shown
        assert line in shown


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from relay.__main__ import main\n"
        "sys.argv = ['speech-relay', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert not loaded & {"livekit", "aiohttp", "sqlalchemy", "pydantic", "yaml", "onnxruntime", "numpy", "rich"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0
    assert f" {name} [OPTIONS]" in result.output


def test_a_command_that_is_none(tmp_path: Path) -> None:
    result = speech_relay("triger", cwd=tmp_path)
    assert result.returncode == 2
    assert "No such command 'triger'. Did you mean 'trigger'?" in result.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["run", "--log-format", "xml"], "'--log-format': 'xml' is not one of 'auto', 'human', 'json'."),
        (["schema", "--format", "xml"], "'--format': 'xml' is not one of 'json-schema', 'openapi', 'asyncapi'."),
        (["events", "--limit", "0"], "'--limit': should be greater than or equal to 1"),
        (["deliveries", "list", "--limit", "x"], "'--limit': should be a valid integer"),
    ],
)
def test_a_wrong_value_of_an_option_is_told_in_plain_words(tmp_path: Path, typed: list[str], said: str) -> None:
    result = speech_relay(*typed, cwd=tmp_path)
    assert result.returncode == 2
    assert f"Invalid value for {said}" in result.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["endpoints", "enabel"], "Did you mean 'enable'?"),
        (["deliveries", "retyr"], "Did you mean 'retry'?"),
        (["check", "--jsno"], "Possible options: --json"),
    ],
)
def test_a_typo_in_a_group_or_an_option_says_what_was_meant(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(app, typed)
    assert result.exit_code == 2
    assert meant in result.stderr


@pytest.mark.parametrize("name", ["", *COMMANDS, "endpoints ping", "deliveries retry", "events tail"])
def test_short_and_long_help_are_the_same_and_fit_60_columns(name: str) -> None:
    long = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "60"}, terminal_width=60)
    short = CliRunner().invoke(app, [*name.split(), "-h"], env={"COLUMNS": "60"}, terminal_width=60)
    assert (long.exit_code, short.output) == (0, long.output)
    assert max(map(len, long.output.splitlines())) <= 60
    assert "..." not in re.sub(r"(\[\w+\]|files)\.\.\.", "", long.output), "nothing is cut off"


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("speech-relay sta", {"status"}),
        ("speech-relay endpoints ", {"list", "disable", "enable", "ping", "remove"}),
        ("speech-relay check --o", {"--offline"}),
    ],
)
def test_the_shell_completes_commands_and_options(words: str, offered: set[str], tmp_path: Path) -> None:
    count = len(words.split()) - (not words.endswith(" "))
    completion = {"_SPEECH_RELAY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    assert set(speech_relay(cwd=tmp_path, **completion).stdout.split()) == offered


def test_the_shell_gets_a_script_for_completion(tmp_path: Path) -> None:
    # without this, typer asks which shell has started the tests; there may be none
    named = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = speech_relay("--show-completion", "bash", cwd=tmp_path, **named)
    assert (shown.returncode, "_SPEECH_RELAY_COMPLETE=complete_bash" in shown.stdout) == (0, True)


def test_what_the_operator_can_act_on_is_a_message_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("capture: {romms: []}\noutbox: 5\n")
    result = speech_relay("check", "--offline", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "config.yaml:1: capture.romms: unknown key; did you mean rooms?",
        "config.yaml:2: outbox: not a section; write `key: value` lines under it",
    ]


def test_an_interrupt_is_130(tmp_path: Path) -> None:
    script = (
        "import sys, types\n"
        "def verify(): raise KeyboardInterrupt\n"
        "sys.modules['relay.cli.commands.listen'] = types.SimpleNamespace(verify=verify)\n"
        "from relay.__main__ import main\n"
        "sys.argv = ['speech-relay', 'verify']\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (130, "")


def test_version() -> None:
    from relay import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"{__version__}\n"


def test_nothing_that_runs_a_model_reports_home(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "import relay.capture\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.stdout == "1\n"


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [
        *((words, "") for words in ("--version", "--help", "init", "status --json", "endpoints", "check --offline")),
        *((words, "1") for words in ("--version", "--help", "status --json")),
    ],
)
def test_output_that_cannot_be_written_is_one_line(words: str, unbuffered: str, tmp_path: Path) -> None:
    Folder(tmp_path)
    make_log(tmp_path)
    with Path("/dev/full").open("w") as full:
        result = run_into(full.fileno(), words, tmp_path, PYTHONUNBUFFERED=unbuffered)
    assert (result.returncode, result.stderr) == (2, "standard output cannot be written: No space left on device\n")


def test_a_pipe_that_is_closed_ends_a_command_without_a_word(tmp_path: Path) -> None:
    Folder(tmp_path)
    make_log(tmp_path)
    buffered = [(words, "") for words in ("--version", "status --json", "endpoints --json", "check --offline --json")]
    for words, unbuffered in (*buffered, ("--version", "1"), ("status --json", "1")):
        reader, writer = os.pipe()
        os.close(reader)
        result = run_into(writer, words, tmp_path, PYTHONUNBUFFERED=unbuffered)
        os.close(writer)
        assert (result.returncode, result.stderr) == (1, "")


def test_closed_standard_output_or_error_is_no_traceback(tmp_path: Path) -> None:
    for closed in (">&-", "2>&-"):
        result = subprocess.run(
            ["sh", "-c", f'exec "$0" -m relay init {closed}', sys.executable],
            env=environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")


def test_closed_standard_input_is_empty(tmp_path: Path) -> None:
    Folder(tmp_path)
    signed = "--id evt_1 --timestamp 1 --signature v1,x"
    for words, code, said in (("purge --room x", 2, "pass --yes"), (f"verify {signed} -", 1, "does not hold")):
        result = subprocess.run(
            ["sh", "-c", f'exec "$0" -m relay {words} <&-', sys.executable],
            env=environment(WEBHOOK_SECRET=SECRET if "verify" in words else ""),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, said in result.stdout + result.stderr) == (code, True), result.stderr


def test_a_zone_that_is_days_away_is_utc(tmp_path: Path) -> None:
    script = (
        "from relay.cli.log import moment\n"
        "from relay.cli.output.formatting import local\n"
        "from relay.telemetry.logs import setup_logging\n"
        "import logging\n"
        "setup_logging('human')\n"
        "logging.warning('on')\n"
        "print(local(0), moment('1970-01-02T00:00Z', 0, option='--since'))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(TZ="UTC+99"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    line, shown = result.stdout.splitlines()
    assert line.endswith("WARNING root: on")
    assert shown == "1970-01-01 00:00:00.000 86400000"


def test_a_log_line_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    script = (
        "import logging, sys\n"
        "from relay.cli.output.terminal import guarded_streams\n"
        "with guarded_streams():\n"
        "    logging.basicConfig(stream=sys.stderr)\n"
        "    logging.warning('lost')\n"
        "print('went on', flush=True)\n"
    )
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-c", script],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert result.stdout == "went on\n"


def run_into(stdout: int, words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *words.split()],
        env=environment(**variables),
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


def make_log(folder: Path) -> None:
    async def opened() -> None:
        async with sqlite(folder) as store:
            await store.open()

    asyncio.run(opened())
