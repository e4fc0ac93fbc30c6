"""What the sections ``api`` and ``admin`` come to."""

from pathlib import Path

import pytest

from relay.cli.output.plan import plan, sentences
from relay.config.api import listening
from relay.config.load import load
from relay.config.models import Config
from relay.config.problems import Mistakes

TOKEN = "t" * 32
ENDPOINT = "endpoints: [{name: crm, url: 'http://a', signing: none}]"


def loaded(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return load(path, environ={"TOKEN": TOKEN})


@pytest.mark.parametrize(
    ("text", "address", "api", "demands_token"),
    [
        ("", "127.0.0.1:8790", False, False),
        ("admin: {listen: 0.0.0.0:1}", "0.0.0.0:1", False, True),
        ("api: {listen: 127.0.0.1:1}", "127.0.0.1:1", True, False),
        ("api: {listen: '[::1]:1'}", "[::1]:1", True, False),
        ("api: {listen: localhost:1}", "localhost:1", True, False),
        ("api: {listen: 0.0.0.0:1}", "0.0.0.0:1", True, True),
        ("api: {listen: relay:1}\nadmin: {listen: 127.0.0.1:2}", "relay:1", True, True),
        ("api: {tokens: [{name: a, token: '${TOKEN}'}]}", "127.0.0.1:8790", True, True),
    ],
)
def test_the_api_is_off_unless_named_and_asks_for_a_token(
    tmp_path: Path, text: str, address: str, api: bool, demands_token: bool
) -> None:
    config = loaded(tmp_path, text)
    found = listening(config.api, config.admin)
    assert found is not None
    assert (found.address, found.api, found.demands_token) == (address, api, demands_token)


@pytest.mark.parametrize(
    ("text", "key"), [("", "api.listen"), ("admin: {listen: 127.0.0.1:1}", "admin.listen"), ("api: {}", "api.listen")]
)
def test_an_address_is_called_by_the_name_that_its_user_knows(tmp_path: Path, text: str, key: str) -> None:
    config = loaded(tmp_path, text)
    found = listening(config.api, config.admin)
    assert found is not None
    assert found.key == key


@pytest.mark.parametrize("text", ["admin: {listen: null}", "api: {listen: null}\nadmin: {listen: 127.0.0.1:1}"])
def test_nothing_listens_where_the_address_is_null(tmp_path: Path, text: str) -> None:
    config = loaded(tmp_path, text)
    assert listening(config.api, config.admin) is None


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        ("admin: {listen: 127.0.0.1:1}", "admin is the former name of the section api"),
        ("admin: {listen: 127.0.0.1:1}\napi: {listen: 127.0.0.1:1}", "The section admin is ignored beside api"),
        ("api: {listen: 0.0.0.0:1}", "Refuses every request to /v1 at 0.0.0.0:1"),
        ("api: {}", "to everyone on this machine at 127.0.0.1:8790"),
        (
            "api: {livekit_webhook: true}",
            "webhook to 127.0.0.1:8790/v1/livekit/webhook names it, and at all rooms every",
        ),
    ],
)
def test_what_is_served_and_the_former_name_are_said(tmp_path: Path, text: str, notice: str) -> None:
    assert any(notice in sentence for sentence in sentences(loaded(tmp_path, text)))


def test_no_token_is_shown_by_the_plan(tmp_path: Path) -> None:
    config = loaded(tmp_path, "api: {tokens: [{name: a, token: '${TOKEN}'}]}")
    assert TOKEN not in f"{plan(config)}{sentences(config)}{config!r}"


@pytest.mark.parametrize(
    ("tokens", "line"),
    [
        ("[{name: a, token: short}]", "api.tokens[0].token: not a token: at least 24 letters"),
        ("[{name: a, token: '${TOKEN}', endpoint: x}]", "api.tokens[0].endpoint: no endpoint has this name"),
        ("[{name: a, token: '${TOKEN}'}, {name: a, token: '${TOKEN}x'}]", "api.tokens[1].name: another token has this"),
        ("[{name: a, token: '${TOKEN}'}, {name: b, token: '${TOKEN}'}]", "api.tokens[1].token: another token is the"),
    ],
)
def test_a_token_that_cannot_be_used_is_a_mistake(tmp_path: Path, tokens: str, line: str) -> None:
    with pytest.raises(Mistakes) as raised:
        loaded(tmp_path, f"{ENDPOINT}\napi: {{tokens: {tokens}}}")
    assert line in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_an_endpoint_whose_name_is_no_text_is_a_mistake_beside_tokens(tmp_path: Path) -> None:
    text = f"endpoints: [{{name: {{a: b}}}}]\napi: {{tokens: [{{name: a, token: '{TOKEN}', endpoint: x}}]}}"
    with pytest.raises(Mistakes, match=r"endpoints\[0\]\.name"):
        loaded(tmp_path, text)
