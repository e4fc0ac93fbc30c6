"""When a failing source is tried again, which of its failures are reported, and what is logged of an error."""

import pytest

from relay.capture.health.error_guard import ErrorGuard
from relay.capture.health.outages import RECONNECT_S, Backoff, Outages, RetriedSource
from relay.clock import SystemClock
from relay.speech.observations import SourceDown, SourceUp


class Ledger:
    """One source of speech recognition, and what is reported about it."""

    def __init__(self) -> None:
        self.reported: list[SourceDown | SourceUp] = []
        self.words: list[str] = []
        self.source = RetriedSource("stt", Outages(SystemClock(), self.reported.append, self.words.append))


def test_the_waits_grow_and_the_last_one_repeats_until_a_success() -> None:
    backoff = Backoff((1.0, 2.0, 5.0))
    assert [backoff.wait_s() for _ in range(5)] == [1.0, 2.0, 5.0, 5.0, 5.0]
    assert backoff.failures == 5
    backoff.reset()
    assert (backoff.failures, backoff.wait_s()) == (0, 1.0)


def test_a_failure_that_the_first_retry_resolves_is_not_reported() -> None:
    ledger = Ledger()
    ledger.source.failed(10.0, "lost", "failed")
    assert ledger.source.wait_until == 10.0 + RECONNECT_S[0]
    ledger.source.recovered()
    assert not ledger.reported


def test_a_second_failure_in_a_row_is_an_outage_since_the_first() -> None:
    ledger = Ledger()
    before = SystemClock().now_ms()
    ledger.source.failed(10.0, "lost", "failed once")
    ledger.source.failed(14.0, "unreachable", "failed twice")
    ledger.source.missed(8_000)
    ledger.source.missed(8_000)
    ledger.source.recovered()
    down, up = ledger.reported
    assert isinstance(down, SourceDown)
    assert isinstance(up, SourceUp)
    assert (down.reason, up.missed_ms) == ("unreachable", 1_000)
    assert down.failed_at <= before - 3_900
    assert ledger.words == ["failed twice"]


@pytest.mark.parametrize(("reason", "certain"), [("refused", False), ("lost", True)])
def test_a_refusal_and_a_certain_outage_are_reported_at_once(reason: str, certain: bool) -> None:
    ledger = Ledger()
    ledger.source.failed(0.0, reason, "failed", certain=certain)  # type: ignore[arg-type]  # a parameter of the test
    ledger.source.recovered()
    assert [type(each) for each in ledger.reported] == [SourceDown, SourceUp]
    assert isinstance(up := ledger.reported[1], SourceUp)
    assert up.missed_ms is None, "unknown"


def test_an_error_is_logged_with_its_place_and_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    guard = ErrorGuard()

    def fails() -> None:
        raise TypeError("what alice said")

    guard(fails)()
    guard(fails)()
    assert guard.failures == 2
    assert [record.getMessage().count("TypeError at test_capture_retries.py:") for record in caplog.records] == [1, 1]
    assert "alice" not in caplog.text
