"""What each process and command loads: LiveKit alone takes a hundred megabytes and seconds."""

import subprocess
import sys
from pathlib import Path

from tests.support.cli import environment

_LOADED = """
import sys
import relay.app.service, relay.cli.commands.run
print(sorted({name.partition(".")[0] for name in sys.modules} & {"livekit", "numpy", "onnxruntime"}))
"""


def test_what_a_dispatcher_runs_does_not_load_livekit() -> None:
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


_RUN = """
import sys
from relay.cli.app import app
for command in ("status", "deliveries", "events"):
    try:
        app([command])
    except SystemExit as exit_:
        assert exit_.code in (0, 1), command
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
_JOB = """
import sys
import relay.app.job
print(*{"fastapi", "uvicorn", "alembic", "httpx", "openai.types.realtime", "livekit.plugins"} & sys.modules.keys())
"""
_CONFIG = "endpoints: [{name: a, url: 'http://127.0.0.1:9/', signing: none}]\n"


def test_the_commands_about_the_log_load_no_client_no_server_and_no_livekit(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(_CONFIG)
    run = subprocess.run(
        [sys.executable, "-c", _RUN],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(run.stderr.splitlines()[-1].split())
    assert "sqlalchemy" in loaded
    assert loaded & {"aiohttp", "httpx", "rich", "fastapi", "uvicorn", "alembic", "livekit", "jwt"} == set()


def test_a_job_loads_nothing_that_only_the_service_or_a_realtime_model_needs() -> None:
    done = subprocess.run([sys.executable, "-c", _JOB], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"
