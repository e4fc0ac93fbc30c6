"""A trouble that many tracks share is one line and a count, and a trouble of its own is never held back."""

import logging
from collections.abc import Callable

import pytest

from relay.telemetry.log_dedup import TOGETHER_S, Complaints, Outage

REFUSED = "speech recognition fails: APIStatusError 401 (wrong API key?)"


class Hand:
    """Calls later what it is told to when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def __call__(self, delay: float, call: Callable[[], None]) -> None:
        assert delay == TOGETHER_S
        self.due.append(call)

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


@pytest.fixture
def hand() -> Hand:
    return Hand()


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    return [(record.getMessage(), getattr(record, "stream_id", None)) for record in warnings]


def test_a_wrong_key_in_a_room_of_fifty_is_two_lines(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(hand)
    for number in range(50):
        complaints.warn(f"str_{number}", REFUSED)
    assert lines(caplog) == [(REFUSED, "str_0")]
    hand.pass_time()
    assert lines(caplog)[1:] == [(f"49 times more within 10 s: {REFUSED}", None)]


def test_a_trouble_of_one_track_is_one_line(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    Complaints(hand).warn("str_1", REFUSED)
    hand.pass_time()
    assert lines(caplog) == [(REFUSED, "str_1")]


def test_other_words_are_another_trouble(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(hand)
    complaints.warn("str_1", REFUSED)
    complaints.warn("str_2", "audio stopped coming")
    assert lines(caplog) == [(REFUSED, "str_1"), ("audio stopped coming", "str_2")]


def test_the_same_some_time_later_is_told_again(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints(hand)
    complaints.warn("str_1", REFUSED)
    hand.pass_time()
    complaints.warn("str_1", REFUSED)
    assert lines(caplog) == [(REFUSED, "str_1"), (REFUSED, "str_1")]


def test_an_outage_is_a_line_at_its_start_one_a_minute_and_one_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    outage = Outage(logging.getLogger("relay"), "the log could not be pruned", now=lambda: now)
    with caplog.at_level(logging.INFO):
        outage.over()
        for half in range(260):
            now = half / 2
            outage.failed("connection refused")
        outage.over()
        outage.over()
        outage.failed("connection refused")
    assert caplog.messages == [
        *["the log could not be pruned: connection refused"] * 3,
        "over after 130 s: the log could not be pruned",
        "the log could not be pruned: connection refused",
    ], "a part that tries twice a second must not fill the log while the log's server is away"


def test_an_outage_in_which_some_attempts_succeed_is_over_once_all_do(caplog: pytest.LogCaptureFixture) -> None:
    """On a full disk a round that has nothing to write succeeds."""
    second = 0.0
    outage = Outage(logging.getLogger("relay"), "the log cannot be used", calm_s=10.0, now=lambda: second)
    caplog.set_level(logging.INFO)
    for half in range(20, 80):
        second = half / 2
        outage.failed("disk is full") if second in (10.0, 12.0, 14.0) else outage.over()
    assert caplog.messages == ["the log cannot be used: disk is full", "over after 4 s: the log cannot be used"]


def test_another_reason_within_an_outage_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage(logging.getLogger("relay"), "the log could not be pruned", now=lambda: 0.0)
    for reason in ("connection refused", "disk is full", "connection refused"):
        outage.failed(reason)
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["connection refused", "disk is full"]
