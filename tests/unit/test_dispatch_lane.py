"""What comes next in a lane, and which leases a sweep looks after."""

from dataclasses import replace
from typing import Any

import pytest

from relay.dispatch.admission import Slots
from relay.dispatch.endpoint.route import Route
from relay.dispatch.endpoint.runtime import Connection, EndpointRuntime
from relay.dispatch.http.outcome import Outcome
from relay.dispatch.lanes import HeldLane
from relay.dispatch.leases import lease_ms_for, outlasts_attempt, plan
from relay.dispatch.policy import Dead, Disable, Park, RetryAt, Settle
from relay.dispatch.share import NoFleet, Shares
from relay.dispatch.state import DispatcherState
from relay.dispatch.stream_tail import LENGTH, StreamTail
from relay.dispatch.work import Phase
from relay.errors import ConfigError
from relay.events.catalog import DEFAULT_EVENTS
from relay.outbox.records import Attempt, DeadLetter, Lane, ParkedEvent, Parking, Record, Settlement
from tests.support.builders import a_record as made_at
from tests.support.builders import endpoint
from tests.support.outbox.outbox_store import HandClock

NOW = 1_800_000_000_000


def made(sequence: int, type_: str = "speech.started", *, emitted_at: int = NOW, **about: Any) -> Record:
    return made_at(sequence, type_, emitted_at=emitted_at, **about)


class Nowhere:
    async def post(self, *_: object) -> Outcome:
        raise NotImplementedError

    async def aclose(self) -> None: ...


def route(**settings: Any) -> EndpointRuntime:
    return EndpointRuntime(
        Connection(endpoint(**{"events": DEFAULT_EVENTS, **settings}), lambda _: Nowhere()), Slots(256), HandClock()
    )


def lane(at: EndpointRuntime, tail: StreamTail, cursor: int = 0, **settings: Any) -> HeldLane:
    claimed = Lane(
        id=settings.pop("id", 1), endpoint="crm", stream=1, cursor=cursor, last_sent=0,
        attempts=settings.pop("attempts", 0), fence=1, lease_until=settings.pop("lease_until", NOW + 45_000),
        room=settings.pop("room", "support-42"), participant="alice", failing_since=settings.pop("failing_since", None),
    )  # fmt: skip
    return HeldLane(claimed, at, tail, NOW)


def sequence(held: HeldLane) -> int | None:
    record, _, _ = held.head(NOW)
    return record.sequence if record else None


def test_events_that_are_not_asked_for_are_passed_over() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "vad.speech_started"), made(2, "speech.started"), made(3, "vad.speech_ended")])
    held = lane(route(), tail)
    assert sequence(held) == 2
    assert held.position == 1
    held.advance(made(2))
    assert sequence(held) is None
    assert held.position == 3


def test_what_is_passed_over_is_counted_and_outdated_interims_besides() -> None:
    tail = StreamTail(1, 0)
    old: dict[str, Any] = {"emitted_at": NOW - 60_000, "utterance": "u", "revision": 1}
    tail.extend(
        [made(1, "vad.speech_started"), made(2, "transcript.interim", **old), made(3), made(4, "vad.speech_ended")]
    )
    held = lane(route(), tail)
    assert held.head(NOW) == (tail.get(3), 2, 1)
    assert held.head(NOW) == (tail.get(3), 0, 0), "each once"
    held.advance(made(3))
    assert held.head(NOW) == (None, 1, 0)


def test_a_tail_takes_what_it_is_rung_for_where_nothing_is_missing() -> None:
    tail = StreamTail(1, 0)
    tail.more = False
    tail.take([made(1), made(2)])
    assert (tail.end, tail.more) == (2, False)
    tail.take([made(2), made(3)])
    assert (tail.end, tail.more) == (3, False), "told twice"
    tail.take([made(5)])
    assert (tail.end, tail.more) == (3, True), "the fourth has to be read"
    tail.take([made(4)])
    assert (tail.end, tail.more) == (4, True), "and the fifth still"
    tail.more = False
    tail.take([])
    assert (tail.end, tail.more) == (4, True)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, True),
        ({"rooms": ["support-*"]}, True),
        ({"rooms": ["sales-*"]}, False),
        ({"participants": ["al*"]}, True),
        ({"participants": ["bob"]}, False),
        ({"rooms": ["support-*"], "participants": ["bob"]}, False),
    ],
)
def test_rooms_and_participants_are_filtered(settings: dict[str, Any], wanted: bool) -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1)])
    assert (sequence(lane(route(**settings), tail)) == 1) is wanted


def test_of_the_interims_only_the_newest_is_sent() -> None:
    tail = StreamTail(1, 0)
    tail.extend(made(n, "transcript.interim", utterance="u1", revision=n) for n in range(1, 6))
    tail.extend([made(6, "transcript.interim", utterance="u2", revision=1)])
    held = lane(route(), tail)
    assert sequence(held) == 5
    held.advance(made(5))
    assert sequence(held) == 6


def test_a_final_supersedes_its_interims() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "transcript.interim", utterance="u1", revision=1)])
    held = lane(route(), tail)
    assert sequence(held) == 1
    tail.extend([made(2, "transcript.final", utterance="u1", revision=2)])
    assert sequence(held) == 2


def test_another_event_about_the_utterance_supersedes_nothing() -> None:
    tail = StreamTail(1, 0)
    tail.extend(
        [
            made(1, "transcript.interim", utterance="u1", revision=1),
            made(2, "speech.ended", utterance="u1", revision=2),
        ]
    )
    assert sequence(lane(route(), tail)) == 1


def test_an_expired_interim_is_not_sent() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "transcript.interim", utterance="u", revision=1, emitted_at=NOW - 10_000), made(2)])
    assert sequence(lane(route(), tail)) == 2
    assert sequence(lane(route(interim_ttl="30s"), tail)) == 1


def test_what_was_emptied_is_not_sent_whatever_it_was() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "transcript.final", expires_at=0), made(2)])
    assert sequence(lane(route(events=["*"]), tail)) == 2


def test_the_relays_own_streams_go_to_each_subscriber_of_their_events() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "endpoint.disabled")])
    narrow = route(events=["endpoint.*"], rooms=["support-*"], participants=["bob"])
    assert sequence(lane(narrow, tail, room="")) == 1


def test_a_filter_that_is_changed_holds_for_lanes_that_are_held() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1)])
    at = route(rooms=["sales-*"])
    held = lane(at, tail)
    at.replace_connection(Connection(endpoint(rooms=["support-*"]), lambda _: Nowhere()))
    held.subscribe()
    assert sequence(held) == 1


TRIED = (Attempt(1, 1, 3, NOW, "timeout", None, 15_000.0),)


def test_a_head_that_is_parked_or_dead_counts_as_sent() -> None:
    for verdict in (Park(NOW + 5, 3, "timeout"), Dead(3, "timeout")):
        held = lane(route(), StreamTail(1, 0), attempts=2, failing_since=NOW - 1)
        settlement = held.conclude(made(1), verdict, TRIED, NOW)
        assert (settlement.cursor, settlement.last_sent, settlement.attempts, settlement.next_at) == (1, 1, 0, None)
        assert settlement.tries == TRIED
        if isinstance(verdict, Park):
            assert settlement.parked == Parking(1, 3, "timeout", 0, NOW + 5, NOW)
        else:
            assert settlement.dead == DeadLetter(1, 3, "timeout", 0)


def test_a_head_that_waits_keeps_since_when_it_fails() -> None:
    held = lane(route(), StreamTail(1, 0))
    settlement = held.conclude(made(1), RetryAt(NOW + 5, 1, NOW), TRIED, NOW)
    assert settlement == Settlement(1, 1, 0, 0, 1, NOW + 5, TRIED, failing_since=NOW, failed_at=NOW)


def test_the_head_that_met_a_410_stays_and_is_not_charged() -> None:
    held = lane(route(), StreamTail(1, 0), attempts=2, failing_since=NOW - 1)
    settlement = held.conclude(made(1), Disable("status 410"), TRIED, NOW)
    assert settlement == Settlement(1, 1, 0, 0, 2, NOW, TRIED, failing_since=NOW - 1)


def test_failed_attempts_belong_to_the_event_that_failed() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1, "vad.speech_started"), made(2)])
    held = lane(route(), tail, attempts=7)
    assert sequence(held) == 2
    assert held.attempts == 0


def test_the_tail_keeps_the_newest_and_stays_contiguous() -> None:
    tail = StreamTail(1, 10)
    tail.extend(made(n) for n in range(11, 11 + LENGTH + 5))
    assert (tail.base, tail.end) == (15, 10 + LENGTH + 5)
    assert tail.get(15) is None
    assert [getattr(tail.get(n), "sequence", None) for n in (16, tail.end)] == [16, tail.end]
    tail.extend(made(n) for n in range(tail.end - 2, tail.end + 3))
    assert getattr(tail.get(tail.end), "sequence", None) == tail.end


def test_a_gap_in_the_log_restarts_the_tail() -> None:
    tail = StreamTail(1, 0)
    tail.extend([made(1), made(2), made(9), made(10)])
    assert (tail.base, tail.end) == (8, 10)


def test_a_lane_behind_the_tail_goes_on_with_what_it_read_itself() -> None:
    tail = StreamTail(1, 4)
    tail.extend([made(5), made(6)])
    held = lane(route(), tail)
    assert held.behind_tail()
    assert not held.has_next()
    held.caught_up(made(n) for n in range(1, 6))
    sent = []
    while (record := held.head(NOW)[0]) is not None:
        sent.append(record.sequence)
        held.advance(record)
    assert sent == [1, 2, 3, 4, 5, 6]


def test_where_everything_behind_the_tail_was_purged_the_lane_goes_on_at_the_tail() -> None:
    tail = StreamTail(1, 4)
    tail.extend([made(5)])
    held = lane(route(), tail)
    held.caught_up([])
    assert sequence(held) == 5


def test_any_event_that_waits_for_a_batched_commit_flushes_it_once() -> None:
    tail, flushed = StreamTail(1, 0), []
    tail.more = False
    tail.extend([made(1)])
    held = lane(route(), tail)
    held.conclude(made(1), Settle(delivered=True), TRIED, NOW)
    held.flush_commit = lambda: flushed.append(tail.end)
    held.expedite()
    assert flushed == []
    tail.take([made(2, "transcript.interim", utterance="u", revision=1)])
    held.expedite()
    held.expedite()
    assert flushed == [2]


def test_only_a_durable_event_behind_an_interim_limits_its_attempt() -> None:
    tail, limited = StreamTail(1, 0), []
    tail.extend([made(1, "transcript.interim", utterance="u", revision=1)])
    held = lane(route(), tail)
    held.abort_interim = lambda: limited.append(tail.end)
    tail.extend([made(2, "transcript.interim", utterance="u", revision=2)])
    held.expedite()
    tail.extend([made(3, "vad.speech_started")])  # durable, and not subscribed to
    held.expedite()
    assert limited == []
    tail.extend([made(4)])
    held.expedite()
    held.expedite()
    assert limited == [4]


def test_leases_are_renewed_at_half_time() -> None:
    tail = StreamTail(1, 0)
    fresh = lane(route(), tail, id=1, lease_until=NOW + 30_000)
    due = lane(route(), tail, id=2, lease_until=NOW + 20_000)
    due.phase = Phase.SENDING
    todo = plan([fresh, due], NOW, lease_ms=45_000, linger_ms=10_000)
    assert (todo.renew, todo.release) == ([due], [])


def test_a_lease_that_ran_out_is_never_renewed() -> None:
    lost = lane(route(), StreamTail(1, 0), lease_until=NOW)
    todo = plan([lost], NOW, lease_ms=45_000, linger_ms=10_000)
    assert (todo.renew, todo.release) == ([], [lost])


def test_idle_lanes_are_let_go_when_nothing_is_left_to_read() -> None:
    tail = StreamTail(1, 0)
    idle = lane(route(), tail, lease_until=NOW + 90_000)
    assert plan([idle], NOW + 11_000, lease_ms=45_000, linger_ms=10_000).release == []
    tail.more = False
    assert plan([idle], NOW + 9_000, lease_ms=45_000, linger_ms=10_000).release == []
    assert plan([idle], NOW + 10_000, lease_ms=45_000, linger_ms=10_000).release == [idle]
    idle.phase = Phase.READY
    assert plan([idle], NOW + 10_000, lease_ms=45_000, linger_ms=10_000).release == []


@pytest.mark.parametrize("timeout", [0.1, 5, 15, 60, 600])
def test_at_half_time_a_lease_still_outlasts_an_attempt(timeout: float) -> None:
    held = lane(route(timeout=timeout), StreamTail(1, 0), lease_until=NOW + lease_ms_for(timeout) // 2)
    assert outlasts_attempt(held.lease_until, timeout, NOW)


def test_an_endpoints_own_headers_are_sent() -> None:
    headers = dict(Route(endpoint(headers={"X-Tenant": "acme"})).headers(made(3), b"{}", 2, NOW))
    assert headers[b"x-tenant"] == b"acme"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"relay-previous-sequence"] == b"2"
    assert headers[b"webhook-timestamp"] == b"%d" % (NOW // 1000)
    assert b"webhook-signature" not in headers


def test_an_endpoint_without_a_secret_must_say_so() -> None:
    with pytest.raises(ConfigError, match="signing: none"):
        Route(endpoint(signing="standard"))


async def test_the_number_of_a_stream_may_be_given_again_to_another_one() -> None:
    """As by a standby that has taken over, and lacked the stream. Its lanes have numbers of their own."""
    crm, bi = route(name="crm"), route(name="bi")
    state = DispatcherState([crm, bi], Shares(NoFleet()))
    claimed = Lane(1, "crm", 34, 0, 0, 0, NOW, NOW + 45_000, "support-42", "alice")
    former = [state.adopt(claimed, NOW), state.adopt(replace(claimed, id=2, endpoint="bi"), NOW)]
    former[0].tail.extend([made(1), made(2)])
    now = state.adopt(replace(claimed, id=3, room="sales"), NOW)
    assert [each.phase for each in former] == [Phase.GONE, Phase.GONE]
    assert (list(state.lanes.values()), now.tail.end) == ([now], 0)
    state.drop(now)
    assert (state.lanes, state.tails, state.lanes_by_stream) == ({}, {}, {})


def test_the_newer_claim_of_a_parked_event_outlives_the_former_one() -> None:
    state = DispatcherState([route()], Shares(NoFleet()))
    first = ParkedEvent(
        lane=1, endpoint="crm", stream=1, record=made(1), attempts=1, previous=0, fence=1, lease_until=NOW,
        room="support-42", participant="alice", resend=None,
    )  # fmt: skip
    former, newer = state.adopt_parked(first), state.adopt_parked(replace(first, fence=2))
    assert (former.phase, newer.phase) == (Phase.GONE, Phase.READY)
    state.drop(former)
    assert state.held() == [newer]
