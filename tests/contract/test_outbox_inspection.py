"""What an operator sees of the log: endpoints, deliveries in every state, events."""

from dataclasses import replace

import pytest

from relay.outbox.operator import event_pages
from relay.outbox.operator.access import Log
from relay.outbox.operator.delivery_pages import DeliveryPosition, position_of, text_of
from relay.outbox.operator.event_pages import EventPage, Position, Selection
from relay.outbox.operator.event_queries import EventFilter
from relay.outbox.operator.views import UNDELIVERED, DeliveryState, DeliveryView
from relay.outbox.records import Health, Settlement
from tests.support.builders import EPOCH_MS, durable, interim, new_stream, overlap, own, run, said, stream_id, track
from tests.support.outbox.outbox_situation import MINUTE, attempt, event, every_state, looking
from tests.support.outbox.outbox_store import Store, claim, settled, the_lane

ALL = tuple(each for each in DeliveryState if each is not DeliveryState.SETTLED)


def everything(_endpoint: str, _room: str, _participant: str, _type: str) -> bool:
    return True


async def test_an_endpoint_shows_what_waits_for_it(store: Store) -> None:
    outbox = await every_state(store)
    health = Health("crm", EPOCH_MS + 5, EPOCH_MS + 1, EPOCH_MS + 6, "status 503")
    await outbox.lanes.note_health([health])
    async with looking(store) as log:
        bi, crm = await log.inspection.endpoints(wanted=everything)
    assert (crm.state.name, crm.state.active, crm.state.last_error) == ("crm", True, "status 503")
    assert (crm.pending, crm.retrying, crm.parked, crm.dead) == (3, 1, 1, 1)
    assert (crm.state.failing_since, crm.oldest_pending) == (EPOCH_MS + 5, EPOCH_MS)
    # six events, and what bi is told about crm: one is parked, one is dead
    assert (bi.pending, bi.retrying, bi.parked, bi.dead, bi.oldest_pending) == (8, 0, 0, 0, EPOCH_MS)


async def test_what_an_endpoint_does_not_ask_for_does_not_wait_for_it(store: Store) -> None:
    await every_state(store)
    async with looking(store) as log:
        bi, crm = await log.inspection.endpoints(
            wanted=lambda name, _r, _p, kind: name == "bi" and kind == "delivery.dead"
        )
    assert (bi.pending, crm.pending, crm.oldest_pending) == (1, 0, None)
    assert (crm.retrying, crm.parked, crm.dead) == (1, 1, 1)


async def test_nothing_waits_for_an_endpoint_that_has_everything(store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    await (await outbox.open_stream(new_stream())).append(run(1, 1, 3))
    lane = await the_lane(outbox.lanes)
    await outbox.lanes.settle(settled(lane, 3))
    async with looking(store) as log:
        (crm,) = await log.inspection.endpoints(wanted=everything)
    assert (crm.pending, crm.oldest_pending) == (0, None)


async def test_an_event_of_every_state_is_listed_as_what_it_is(store: Store) -> None:
    await every_state(store)
    async with looking(store) as log:
        found = await log.inspection.deliveries(ALL, wanted=everything, endpoint="crm")
    assert [(each.state.value, each.sequence, each.attempts, each.reason) for each in found] == [
        ("retrying", 4, 2, "status 503"),
        ("parked", 2, 3, "status 500"),
        ("dead", 3, 12, "connect: refused"),
        ("pending", 5, 0, None),
        ("pending", 6, 0, None),
        ("delivered", 1, 1, None),
    ]
    retrying, parked, dead, pending, _, delivered = found
    times = [each.at - EPOCH_MS - 10 * MINUTE for each in (delivered, parked, dead, retrying)]
    assert times == [0, MINUTE, 2 * MINUTE, 3 * MINUTE - 500]
    assert (pending.at, pending.next_at, dead.next_at) == (EPOCH_MS, None, None)
    assert retrying.next_at == store.clock.at + MINUTE
    assert (dead.event_id, dead.type, dead.room, dead.participant) == (event(3), "stt.speech_started", "room", "alice")


async def test_a_list_of_what_is_settled_has_nothing_that_is_parked_or_dead(store: Store) -> None:
    outbox = await every_state(store)
    lane, _ = await claim(outbox.lanes, "bi")
    ok = attempt(lane, 2, at=EPOCH_MS)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, 2, 2, 0, tries=(ok,)))
    async with looking(store) as log:
        found, after = await log.inspection.delivery_page((DeliveryState.SETTLED,), wanted=everything, limit=9)
        others, _ = await log.inspection.delivery_page(
            (DeliveryState.PARKED, DeliveryState.DEAD), wanted=everything, limit=9
        )
    places = [{(each.endpoint, each.sequence) for each in page} for page in (found, others)]
    assert (places[0] >= {("bi", 1), ("bi", 2)}, len(places[1]), places[0] & places[1], after) == (True, 2, set(), None)


async def test_a_list_is_of_what_is_in_its_state_for_no_longer_and_of_no_more_than_asked(store: Store) -> None:
    await every_state(store)
    two_minutes_ago = store.clock.at - 2 * MINUTE
    async with looking(store) as log:
        recent = await log.inspection.deliveries(ALL, wanted=everything, endpoint="crm", since=two_minutes_ago)
        first = await log.inspection.deliveries(ALL, wanted=everything, limit=2)
        dead = await log.inspection.deliveries([DeliveryState.DEAD], wanted=everything)
    assert [each.state.value for each in recent] == ["retrying", "parked", "dead"]
    assert [each.state.value for each in first] == ["retrying", "parked"]
    assert [each.sequence for each in dead] == [3]


async def test_what_an_endpoint_does_not_ask_for_and_old_interims_are_not_pending(store: Store) -> None:
    outbox = await every_state(store)
    log_of_two = await outbox.open_stream(new_stream(2))
    now = store.clock.at
    await log_of_two.append([interim(2, 1, revision=1), interim(2, 2, revision=2, at=now), *run(2, 3, 3)])
    async with looking(store) as log:
        asked_for = await log.inspection.deliveries(
            [DeliveryState.PENDING], wanted=lambda _e, _r, _p, kind: kind.startswith("transcript."), endpoint="crm"
        )
        # whatever is asked for now: what failed, failed
        failed = await log.inspection.deliveries(UNDELIVERED, wanted=lambda *_: False, endpoint="crm")
    assert [(each.stream_id, each.sequence) for each in asked_for] == [(stream_id(2), 2)]
    assert [each.state.value for each in failed] == ["retrying", "parked", "dead"]


async def test_an_event_is_shown_with_where_it_stands_and_every_attempt(store: Store) -> None:
    await every_state(store)
    async with looking(store) as log:
        shown = [await log.inspection.delivery(event(sequence)) for sequence in range(1, 7)]
        for_bi = await log.inspection.delivery(event(1), endpoint="bi")
    states = [tuple((each.endpoint, each.state.value) for each in one.deliveries) for one in shown if one]
    assert states == [
        (("bi", "pending"), ("crm", crm)) for crm in ("delivered", "parked", "dead", "retrying", "pending", "pending")
    ]
    tried = [[(each.number, each.stage, each.status) for each in one.attempts] for one in shown if one]
    assert tried == [
        [(1, "ok", 200)],
        [(3, "status", 500)],
        [(12, "connect", None)],
        [(1, "status", 429), (2, "status", 503)],
        [],
        [],
    ]
    assert for_bi is not None
    assert [each.endpoint for each in for_bi.deliveries] == ["bi"]


@pytest.mark.parametrize("back_by", [0, 30 * MINUTE, 24 * 60 * MINUTE])
async def test_a_delivery_is_found_among_many_attempts_also_after_the_clock_was_set_back(
    store: Store, back_by: int
) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log_of_one = await outbox.open_stream(new_stream())
    await log_of_one.append(run(1, 1, 40))
    lane = await the_lane(outbox.lanes)
    for sequence in range(1, 41):
        back = -back_by if sequence > 5 else 0
        tries = (attempt(lane, sequence, at=EPOCH_MS + sequence * MINUTE + back),)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, sequence, sequence, 0, tries=tries))
    async with looking(store) as log:
        for sequence in (1, 20, 21, 40):
            shown = await log.inspection.delivery(event(sequence))
            assert shown is not None
            assert [each.state for each in shown.deliveries] == [DeliveryState.DELIVERED]
        newest = await log.inspection.deliveries([DeliveryState.DELIVERED], wanted=everything, limit=3)
    assert [each.sequence for each in newest] == [40, 39, 38]


async def test_what_was_passed_over_is_settled_and_no_event_is_made_up(store: Store) -> None:
    outbox = await every_state(store)
    lane, _ = await claim(outbox.lanes, "bi")
    await outbox.lanes.settle(settled(lane, 6))
    async with looking(store) as log:
        shown = await log.inspection.delivery(event(1), endpoint="bi")
        assert shown is not None
        assert [each.state for each in shown.deliveries] == [DeliveryState.SETTLED]
        for none in (event(7), "evt_nonsense", "evt__1", f"evt_{stream_id(1).removeprefix('str_')}_01", "7"):
            assert await log.inspection.delivery(none) is None
            assert await log.inspection.event(none) is None


async def test_attempts_are_followed_as_they_are_recorded(store: Store) -> None:
    outbox = await every_state(store)
    async with looking(store) as log:
        behind = await log.inspection.newest_attempt()
        assert await log.inspection.attempts(behind=behind) == []
        lane, _ = await claim(outbox.lanes, "bi")
        tries = (attempt(lane, 1, at=5),)
        await outbox.lanes.settle(Settlement(lane.id, lane.fence, 1, 1, 0, tries=tries))
        (new,) = await log.inspection.attempts(behind=behind)
        assert (new.endpoint, new.event_id, new.at, new.elapsed_ms) == ("bi", event(1), 5, 12.5)
        assert await log.inspection.attempts(behind=behind, endpoint="crm") == []
        assert await log.inspection.attempts(behind=new.n) == []


async def test_the_newest_events_of_all_streams_come_first(store: Store) -> None:
    outbox = await store.open()
    for number, identity in ((1, "alice"), (2, "bob"), (3, "carol")):
        log_of_one = await outbox.open_stream(track(number, identity, "lobby" if number == 3 else "room"))
        await log_of_one.append(
            [said(number, n, identity, f"{identity} {n}", at=EPOCH_MS + 10 * n + number) for n in range(1, 5)]
        )
    async with looking(store) as log:
        newest = await log.inspection.events(EventFilter(), limit=5)
        three = await log.inspection.events(EventFilter(), limit=3)
        recent = await log.inspection.events(EventFilter(), since=EPOCH_MS + 42)
        of_bob = await log.inspection.events(EventFilter(participant="b*"), limit=2)
        in_lobby = await log.inspection.events(EventFilter(room="l?bby", types=["transcript.final"]))
        of_none = await log.inspection.events(EventFilter(types=["stream.started"]))
        one = await log.inspection.event(event(2))
    heads = [(each.participant, each.sequence) for each in newest]
    assert heads == [("carol", 4), ("bob", 4), ("alice", 4), ("carol", 3), ("bob", 3)]
    assert [(each.participant, each.sequence) for each in three] == heads[:3]
    assert [(each.participant, each.sequence) for each in recent] == heads[:2]
    assert [(each.participant, each.sequence) for each in of_bob] == [("bob", 4), ("bob", 3)]
    assert [each.sequence for each in in_lobby] == [4, 3, 2, 1]
    assert of_none == []
    assert one is not None
    assert b"alice 2" in one.body


async def test_pages_have_events_that_are_older_than_their_stream(store: Store) -> None:
    """As those of a room's own stream, which wait for it to be opened."""
    outbox = await store.open()
    alice = await outbox.open_stream(track(1, "alice"))
    await alice.append([said(1, n, "alice", "hello", at=EPOCH_MS + 1000 * n) for n in (1, 2)])
    store.clock.at += 10_000
    of_room = await outbox.open_stream(own(2))
    await of_room.append([overlap(2, 1, "alice", "bob", at=EPOCH_MS + 1500)])
    async with looking(store) as log:
        found = await paged(log, Selection(lambda _room, _identity: True), limit=1)
    assert found == [(1, 2), (2, 1), (1, 1)]


async def test_pages_have_events_of_one_moment_in_the_order_of_their_streams(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = await store.open()
    for number, times in ((1, (0, 0, 1)), (2, (0,)), (3, (0, 0))):
        log_of_one = await outbox.open_stream(new_stream(number))
        await log_of_one.append([durable(number, n, at=EPOCH_MS + at) for n, at in enumerate(times, 1)])
    which = Selection(lambda _room, _identity: True)
    async with looking(store) as log:
        found = await paged(log, which, limit=1)
        newest = await log.browsing.events(which, before=None, since=EPOCH_MS + 1, limit=9)
        monkeypatch.setattr(event_pages, "SCANNED", 2)
        seen = await paged(log, which, limit=9)
        none = await log.browsing.events(replace(which, types=["ping"]), before=None, since=0, limit=9)
    assert found == seen == [(1, 3), (3, 2), (3, 1), (2, 1), (1, 2), (1, 1)]
    assert [each.sequence for each in newest.events] == [3]
    assert (none.events, none.next) == ([], Position(EPOCH_MS, 3, 2)), "a call reads so many events, and no more"


async def test_a_call_reads_so_much_of_a_stream_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = await store.open()
    await (await outbox.open_stream(new_stream())).append(run(1, 1, 5))
    store.execute("UPDATE events SET body = '' WHERE sequence = 2")
    which = Selection(lambda _room, _identity: True)
    async with looking(store) as log:
        whole = await log.browsing.stream(stream_id(1), which, after=0, limit=3)
        monkeypatch.setattr(event_pages, "BYTES", 1)
        one = await log.browsing.stream(stream_id(1), which, after=0, limit=3)
        monkeypatch.setattr(event_pages, "CHUNK", 1)
        monkeypatch.setattr(event_pages, "SCANNED", 2)
        none = await log.browsing.stream(stream_id(1), replace(which, types=["ping"]), after=0, limit=3)
    pages = [([each.sequence for each in page.events], page.next) for page in (whole, one, none) if page]
    assert pages == [([1, 3, 4], 4), ([1], 1), ([], 2)]


async def test_pages_have_each_event_once_though_one_of_them_is_pruned_meanwhile(store: Store) -> None:
    outbox = await store.open()
    await (await outbox.open_stream(new_stream())).append(run(1, 1, 6))

    class Types(frozenset[str]):
        def __contains__(self, event_type: object) -> bool:
            store.execute("DELETE FROM events WHERE sequence = 5")
            return True

    async with looking(store) as log:
        found = await paged(log, Selection(lambda _room, _identity: True, Types()), limit=4)
    assert [sequence for _, sequence in found if sequence != 5] == [6, 4, 3, 2, 1]


async def paged(log: Log, which: Selection, *, limit: int) -> list[tuple[int, int]]:
    """The stream and sequence of each event, newest first."""
    found: list[tuple[int, int]] = []
    page = EventPage((), Position(1 << 60, 0, 0))
    while page.next is not None:
        page = await log.browsing.events(which, before=page.next, since=0, limit=limit)
        found += [(int(each.stream_id.removeprefix("str_")), each.sequence) for each in page.events]
    return found


async def test_a_tail_shows_each_event_once_even_of_streams_that_end_between_polls(
    store: Store,
) -> None:
    outbox = await store.open()
    first = await outbox.open_stream(track(1, "alice"))
    await first.append([said(1, 1, "alice", "before")])
    closed = await outbox.open_stream(track(9, "zoe"))
    await closed.append([said(9, 1, "zoe", "before")])
    await closed.abandon()
    async with looking(store) as log:
        tail = await log.inspection.tail(EventFilter(participant="[abz]*"))
        assert await log.inspection.appended(tail) == []
        await first.append([said(1, 2, "alice", "now")])
        short = await outbox.open_stream(track(2, "bob"))
        await short.append([said(2, 1, "bob", "hi")])
        await short.abandon()
        of_room = await outbox.open_stream(own(3))
        await of_room.append([overlap(3, 1, "alice", "bob")])
        told = await log.inspection.appended(tail)
        assert [(each.participant, each.sequence) for each in told] == [("alice", 2), ("bob", 1)]
        assert await log.inspection.appended(tail) == []
        await first.append([said(1, 3, "alice", "last")])
        await first.abandon()
        assert [each.sequence for each in await log.inspection.appended(tail)] == [3]
        assert await log.inspection.appended(tail) == []


@pytest.mark.parametrize("scan", [None, 1, 2, 50])
async def test_pages_of_deliveries_have_each_once_whatever_their_size(store: Store, scan: int | None) -> None:
    await every_state(store)
    every_one = list(DeliveryState)
    async with looking(store) as log:
        whole = await log.inspection.deliveries(every_one, wanted=everything, limit=100)
        for limit in (1, 2, 3, 100):
            paged: list[DeliveryView] = []
            after: DeliveryPosition | None = None
            while True:
                found, after = await log.inspection.delivery_page(
                    every_one, wanted=everything, limit=limit, after=after, scan=scan
                )
                assert len(found) <= limit
                paged += found
                if after is None:
                    break
                assert position_of(text_of(after)) == after
            assert paged == whole
    assert len({(each.endpoint, each.state, each.event_id) for each in whole}) == len(whole) > 12


@pytest.mark.parametrize("text", ["", "pending", "pending.1", "pending.x.1", "none.1.1", "dead.1.2", "dead.-1.2.3"])
def test_another_text_is_no_position(text: str) -> None:
    assert position_of(text) is None


async def test_a_long_backlog_is_counted_up_to_a_limit(store: Store) -> None:
    await every_state(store)
    async with looking(store) as log:
        (bi,) = await log.inspection.endpoints(wanted=everything, names=["bi", "none"], most=4)
        (all_of_bi,) = await log.inspection.endpoints(wanted=everything, names=["bi"], most=9)
    assert (bi.pending, bi.more_pending) == (4, True)
    assert (all_of_bi.pending, all_of_bi.more_pending) == (8, False)
