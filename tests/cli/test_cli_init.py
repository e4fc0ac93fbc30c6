"""``init``: a file and secrets that work, and nothing that was there is lost."""

import stat
from pathlib import Path

from relay.cli.commands.init import add_variables
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
    for flags in ((), ("--url", "https://crm.example.com/hook", "--name", "crm")):
        speech_relay("init", "--force", *flags, cwd=tmp_path)
        before = [(tmp_path / name).read_text() for name in ("config.yaml", ".env")]
        for again in ((), flags):
            result = speech_relay("init", *again, cwd=tmp_path)
            assert result.returncode == 0
            assert "config.yaml exists and was not changed" in result.stdout
            assert [(tmp_path / name).read_text() for name in ("config.yaml", ".env")] == before


def test_flags_that_an_edited_config_would_drop_are_an_error(tmp_path: Path) -> None:
    text = "# mine\nendpoints: [{name: a, url: http://a, signing: none}]\n"
    (tmp_path / "config.yaml").write_text(text)
    for flags in (("--url", "https://other.example.com"), ("--stt", "moonshine", "--name", "b"), ("--stt", "deepgram")):
        result = speech_relay("init", *flags, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (1, "")
        for told in (*flags[::2], "config.yaml", "--force", "--config"):
            assert told in result.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
        assert (tmp_path / "config.yaml").read_text() == text


def test_flags_apply_to_a_config_that_is_still_the_default(tmp_path: Path) -> None:
    speech_relay("init", cwd=tmp_path)
    result = speech_relay("init", "--url", "https://example.com/hook", "--stt", "moonshine", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    config = load(tmp_path / "config.yaml", environ={})
    assert (str(config.endpoints[0].url), config.capture.stt.provider) == ("https://example.com/hook", "moonshine")


def test_next_steps_follow_the_file_and_not_the_flags(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/relay.yaml").write_text(
        "livekit: {url: ws://127.0.0.1:7880}\n"
        "capture: {stt: {provider: moonshine}}\n"
        "endpoints:\n"
        "  - {name: crm, url: https://crm.example.com}\n"
        "  - {name: local, url: http://localhost:9000}\n"
    )
    result = speech_relay("init", "-c", "conf/relay.yaml", cwd=tmp_path, LIVEKIT_API_KEY="key")
    assert result.returncode == 0, result.stderr
    next_steps = result.stdout.partition("Next:\n")[2]
    assert "set LIVEKIT_API_SECRET in conf/.env" in next_steps
    for told in ("listen --endpoint local", "check --config conf/relay.yaml", "run --config conf/relay.yaml"):
        assert f"speech-relay {told}" in next_steps
    assert "DEEPGRAM" not in result.stdout + (tmp_path / "conf/.env").read_text()
    assert "LIVEKIT_URL" not in (tmp_path / "conf/.env").read_text()


def test_a_receiver_elsewhere_needs_no_listen(tmp_path: Path) -> None:
    result = speech_relay("init", "--url", "https://example.com/hook", cwd=tmp_path)
    assert "speech-relay listen" not in result.stdout
    assert "RECEIVER_WEBHOOK_SECRET in .env; its receiver needs it too" in result.stdout


def test_next_steps_name_a_plugin_that_is_not_installed(tmp_path: Path) -> None:
    result = speech_relay("init", "--stt", "no-such", cwd=tmp_path)
    assert result.returncode == 0
    assert "pip install livekit-plugins-no-such==" in result.stdout


def test_mistakes_of_an_existing_file_are_told_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("capture: {romms: []}\nendpoints: [{name: a, url: http://a}]\n")
    result = speech_relay("init", cwd=tmp_path)
    assert result.returncode == 1
    assert "config.yaml:1: capture.romms: unknown key; did you mean rooms?" in result.stdout
    assert value(tmp_path, "A_WEBHOOK_SECRET").startswith("whsec_")


def test_a_name_that_is_no_plugin_writes_nothing(tmp_path: Path) -> None:
    result = speech_relay("init", "--stt", "deep gram}", cwd=tmp_path)
    assert result.returncode == 2
    assert "Invalid value for --stt: must be the name of a LiveKit plugin, such as deepgram" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_force_writes_the_file_again_and_keeps_dotenv(tmp_path: Path) -> None:
    speech_relay("init", cwd=tmp_path)
    secret = value(tmp_path, "RECEIVER_WEBHOOK_SECRET")
    assert speech_relay("init", "--force", "--url", "https://other.example.com", cwd=tmp_path).returncode == 0
    assert "https://other.example.com/" in (tmp_path / "config.yaml").read_text()
    assert value(tmp_path, "RECEIVER_WEBHOOK_SECRET") == secret


def test_force_says_which_options_have_their_defaults_again(tmp_path: Path) -> None:
    speech_relay("init", "--url", "https://example.com/hook", cwd=tmp_path)
    result = speech_relay("init", "--force", "--stt", "moonshine", cwd=tmp_path)
    assert "What it said before is gone; --url, --name have their defaults." in result.stdout


def test_an_unusable_dotenv_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("not a variable\n")
    result = speech_relay("init", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (2, ".env:1: not NAME=value; correct the line or begin it with #\n")
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_a_plugin_that_is_not_known_is_advised_with_a_doubt(tmp_path: Path) -> None:
    result = speech_relay("init", "--stt", "whisper", cwd=tmp_path)
    assert "whisper is not installed, if LiveKit has that plugin: https://" in result.stdout


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
    assert "Invalid value for --url: not an http:// or https:// URL" in result.stderr
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


def test_an_empty_option_of_init_is_an_error_and_not_the_default(tmp_path: Path) -> None:
    for option, said in (("--url", "not an http://"), ("--name", "not a name; "), ("--stt", "must be the name of ")):
        result = speech_relay("init", option, "", cwd=tmp_path)
        assert result.returncode == 2
        assert f"Invalid value for {option}: {said}" in result.stderr
    assert not list(tmp_path.iterdir())


def test_init_quotes_a_path_with_blanks_in_the_commands_to_copy(tmp_path: Path) -> None:
    shown = speech_relay("init", "--config", "my relay/c.yaml", cwd=tmp_path).stdout
    assert "speech-relay run --config 'my relay/c.yaml'" in shown
