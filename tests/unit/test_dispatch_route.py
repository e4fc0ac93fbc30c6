"""The headers of a request: what the relay sets, how it signs, and what an operator may add."""

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from livekit.api import TokenVerifier, WebhookReceiver
from pydantic import ValidationError

from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.projection import Projections
from relay.dispatch.signing import LiveKitSigner
from relay.errors import ConfigError
from relay.events.samples import SAMPLES
from relay.events.speech import TranscriptFinal
from relay.outbox.records import record
from tests.support.builders import a_record
from tests.support.cli import SECRET

KEY = {"api_key": "APIkey", "api_secret": "a secret of LiveKit's, of more than 32 bytes"}
LIVEKIT = {"signing": "livekit", "livekit_key": KEY}


FINAL = TranscriptFinal.model_validate_json(SAMPLES["transcript.final"].model_dump_json())


def route(**settings: Any) -> Route:
    return Route(Endpoint.model_validate({"name": "crm", "url": "https://crm.example.com/", **settings}))


def headers(made_ready: Route, body: bytes, now_ms: int) -> dict[str, str]:
    pairs = made_ready.headers(a_record(1, "transcript.final"), body, 7, now_ms)
    assert len({name for name, _ in pairs}) == len(pairs), "a header twice"
    return {name.decode(): value.decode() for name, value in pairs}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_header_values_outside_ascii_are_utf8_once() -> None:
    pairs = route(signing="none", headers={"X-Place": "café", "X-Sign": " ☎ "}).headers(
        a_record(1, "transcript.final"), b"{}", 0, 0
    )
    assert {name: value for name, value in pairs if name.startswith(b"x-")} == {
        b"x-place": b"caf\xc3\xa9",
        b"x-sign": b"\xe2\x98\x8e",
    }


class TestLiveKit:
    receiver = WebhookReceiver(TokenVerifier(KEY["api_key"], KEY["api_secret"]))

    @pytest.mark.parametrize("name", SAMPLES)
    def test_livekits_own_receiver_takes_every_event(self, name: str) -> None:
        body = SAMPLES[name].model_dump_json().encode()
        sent = headers(route(**LIVEKIT), body, now_ms())
        assert sent["content-type"] == "application/webhook+json"
        assert self.receiver.receive(body.decode(), sent["authorization"]).id == SAMPLES[name].id

    def test_another_body_is_refused(self) -> None:
        body = SAMPLES["transcript.final"].model_dump_json()
        token = headers(route(**LIVEKIT), body.encode(), now_ms())["authorization"]
        with pytest.raises(Exception, match="hash mismatch"):
            self.receiver.receive(body + " ", token)

    @pytest.mark.parametrize("other", [{"api_secret": "another secret of more than 32 bytes"}, {"api_key": "APIother"}])
    def test_another_key_is_refused(self, other: dict[str, str]) -> None:
        body = SAMPLES["ping"].model_dump_json()
        token = headers(route(signing="livekit", livekit_key={**KEY, **other}), body.encode(), now_ms())[
            "authorization"
        ]
        with pytest.raises(jwt.InvalidTokenError):
            self.receiver.receive(body, token)

    def test_a_recorded_webhook_cannot_be_sent_again_later(self) -> None:
        body = SAMPLES["ping"].model_dump_json()
        token = headers(route(**LIVEKIT), body.encode(), now_ms() - 3_600_000)["authorization"]
        with pytest.raises(jwt.ExpiredSignatureError):
            self.receiver.receive(body, token)

    def test_the_claims_are_those_of_livekits_server(self) -> None:
        """``webhook/url_notifier.go`` of livekit/protocol."""
        token = LiveKitSigner(KEY["api_key"], KEY["api_secret"]).authorization(1_800_000_000, b"{}")
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
        assert jwt.decode(token, options={"verify_signature": False}) == {
            "iss": "APIkey",
            "iat": 1_800_000_000,
            "nbf": 1_800_000_000,
            "exp": 1_800_000_300,
            "sha256": base64.b64encode(hashlib.sha256(b"{}").digest()).decode(),
        }

    def test_the_headers_of_every_delivery_are_there_too(self) -> None:
        sent = headers(route(**LIVEKIT), b"{}", 1_800_000_000_500)
        assert (sent["webhook-id"], sent["webhook-timestamp"]) == (a_record(1, "transcript.final").id, "1800000000")
        assert sent["relay-previous-sequence"] == "7"
        assert "webhook-signature" not in sent

    def test_without_a_key_nothing_is_sent_unsigned(self) -> None:
        with pytest.raises(ConfigError, match="endpoint crm has no livekit_key"):
            route(signing="livekit")

    def test_no_other_authorization_beside_it(self) -> None:
        with pytest.raises(ValidationError, match="Authorization, which signing: livekit sets"):
            route(**LIVEKIT, headers={"authorization": "Bearer x"})

    def test_the_secret_is_in_no_text(self) -> None:
        assert KEY["api_secret"] not in repr(route(**LIVEKIT).config)


@pytest.mark.parametrize(
    "name",
    ["Content-Type", "CONTENT-LENGTH", "Accept-Encoding", "User-Agent", "Host", "Transfer-Encoding", "Connection", "TE",
     "Webhook-Signature", "webhook-id", "Relay-Previous-Sequence", "Expect"],
)  # fmt: skip
def test_a_header_of_the_relays_own_cannot_be_overridden(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} is set by the relay itself"):
        route(signing="none", headers={name: "x"})


def test_headers_of_the_operators_own_are_sent() -> None:
    sent = headers(route(signing="none", headers={"X-Tenant": "acme", "Authorization": "Bearer x"}), b"{}", now_ms())
    assert (sent["x-tenant"], sent["authorization"]) == ("acme", "Bearer x")
    assert (sent["content-type"], sent["accept-encoding"]) == ("application/json", "identity")


@pytest.mark.parametrize("settings", [{"secret": SECRET}, LIVEKIT, {"signing": "none"}])
def test_the_content_type_of_a_cloudevent_with_each_signature(settings: dict[str, Any]) -> None:
    sent = headers(route(**settings, format="cloudevents"), b"{}", now_ms())
    assert sent["content-type"] == "application/cloudevents+json"


def test_a_cloudevent_is_signed_as_it_is_sent() -> None:
    made_ready = route(**LIVEKIT, format="cloudevents", include={"text": False})
    body = Projections().of(record(FINAL), made_ready.shape)
    token = headers(made_ready, body, now_ms())["authorization"]
    assert TestLiveKit.receiver.receive(body.decode(), token)
    assert json.loads(body)["data"]["data"]["text"] == ""
