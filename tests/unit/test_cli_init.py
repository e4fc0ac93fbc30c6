"""``init``: a file and secrets that work, and nothing that was there is lost."""

import stat
from pathlib import Path

from relay.cli.secrets_file import add_variables
from relay.config.environment import read_dotenv
from relay.config.load import load
from relay.dispatch.signing import new_secret
from tests.support.cli import SECRET, speech_relay


def value(folder: Path, name: str) -> str:
    return read_dotenv(folder / ".env")[name][0]


def test_a_path_that_no_file_can_have_is_one_line(tmp_path: Path) -> None:
    for path, why in (("a" * 300, "File name too long"), ("/dev/null/x", "File exists")):
        result = speech_relay("init", "--config", path, cwd=tmp_path)
        assert (result.returncode, result.stderr) == (2, f"{path} cannot be written: {why}\n")


def test_init_makes_a_configuration_that_loads(tmp_path: Path) -> None:
    result = speech_relay("init", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    endpoint = load(tmp_path / "config.yaml", environ={}).endpoints[0]
    assert endpoint.secrets == (value(tmp_path, "RECEIVER_WEBHOOK_SECRET"),)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert "set LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, DEEPGRAM_API_KEY in .env" in result.stdout
    assert "speech-relay check" in result.stdout
    assert endpoint.secrets[0] not in result.stdout


def test_options_of_init(tmp_path: Path) -> None:
    result = speech_relay(
        *("init", "--url", "https://example.com/hook", "--name", "my-crm", "--stt", "moonshine"),
        *("--config", "conf/relay.yaml"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    config = load(tmp_path / "conf/relay.yaml", environ={})
    assert (config.endpoints[0].name, str(config.endpoints[0].url)) == ("my-crm", "https://example.com/hook")
    assert config.capture.stt.provider == "moonshine"
    assert "DEEPGRAM_API_KEY" not in (tmp_path / "conf/.env").read_text()
    assert config.endpoints[0].secrets == (value(tmp_path / "conf", "MY_CRM_WEBHOOK_SECRET"),)


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    speech_relay("init", cwd=tmp_path)
    before = [(tmp_path / name).read_text() for name in ("config.yaml", ".env")]
    again = speech_relay("init", "--url", "https://other.example.com", cwd=tmp_path)
    assert again.returncode == 0
    assert "config.yaml is there already and stays as it is" in again.stdout
    assert [(tmp_path / name).read_text() for name in ("config.yaml", ".env")] == before


def test_force_writes_the_file_anew_and_keeps_dotenv(tmp_path: Path) -> None:
    speech_relay("init", cwd=tmp_path)
    secret = value(tmp_path, "RECEIVER_WEBHOOK_SECRET")
    assert speech_relay("init", "--force", "--url", "https://other.example.com", cwd=tmp_path).returncode == 0
    assert "https://other.example.com/" in (tmp_path / "config.yaml").read_text()
    assert value(tmp_path, "RECEIVER_WEBHOOK_SECRET") == secret


def test_init_makes_the_secrets_that_an_existing_file_lacks(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(
        "endpoints:\n"
        "  - {name: a, url: http://a}\n"
        "  - {name: b, url: http://b, secret: '${B_SECRET}'}\n"
        "  - {name: c, url: http://c, secret: '${C_SECRET}'}\n"
        "  - {name: d, url: http://d, signing: none}\n"
        "  - {name: e, url: http://e, signing: livekit, livekit_key: {api_key: k, api_secret: s}}\n"
    )
    (tmp_path / ".env").write_text(f"# mine\nOTHER=1\nA_WEBHOOK_SECRET=\nC_SECRET={SECRET}\n")
    result = speech_relay("init", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / ".env").read_text().splitlines()
    assert lines[:2] == ["# mine", "OTHER=1"]
    assert lines[2].startswith("A_WEBHOOK_SECRET=whsec_")
    assert lines[3] == f"C_SECRET={SECRET}"
    assert not any(line.startswith(("D_", "E_")) for line in lines)
    endpoints = load(tmp_path / "config.yaml", environ={}).endpoints
    assert [len(endpoint.secrets) for endpoint in endpoints] == [1, 1, 1, 0, 0]


def test_a_bad_url_writes_nothing(tmp_path: Path) -> None:
    result = speech_relay("init", "--url", "example.com", cwd=tmp_path)
    assert result.returncode == 2
    assert "Invalid value for --url: must be an http:// or https:// URL" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_secrets_differ_and_have_the_size_of_the_standard() -> None:
    secrets = {new_secret() for _ in range(10)}
    assert len(secrets) == 10
    assert all(len(secret) == len("whsec_") + 44 for secret in secrets)


def test_dotenv_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("export A='x'\nB=\nC=1")
    path.chmod(0o644)
    assert add_variables(path, {"A": "new", "B": "filled", "C": "", "D": "added", "E": ""}) == ("B", "D")
    assert path.read_text() == "export A='x'\nB=filled\nC=1\nD=added\nE=\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [".env"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = speech_relay("init", "--config", "file/config.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("file/config.yaml cannot be written: ")
