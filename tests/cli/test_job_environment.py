"""What a job process is given: its provider's key, and nobody else's secret."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from livekit.agents import JobContext

from relay.app import job
from relay.capture.livekit.access import Access
from relay.capture.worker.job_processes import for_provider, inherited
from relay.config.load import load
from tests.support.cli import ROOT, environment

SECRETS = {
    "LIVEKIT_API_SECRET": "livekit-secret-livekit-secret-livekit",
    "SPEECH_RELAY_CRM_SECRET": "whsec_" + "Q1JN" * 11,
    "CRM_TOKEN": "token-of-the-crm",
    "DEEPGRAM_API_KEY": "key-of-deepgram",
    "OPENAI_API_KEY": "key-of-openai",
    "AWS_SECRET_ACCESS_KEY": "key-of-aws",
}

CONFIG = f"""\
livekit: {{url: "ws://127.0.0.1:7880", api_key: key-id}}
capture: {{rooms: ["*"]}}
endpoints:
  - name: crm
    url: https://crm.example.com/hook-path
    events: ["*"]
    secret: {SECRETS["SPEECH_RELAY_CRM_SECRET"]}
    headers: {{authorization: "Bearer ${{CRM_TOKEN}}"}}
"""


def given(folder: Path) -> bytes:
    """The bytes that a job process is sent at its start."""
    (folder / "config.yaml").write_text(CONFIG)
    environ = {name: value for name, value in SECRETS.items() if name != "SPEECH_RELAY_CRM_SECRET"}
    config = load(folder / "config.yaml", environ=environ)
    variables = job.provider_variables(config, environ)
    for_jobs = job.JobConfig.of(
        config, Access.of(config.livekit), run="run", variables=variables, counts="", traced=False
    )
    return pickle.dumps(partial(job.prepare, for_jobs))


def test_a_job_is_sent_its_providers_key_and_no_other_secret(tmp_path: Path) -> None:
    sent = given(tmp_path)
    found = [name for name, secret in SECRETS.items() if secret.encode() in sent]
    assert found == ["DEEPGRAM_API_KEY"]


def test_a_job_is_not_sent_where_the_webhooks_go(tmp_path: Path) -> None:
    assert b"crm.example.com" not in given(tmp_path)


def test_what_a_job_is_sent_shows_no_secret_when_it_is_printed(tmp_path: Path) -> None:
    assert "key-of-deepgram" not in repr(pickle.loads(given(tmp_path)))


def test_a_process_inherits_the_systems_variables_and_no_key() -> None:
    environ = {**SECRETS, "PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://proxy", "SSL_CERT_FILE": "ca.pem"}
    assert inherited(environ).keys() == {"PATH", "LC_ALL", "https_proxy", "SSL_CERT_FILE"}


_PRELOADED = "from relay.capture.worker.job_processes import preloaded\nfor name in preloaded(['relay.app.job'])"


@pytest.mark.parametrize(
    ("provider", "names"),
    [
        ("deepgram", {"DEEPGRAM_API_KEY"}),
        ("aws", {"AWS_SECRET_ACCESS_KEY"}),
        ("moonshine", set()),
        ("livekit", {"LIVEKIT_API_SECRET"}),
    ],
)
def test_a_provider_gets_the_variables_that_it_reads(provider: str, names: set[str]) -> None:
    assert for_provider(provider, SECRETS).keys() == names


def test_inference_with_a_key_of_its_own_does_not_get_the_projects() -> None:
    own = {"LIVEKIT_INFERENCE_API_KEY": "k", "LIVEKIT_INFERENCE_API_SECRET": "s"}
    assert for_provider("livekit", {**SECRETS, **own}) == own


def test_a_variable_that_the_configuration_names_is_passed_on() -> None:
    assert for_provider("moonshine", SECRETS, also=["CRM_TOKEN", "UNSET"]) == {"CRM_TOKEN": "token-of-the-crm"}


def test_the_modules_of_the_fork_server_can_be_imported() -> None:
    """It passes over those that cannot, without a word, and each job would import for itself."""
    subprocess.run([sys.executable, "-c", f"{_PRELOADED}: __import__(name)"], check=True, timeout=120)


_ABANDONED = """
import multiprocessing.forkserver as forkserver, os, sys, time
from relay.capture.worker.job_processes import begin_preload, end_at_once
begin_preload(["never_imported"], local_inference=False)
pid = forkserver._forkserver._forkserver_pid
end_at_once()
assert os.waitpid(pid, 0)[1] == 9
"""


def test_an_abandoned_start_does_not_wait_for_what_is_imported(tmp_path: Path) -> None:
    (tmp_path / "never_imported.py").write_text("import signal\nsignal.pause()\n")
    subprocess.run(
        [sys.executable, "-c", _ABANDONED],
        env=environment(PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}"),
        check=True,
        timeout=60,
    )


def test_the_fork_server_collects_no_garbage_until_it_has_imported_all() -> None:
    code = f"import gc\n{_PRELOADED}: __import__(name); print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    run = subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True)
    *importing, warm, frozen = run.stdout.splitlines()
    assert set(importing) == {"False False"}
    assert (warm, frozen) == ("True True", "True True"), "what was imported is never walked"


class Context:
    """What a job asks of LiveKit before it joins."""

    def __init__(self, config: job.JobConfig) -> None:
        self.proc = SimpleNamespace(userdata={"config": config, "name": "job"})
        self.ended = ""

    def shutdown(self, reason: str) -> None:
        self.ended = reason


async def test_a_job_whose_log_cannot_be_used_says_so_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "relay.db").mkdir()
    config: job.JobConfig = pickle.loads(given(tmp_path)).args[0]
    context = Context(replace(config, outbox_url=f"sqlite:///{tmp_path}/relay.db"))
    await job.entry(cast("JobContext", context))
    (record,) = caplog.records
    assert record.getMessage().endswith("relay.db is not a regular file: move it away")
    assert record.exc_info is None, "a traceback tells an operator nothing"
    assert context.ended
