"""File, then environment; ``.env`` behind the real environment; ``${VAR}`` in the file."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from relay.cli.commands.init import render
from relay.config.endpoint import Endpoint
from relay.config.environment import exported
from relay.config.load import load, unset_secrets
from relay.config.models import Config
from relay.errors import ConfigError
from tests.support.cli import ROOT, SECRET

OTHER = "whsec_" + "QkJC" * 11


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_nothing_at_all_is_the_defaults(path: Path) -> None:
    path.write_text("# nothing yet\n")
    assert load(path, environ={}) == Config() == load(None, environ={})


def test_a_section_whose_keys_are_all_commented_out_is_absent(path: Path) -> None:
    path.write_text("livekit:\n  # url: ws://x\nendpoints:\n")
    assert load(path, environ={}) == Config()


def test_environment_over_file(path: Path) -> None:
    path.write_text("outbox: {url: sqlite:///file.db, retention: 1h}\nspeech: {merge_gap: 250ms}")
    environ = {"SPEECH_RELAY__OUTBOX__URL": "sqlite:///env.db", "SPEECH_RELAY__SPEECH__MERGE_GAP": "60"}
    config = load(path, environ=environ)
    assert config.outbox.url == "sqlite:///env.db"
    assert config.outbox.retention == timedelta(hours=1)
    assert config.speech.merge_gap == timedelta(minutes=1)
    assert config.admin.listen == "127.0.0.1:8790"


def test_livekits_own_variables_override_the_file_and_ours_override_them(path: Path) -> None:
    path.write_text("livekit: {url: ws://file, api_key: file}")
    environ = {"LIVEKIT_URL": "ws://env", "LIVEKIT_API_SECRET": "s", "SPEECH_RELAY__LIVEKIT__API_KEY": "ours"}
    livekit = load(path, environ={**environ, "LIVEKIT_API_KEY": "theirs"}).livekit
    assert (livekit.url, livekit.api_key) == ("ws://env", "ours")
    assert livekit.api_secret is not None
    assert livekit.api_secret.get_secret_value() == "s"


def test_every_shape_of_key_has_a_variable() -> None:
    config = load(
        None,
        environ={
            "SPEECH_RELAY__CAPTURE__ROOMS": "support-*, sales",
            "SPEECH_RELAY__CAPTURE__PARTICIPANTS__KINDS": '["sip"]',
            "SPEECH_RELAY__CAPTURE__STT__PROVIDER": "moonshine",
            "SPEECH_RELAY__CAPTURE__STT__OPTIONS__LANGUAGE": "en",
            "SPEECH_RELAY__CAPTURE__AWAY_AFTER": "null",
            "SPEECH_RELAY__ADMIN__LISTEN": "null",
            "SPEECH_RELAY__ENDPOINTS": '[{"name": "crm", "url": "http://crm/", "include": {"text": false}}]',
            "CRM_WEBHOOK_SECRET": SECRET,
        },
    )
    assert config.capture.rooms == ("support-*", "sales")
    assert config.capture.participants.kinds == ("sip",)
    assert (config.capture.stt.provider, config.capture.stt.options) == ("moonshine", {"language": "en"})
    assert config.capture.away_after is None
    assert config.admin.listen is None
    assert config.endpoints[0].include.text is False
    assert config.endpoints[0].secrets == (SECRET,)


def test_dotenv_beside_the_file_stands_behind_the_real_environment(path: Path) -> None:
    path.write_text("capture: {rooms: ['${ROOM}', '${OTHER}']}")
    path.with_name(".env").write_text("ROOM=dotenv\nexport OTHER='quoted'  # why\nLIVEKIT_URL=ws://dotenv\n")
    config = load(path, environ={"ROOM": "real"})
    assert config.capture.rooms == ("real", "quoted")
    assert config.livekit.url == "ws://dotenv"


def test_a_variable_set_to_nothing_is_not_set(path: Path) -> None:
    path.write_text("capture: {rooms: ['${ROOM:-all}']}\nlivekit: {url: ws://file}")
    path.with_name(".env").write_text("LIVEKIT_URL=\nROOM=\n")
    config = load(path, environ={"LIVEKIT_URL": ""})
    assert config.livekit.url == "ws://file"
    assert config.capture.rooms == ("all",)


def test_variables_in_the_file(path: Path) -> None:
    path.write_text(
        "capture: {rooms: ['a-${A}-${B:-b}', '${C:-}', '$${A}', '$B', '$$A'], stt: {provider: x, options: {n: '${A}'}}}"
    )
    config = load(path, environ={"A": "${B}"})
    assert config.capture.rooms == ("a-${B}-b", "", "${A}", "$B", "$$A")
    assert config.capture.stt.options == {"n": "${B}"}


def test_an_endpoint_needs_only_a_name_and_a_url(path: Path) -> None:
    path.write_text("endpoints: [{name: my-crm, url: https://example.com/}]")
    path.with_name(".env").write_text(f"MY_CRM_WEBHOOK_SECRET={SECRET}\n")
    assert load(path, environ={}).endpoints[0].secrets == (SECRET,)


def test_several_secrets_while_rotating(path: Path) -> None:
    path.write_text(f"endpoints: [{{name: crm, url: https://example.com/, secret: ['${{NEW}}', {SECRET}]}}]")
    assert load(path, environ={"NEW": OTHER, "CRM_WEBHOOK_SECRET": "unused"}).endpoints[0].secrets == (OTHER, SECRET)


def test_going_unsigned_takes_a_word(path: Path) -> None:
    path.write_text("endpoints: [{name: crm, url: https://example.com/, signing: none}]")
    assert load(path, environ={}).endpoints[0].secrets == ()
    with pytest.raises(ConfigError, match="endpoint crm has no secret; set CRM_WEBHOOK_SECRET"):
        _ = Endpoint(name="crm", url="https://example.com/").secrets


def test_signing_as_livekit_does_takes_the_projects_key_or_one_of_its_own(path: Path) -> None:
    path.write_text(
        "livekit: {api_key: file}\nendpoints:\n  - {name: a, url: http://a, signing: livekit}\n"
        "  - {name: b, url: http://b, signing: livekit, livekit_key: {api_key: own, api_secret: '${OWN}'}}\n"
        "  - {name: c, url: http://c, signing: none}\n"
    )
    config = load(path, environ={"LIVEKIT_API_KEY": "env", "LIVEKIT_API_SECRET": "s", "OWN": "o"})
    assert [endpoint.livekit_pair for endpoint in config.endpoints[:2]] == [("env", "s"), ("own", "o")]
    assert config.endpoints[2].livekit_key is None
    assert config.endpoints[0].secrets == ()


def test_a_configuration_can_be_shown_without_its_secrets(path: Path) -> None:
    path.write_text(
        "livekit: {api_secret: hush}\ncapture: {stt: {provider: x, options: {api_key: hush}}}\n"
        "endpoints: [{name: crm, url: https://example.com/, secret: '${S}', headers: {Authorization: hush}}]"
    )
    shown = repr(load(path, environ={"S": SECRET}))
    assert "hush" not in shown
    assert SECRET not in shown


def test_which_secrets_are_still_to_be_made(path: Path) -> None:
    path.write_text(
        "endpoints:\n"
        "  - {name: a, url: http://a}\n"
        "  - {name: b, url: http://b, secret: '${B_SECRET}'}\n"
        "  - {name: c, url: http://c, secret: ['${C_SECRET}', '${OLD}']}\n"
        "  - {name: d, url: http://d, signing: none}\n"
        f"  - {{name: e, url: http://e, secret: {SECRET}}}\n"
        "  - {name: f, url: http://f, signing: livekit}\n"
        "  - {name: g, url: http://g, signing: livekit, secret: '${LEFT_OVER}'}\n"
    )
    assert unset_secrets(path, {"OLD": SECRET}) == {"A_WEBHOOK_SECRET": "a", "B_SECRET": "b", "C_SECRET": "c"}


def test_the_file_at_the_root_is_the_one_that_init_writes() -> None:
    assert (ROOT / "config.yaml").read_text(encoding="utf-8") == render()


@pytest.mark.parametrize("stt", ["deepgram", "moonshine", "none", "assemblyai"])
def test_what_init_writes_loads(path: Path, stt: str) -> None:
    path.write_text(render(stt=stt, name="crm", url="https://example.com/a?b=c#d"))
    config = load(path, environ={"CRM_WEBHOOK_SECRET": SECRET})
    assert config.capture.stt.provider == stt
    assert str(config.endpoints[0].url) == "https://example.com/a?b=c#d"


def test_the_defaults_that_init_writes_as_comments_are_the_defaults(path: Path) -> None:
    keys = "away_after|speech|merge_gap|transcript_timeout|retention|events|include|timeout|shutdown|grace"
    uncommented, count = re.subn(rf"(?m)^( *)# ( *(?:{keys}):)", r"\1\2", render())
    assert count == len(keys.split("|"))
    configs = []
    for text in (render(), uncommented):
        path.write_text(text)
        configs.append(load(path, environ={"RECEIVER_WEBHOOK_SECRET": SECRET}))
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    "written",
    [
        "stt: deepgram/nova-3",
        "stt: {provider: deepgram/nova-3}",
        "stt: {provider: livekit, options: {model: deepgram/nova-3}}",
    ],
)
def test_a_model_by_its_providers_name_is_one_of_livekit_inference(path: Path, written: str) -> None:
    path.write_text(f"capture: {{{written}}}\n")
    stt = load(path, environ={}).capture.stt
    assert (stt.provider, stt.options) == ("livekit", {"model": "deepgram/nova-3"})


def test_such_a_name_in_the_environment(path: Path) -> None:
    stt = load(None, environ={"SPEECH_RELAY__CAPTURE__STT__PROVIDER": "deepgram/nova-3"}).capture.stt
    assert (stt.provider, stt.options) == ("livekit", {"model": "deepgram/nova-3"})


@pytest.mark.parametrize(
    "written",
    [
        "stt: {provider: deepgram/nova-3, options: {model: nova-2}}",
        "realtime: {provider: openai/gpt-realtime, model: gpt-realtime-mini}",
    ],
)
def test_a_model_is_named_once(path: Path, written: str) -> None:
    path.write_text(f"capture: {{{written}}}\n")
    with pytest.raises(ConfigError, match="take one of them out"):
        load(path, environ={})


def test_such_a_model_takes_options(path: Path) -> None:
    path.write_text("capture: {stt: {provider: deepgram/nova-3, options: {language: de}}}\n")
    stt = load(path, environ={}).capture.stt
    assert (stt.provider, stt.options) == ("livekit", {"model": "deepgram/nova-3", "language": "de"})


@pytest.mark.parametrize("written", ["openai/gpt-realtime", "{provider: openai/gpt-realtime, options: {}}"])
def test_a_realtime_model_by_its_providers_name_too(path: Path, written: str) -> None:
    path.write_text(f"capture: {{realtime: {written}}}\n")
    model = load(path, environ={}).capture.realtime
    assert model is not None
    assert (model.provider, model.model, model.options) == ("livekit", "openai/gpt-realtime", {})


def test_voice_activity_detection_has_no_models_by_name(path: Path) -> None:
    path.write_text("capture: {vad: silero/v5}\n")
    with pytest.raises(ConfigError, match=r"capture\.vad"):
        load(path, environ={})


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("250ms", 0.25), ("1.5s", 1.5), ("5m30s", 330), ("1h 5m", 3900), ("1d12h", 129600), ("1s500ms", 1.5), ("2", 2)],
)
def test_durations_as_people_write_them(path: Path, written: str, seconds: float) -> None:
    path.write_text(f"outbox: {{retention: {written}}}")
    assert load(path, environ={}).outbox.retention == timedelta(seconds=seconds)
    assert load(None, environ={"SPEECH_RELAY__OUTBOX__RETENTION": written}) == load(path, environ={})


def test_a_byte_order_mark_is_no_part_of_the_first_name(path: Path) -> None:
    path.write_text("\ufefflivekit: {api_key: k}", encoding="utf-8")
    path.with_name(".env").write_text("\ufeffLIVEKIT_URL=ws://a\r\nX=1\r\n", encoding="utf-8")
    assert load(path, environ={}).livekit.url == "ws://a"
    assert load(path, environ={}).livekit.api_key == "k"


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}\n\n"])
def test_blanks_and_line_ends_around_a_variable_are_no_part_of_it(path: Path, around: str) -> None:
    path.write_text("endpoints: [{name: crm, url: '${HOOK}', headers: {X-Key: '${KEY}'}}]")
    config = load(
        path,
        environ={
            "HOOK": around.format("https://example.com/hook"),
            "KEY": around.format("k"),
            "CRM_WEBHOOK_SECRET": around.format(SECRET),
            "LIVEKIT_URL": around.format("ws://livekit:7880"),
            "LIVEKIT_API_KEY": around.format("key"),
            "LIVEKIT_API_SECRET": around.format("secret"),
            "SPEECH_RELAY__OUTBOX__URL": around.format("sqlite:///a.db"),
        },
    )
    assert config.endpoints[0].secrets == (SECRET,)
    assert str(config.endpoints[0].url) == "https://example.com/hook"
    assert config.endpoints[0].headers == {"X-Key": "k"}
    assert (config.livekit.url, config.livekit.api_key) == ("ws://livekit:7880", "key")
    assert config.livekit.api_secret is not None
    assert config.livekit.api_secret.get_secret_value() == "secret"
    assert config.outbox.url == "sqlite:///a.db"


def test_blanks_and_line_ends_around_values_of_the_file_are_no_part_of_them(path: Path) -> None:
    path.write_text(
        f"livekit: {{url: 'ws://a ', api_key: ' k', api_secret: \"s\\n\"}}\noutbox: {{url: \"sqlite:///a.db\\n\"}}\n"
        f"endpoints:\n  - name: crm\n    url: https://example.com/\n    secret: |\n      {SECRET}\n      {OTHER}\n"
    )
    config = load(path, environ={})
    assert config.endpoints[0].secrets == (SECRET, OTHER)
    assert (config.livekit.url, config.livekit.api_key, config.outbox.url) == ("ws://a", "k", "sqlite:///a.db")


@pytest.mark.parametrize("between", [" ", "\n", "  \t", "\r\n"])
def test_several_secrets_in_one_variable_while_rotating(path: Path, between: str) -> None:
    path.write_text("endpoints: [{name: crm, url: https://example.com/}, {name: b, url: http://b, secret: ['${B}']}]")
    both = f"{OTHER}{between}{SECRET}\n"
    config = load(path, environ={"CRM_WEBHOOK_SECRET": both, "B": f"{both} {SECRET}"})
    assert [endpoint.secrets for endpoint in config.endpoints] == [(OTHER, SECRET)] * 2


def test_plugins_find_their_keys_without_blanks_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CARTESIA_API_KEY=' c '\n")
    found = exported(tmp_path / "config.yaml", {"DEEPGRAM_API_KEY": "d\n", "OPENAI_API_KEY": " \n", "NO_COLOR": ""})
    assert found == {"CARTESIA_API_KEY": "c", "DEEPGRAM_API_KEY": "d", "NO_COLOR": ""}


def test_an_empty_variable_of_the_logs_url_is_refused(path: Path) -> None:
    path.write_text("")
    name, text = "SPEECH_RELAY__OUTBOX__URL", "is empty; write the URL of the log, or unset it"
    with pytest.raises(ConfigError, match=f"^environment: {name}: {text}$"):
        load(path, environ={name: " "})
    path.with_name(".env").write_text(f"{name}=\n")
    with pytest.raises(ConfigError, match=f":1: {name}: {text}$"):
        load(path, environ={})
    assert load(path, environ={name: "sqlite:///a.db"}).outbox.url == "sqlite:///a.db"
