"""Our signatures against the independent implementation on PyPI."""

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from relay.dispatch.signing import Signer, new_secret, parse_secret

BODY = '{"data":{"text":"naïve café"}}'.encode()


def headers(secrets: list[str], now: int) -> dict[str, str]:
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now),
        "webhook-signature": Signer(secrets).signature(b"evt_1", now, BODY).decode(),
    }


def test_an_independent_verifier_accepts_what_we_sign() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, headers([secret], int(time.time())))


def test_each_of_several_secrets_verifies_while_rotating() -> None:
    old, new = new_secret(), new_secret()
    signed = headers([new, old], int(time.time()))
    assert signed["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, signed)


def test_another_body_or_another_secret_does_not_verify() -> None:
    secret = new_secret()
    signed = headers([secret], int(time.time()))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(BODY + b" ", signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, signed)


def test_the_vector_of_the_specification() -> None:
    """The example of https://docs.svix.com/receiving/verifying-payloads/how-manual."""
    signer = Signer(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
    signed = signer.signature(b"msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_may_come_without_padding() -> None:
    key = bytes(range(25))
    assert parse_secret("whsec_" + base64.b64encode(key).decode().rstrip("=")) == key


@pytest.mark.parametrize("size", [24, 64])
def test_a_secret_of_an_allowed_length_is_accepted(size: int) -> None:
    assert parse_secret("whsec_" + base64.b64encode(bytes(size)).decode()) == bytes(size)


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ("hunter2hunter2hunter2hunter2", "starts with 'whsec_'"),
        ("whsec_not base64 at all!!", "not base64"),
        ("whsec_" + base64.b64encode(b"short").decode(), "24 to 64 bytes, this one for 5"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
    ],
)
def test_a_bad_secret_is_refused_without_being_repeated(secret: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refusal:
        parse_secret(secret)
    assert secret.removeprefix("whsec_") not in str(refusal.value)
