"""The defaults that docs/explanation/delivery.md promises: to change one here, change that page too."""

from datetime import timedelta

from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.dispatch.dispatcher import CONCURRENCY
from relay.dispatch.http.aiohttp_transport import CONNECT_SECONDS
from relay.dispatch.http.bounded_connection import BODY_LIMIT, HEAD_LIMIT
from relay.dispatch.leases import lease_ms_for
from relay.dispatch.policy import RETRY_AFTER_LIMIT_MS
from relay.outbox.log.stream_log import LARGE_BODY, LARGEST_BODY


def test_the_numbers_of_an_endpoint() -> None:
    endpoint = Endpoint.model_validate({"name": "crm", "url": "https://crm.example/hook"})
    numbers = {"timeout", "connect_timeout", "concurrency", "interim_ttl", "retry", "breaker", "disable_after"}
    assert endpoint.model_dump(mode="json", include=numbers) == {
        "timeout": 15,
        "connect_timeout": 5,
        "concurrency": 16,
        "interim_ttl": 10,
        "retry": {
            "schedule": [1, 5, 30, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400],
            "jitter": 0.2,
            "park_after": 300,
        },
        "breaker": {"requests": 10, "failing": 0.7, "window": 300, "rest": 30},
        "disable_after": 432_000,
    }


def test_the_numbers_of_a_process() -> None:
    config = Config()
    assert config.dispatch.concurrency == CONCURRENCY == 256
    assert config.outbox.retention == timedelta(days=7)
    assert CONNECT_SECONDS == 5
    assert RETRY_AFTER_LIMIT_MS == 60 * 60 * 1000
    assert (HEAD_LIMIT, BODY_LIMIT) == (64 * 1024, 16 * 1024)
    assert (LARGE_BODY, LARGEST_BODY) == (20_000, 256 * 1024)


def test_a_lease_is_three_attempts_and_a_second_and_never_under_45_s() -> None:
    assert [lease_ms_for(timeout) for timeout in (0, 14, 15, 60)] == [45_000, 45_000, 46_000, 181_000]
