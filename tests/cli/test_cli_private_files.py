"""Commands create no file that other users may read, and `check` finds those that exist."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.cli import SECRET, environment, speech_relay
from tests.support.tools import tool

ENDPOINT = "{name: a, url: 'http://a.example.com', signing: none}"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process with the umask that most shells have."""
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=cwd,
        env=environment(),
        umask=0o022,
        capture_output=True,
        text=True,
    )


def failures(folder: Path) -> Sequence[str]:
    """What `check` says of files."""
    found = speech_relay("check", "--offline", "--json", cwd=folder)
    checks = json.loads(found.stdout)["checks"]
    details = [each["detail"] for each in checks if each["subject"] == "files"]
    assert found.returncode == (1 if details else 0), found.stderr
    return details


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_creates_files_that_only_their_owner_may_read(tmp_path: Path) -> None:
    assert run("init", "--config", "conf/relay.yaml", cwd=tmp_path).returncode == 0
    assert [mode(tmp_path / "conf" / name) for name in (".", "relay.yaml", ".env")] == [0o700, 0o600, 0o600]
    (tmp_path / "conf/relay.yaml").chmod(0o644)
    assert run("init", "--force", "--config", "conf/relay.yaml", cwd=tmp_path).returncode == 0
    assert mode(tmp_path / "conf/relay.yaml") == 0o600


def test_init_writes_through_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "config.yaml").symlink_to("precious")
    refused = run("init", "--force", cwd=tmp_path)
    assert (refused.returncode, "config.yaml is a symbolic link" in refused.stderr) == (2, True)
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_recording_of_listen_is_readable_for_its_owner_only(tmp_path: Path) -> None:
    from relay.cli.output.listen_output import ArrivalRecorder

    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o644)
    before = os.umask(0o022)
    try:
        recorders = [ArrivalRecorder(tmp_path / name) for name in ("old", "new")]
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("old", "new")] == [0o600, 0o600]
    for recorder in recorders:
        recorder._file.close()


@pytest.mark.parametrize("name", [".env", "var/relay.db", "var/relay.db-wal", "var/relay.db.lock"])
def test_check_fails_on_a_file_that_others_may_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.yaml").write_text(f"capture: {{stt: none}}\nendpoints: [{ENDPOINT}]")
    (tmp_path / "config.yaml").chmod(0o644)  # holds no secret
    (tmp_path / "var").mkdir()
    (tmp_path / name).touch()
    (tmp_path / name).chmod(0o640)
    (detail,) = failures(tmp_path)
    assert detail.startswith("other users may read or write ")
    assert detail.endswith(name)
    (tmp_path / name).chmod(0o600)
    assert failures(tmp_path) == []


@pytest.mark.parametrize(
    ("endpoint", "fails"),
    [
        (f"{{name: a, url: 'http://a', secret: {SECRET}}}", True),
        (f"{{name: a, url: 'http://a', secret: ['${{OLD:-{SECRET}}}']}}", True),
        ("{name: a, url: 'http://a', signing: none, headers: {Authorization: Bearer x}}", True),
        ("{name: a, url: 'http://a?token=x', signing: none}", True),
        ("{name: a, url: 'http://a', signing: livekit, livekit_key: {api_key: k, api_secret: s}}", True),
        ("{name: a, url: 'http://a', signing: none, headers: {X-Tenant: acme}}", False),
        ("{name: a, url: 'http://a', secret: '${A_SECRET}'}", False),
    ],
)
def test_a_readable_config_fails_only_where_it_holds_a_secret(tmp_path: Path, endpoint: str, fails: bool) -> None:
    (tmp_path / "config.yaml").write_text(f"capture: {{stt: none}}\nendpoints: [{endpoint}]")
    (tmp_path / ".env").write_text(f"A_SECRET={SECRET}\n")
    (tmp_path / "config.yaml").chmod(0o644)
    assert bool(failures(tmp_path)) is fails


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_a_config_that_this_user_may_not_read_says_what_to_do(tmp_path: Path) -> None:
    from relay.config.document import read_document
    from relay.errors import ConfigError

    (tmp_path / "config.yaml").write_text("livekit: {}")
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"config\.yaml: user 65534 may not read it; give it to that user with"):
            read_document(tmp_path / "config.yaml")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_command_says_who_may_not_read_the_configuration(command: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("endpoints: []\n")
    (tmp_path / "config.yaml").chmod(0o000)
    user = os.geteuid()
    as_others = (
        [] if user else [tool("setpriv"), "--bounding-set=-dac_override,-dac_read_search"]
    )  # root reads everything
    done = subprocess.run(
        [*as_others, sys.executable, "-m", "relay", command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    cure = "give it to that user with chown, or chmod 644"
    assert done.stderr.startswith(f"config.yaml: user {user} may not read it; {cure}")
