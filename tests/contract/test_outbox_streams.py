"""What a writer may rely on: order, durability, one writer a stream."""

import asyncio
import gc
from pathlib import Path

import pytest

from relay.errors import Fenced, OutboxError, StreamTaken
from relay.outbox.operator.access import open_log
from relay.outbox.records import Append, NewStream, record
from tests.support.builders import durable, ended, interim, new_stream, run, stream_id
from tests.support.outbox.outbox_store import Store, sqlite


async def test_what_was_appended_is_read_back_as_it_was(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    events = [durable(1, 1), interim(1, 2, revision=1), ended(1, 3)]
    await log.append(events[:2])
    await log.append(events[2:])
    assert await outbox.history(log.id) == [record(event) for event in events]


async def test_history_by_type_and_place(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1), interim(1, 2, revision=1), durable(1, 3), durable(1, 4)])
    found = await outbox.history(log.id, types=["stt.speech_started"], after=1, limit=1)
    assert [one.sequence for one in found] == [3]
    assert await outbox.history(stream_id(2)) == []


async def test_appends_that_nobody_waits_for_stay_in_order(store: Store) -> None:
    outbox = await store.open()
    logs = [await outbox.open_stream(new_stream(number)) for number in range(1, 6)]
    appends = [
        log.append([durable(number, sequence)]) for sequence in range(1, 101) for number, log in enumerate(logs, 1)
    ]
    await asyncio.gather(*appends)
    for log in logs:
        assert [one.sequence for one in await outbox.history(log.id)] == list(range(1, 101))


async def test_a_gap_is_refused_and_nothing_of_it_is_queued(store: Store) -> None:
    log = await (await store.open()).open_stream(new_stream())
    for wrong in ([durable(1, 2)], [durable(1, 1), durable(1, 3)], [durable(1, 1), durable(1, 1)]):
        with pytest.raises(ValueError, match="goes on with sequence"):
            log.append(wrong)
    await log.append([durable(1, 1)])
    assert log.last_sequence == 1


async def test_nothing_follows_the_last_event(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    with pytest.raises(ValueError, match="is closed"):
        log.append([ended(1, 1), durable(1, 2)])
    await log.append([ended(1, 1)])
    with pytest.raises(ValueError, match="is closed"):
        log.append([durable(1, 2)])


@pytest.mark.parametrize("together", [1, 3])
async def test_the_database_itself_refuses_what_follows_the_last_event(store: Store, together: int) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append([*run(1, 1, together - 1), ended(1, together)])
    records = [record(event) for event in run(1, together + 1, 2 * together)]
    with pytest.raises(Fenced):
        await outbox._commit.append(Append(1, fence=log._fence, records=records))
    assert len(await outbox.history(log.id)) == together


@pytest.mark.parametrize("sequences", [(1,), (3,), (3, 4)])
async def test_the_database_itself_refuses_what_does_not_go_on_from_the_last(
    store: Store, sequences: tuple[int, ...]
) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    records = [record(durable(1, sequence, size=10)) for sequence in sequences]
    with pytest.raises(Fenced):
        await outbox._commit.append(Append(1, fence=log._fence, records=records))
    assert await outbox.history(log.id) == [record(durable(1, 1))]
    await log.append([durable(1, 2)])


async def test_an_append_that_was_committed_although_it_seemed_to_fail_may_be_repeated(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    records = [record(event) for event in run(1, 1, 3)]
    await outbox._commit.append(Append(1, fence=log._fence, records=records))
    await outbox._commit.append(Append(1, fence=log._fence, records=records[2:]))
    assert await outbox.history(log.id) == records


async def test_an_event_of_another_stream_is_refused(store: Store) -> None:
    log = await (await store.open()).open_stream(new_stream())
    with pytest.raises(ValueError, match="another stream"):
        log.append([durable(2, 1)])


async def test_a_track_is_listened_to_once_at_a_time(store: Store) -> None:
    first, second = await store.open("a"), await store.open("b")
    opened = await asyncio.gather(
        first.open_stream(new_stream(1, track="TR")),
        second.open_stream(new_stream(2, track="TR")),
        return_exceptions=True,
    )
    (log,) = [one for one in opened if not isinstance(one, BaseException)]
    (refused,) = [one for one in opened if isinstance(one, BaseException)]
    assert isinstance(refused, StreamTaken)
    number = 1 if log.id == stream_id(1) else 2
    await log.append([ended(number, 1)])
    await second.open_stream(new_stream(3, track="TR"))


async def test_a_refused_stream_does_not_fail_what_is_committed_with_it(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(new_stream())
    taken = [outbox.open_stream(new_stream(number, track="TR_1")) for number in (2, 3)]
    append = log.append([durable(1, 1)])
    refused = await asyncio.gather(*taken, return_exceptions=True)
    assert [type(one) for one in refused] == [StreamTaken, StreamTaken]
    await append
    assert len(await outbox.history(log.id)) == 1


async def test_streams_of_a_silent_writer_are_orphans_and_can_be_taken_over_once(store: Store) -> None:
    former, second, third = [await store.open(name) for name in ("a", "b", "c")]
    log = await former.open_stream(new_stream())
    await log.append(run(1, 1, 3))
    with pytest.raises(StreamTaken):
        await second.take_over(log.id)
    assert await second.orphans() == []

    store.clock.at += 6_001
    assert await second.orphans() == [log.id]
    await log.append([durable(1, 4)])  # silent, but nobody has taken its place

    taken = await second.take_over(log.id)
    assert taken.last_sequence == 4
    with pytest.raises(StreamTaken):
        await third.take_over(log.id)
    with pytest.raises(Fenced):
        await log.append([durable(1, 5)])
    await taken.append([ended(1, 5)])
    assert await third.orphans() == []
    with pytest.raises(Fenced):
        await third.take_over(log.id)
    assert [one.sequence for one in await third.history(log.id)] == [1, 2, 3, 4, 5]


async def test_when_a_writer_last_gave_a_sign_of_life_is_known_until_its_lease_is_ended(store: Store) -> None:
    former, second = await store.open("a"), await store.open("b")
    log = await former.open_stream(new_stream(1))
    began = store.clock.at
    store.clock.at += 1_500
    await former.open_stream(new_stream(2))  # which renews the lease
    await (await former.open_stream(new_stream(3))).append([ended(3, 1)])
    store.clock.at += 6_001
    assert await second.last_beats() == {log.id: began + 1_500, stream_id(2): began + 1_500}
    await second.take_over(stream_id(2))
    assert await second.last_beats() == {log.id: began + 1_500}, "who took it over has not listened"
    await second.end_leases(["a"])
    assert await second.last_beats() == {}


async def test_a_fenced_writer_does_not_fail_its_neighbours(store: Store) -> None:
    former, second = await store.open("a"), await store.open("b")
    lost = await former.open_stream(new_stream(1))
    kept = await former.open_stream(new_stream(2))
    store.clock.at += 6_001
    await second.take_over(lost.id)
    outcomes = await asyncio.gather(lost.append(run(1, 1, 2)), kept.append(run(2, 1, 2)), return_exceptions=True)
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] is None


async def test_a_lease_is_renewed_while_the_process_lives(store: Store) -> None:
    outbox, other = await store.open("a", lease_ms=90), await store.open("b")
    log = await outbox.open_stream(new_stream())
    store.clock.at += 91
    async with asyncio.timeout(30):
        while await other.orphans():  # until the next heartbeat, after 30 ms
            pass
    with pytest.raises(StreamTaken):
        await other.take_over(log.id)


async def test_what_a_process_leaves_open_when_it_ends_is_an_orphan_at_once(store: Store) -> None:
    outbox, other = await store.open("a"), await store.open("b")
    log = await outbox.open_stream(new_stream())
    append = log.append(run(1, 1, 700))
    await outbox.aclose()
    await append
    assert await other.orphans() == [log.id]
    with pytest.raises(OutboxError, match="closed"):
        await log.append([durable(1, 701)])


async def test_an_abandoned_stream_is_closed_without_an_event(store: Store) -> None:
    former, second = await store.open("a"), await store.open("b")
    log = await former.open_stream(new_stream(1, track="TR"))
    store.clock.at += 6_001
    await (await second.take_over(log.id)).abandon()
    assert await second.orphans() == []
    assert await second.history(log.id) == []
    await second.open_stream(new_stream(2, track="TR"))
    with pytest.raises(Fenced):
        await log.append([durable(1, 1)])


async def test_nothing_follows_an_abandonment(store: Store) -> None:
    log = await (await store.open()).open_stream(new_stream())
    await log.abandon()
    with pytest.raises(ValueError, match="is closed"):
        log.append([durable(1, 1)])
    with pytest.raises(Fenced):
        await log.abandon()


async def test_only_the_writer_of_a_stream_abandons_it(store: Store) -> None:
    former, second = await store.open("a"), await store.open("b")
    log = await former.open_stream(new_stream())
    store.clock.at += 6_001
    taken = await second.take_over(log.id)
    with pytest.raises(Fenced):
        await log.abandon()
    await taken.append([durable(1, 1)])


async def test_a_stream_that_is_being_appended_to_is_not_abandoned(store: Store) -> None:
    log = await (await store.open()).open_stream(new_stream())
    append = log.append([durable(1, 1)])
    with pytest.raises(ValueError, match="being appended to"):
        log.abandon()
    await append
    await log.append([durable(1, 2)])


async def test_a_stream_that_is_over_is_forgotten(store: Store) -> None:
    outbox, other = await store.open("a"), await store.open("b")
    closed, abandoned, fenced = [await outbox.open_stream(new_stream(number)) for number in (1, 2, 3)]
    await closed.append([ended(1, 1)])
    await abandoned.abandon()
    store.clock.at += 6_001
    await other.take_over(fenced.id)
    with pytest.raises(Fenced):
        await fenced.append([durable(3, 1)])
    assert len(outbox._logs) == 3
    del closed, abandoned, fenced
    gc.collect()
    assert len(outbox._logs) == 0


async def test_a_database_keeps_its_identity(store: Store, tmp_path: Path) -> None:
    first, second = await store.open("a"), await store.open("b")
    identity = await first.identity()
    assert len(identity) == 26
    await first.aclose()
    assert await second.identity() == await (await store.open("a")).identity() == identity
    other = tmp_path / "other"
    other.mkdir()
    async with sqlite(other) as elsewhere:
        assert await (await elsewhere.open()).identity() != identity


async def test_an_unknown_stream_cannot_be_taken_over(store: Store) -> None:
    with pytest.raises(OutboxError, match=stream_id(9)):
        await (await store.open()).take_over(stream_id(9))


async def test_a_stream_that_was_given_up_is_an_orphan_while_its_writer_lives(store: Store) -> None:
    outbox, other = await store.open(), await store.open("other")
    log = await outbox.open_stream(new_stream(1, track="TR"))
    await outbox.give_up(log.id)
    assert await other.orphans() == [log.id]
    await (await other.take_over(log.id)).abandon()
    assert (await outbox.open_stream(new_stream(2, track="TR"))).last_sequence == 0, (
        "its track can be listened to again"
    )


async def test_only_its_writer_gives_a_stream_up(store: Store) -> None:
    outbox, other = await store.open(), await store.open("other")
    log = await outbox.open_stream(new_stream(1))
    await other.give_up(log.id)
    assert await other.orphans() == []


async def test_a_track_was_heard_once_it_has_had_a_stream_open_or_closed(store: Store) -> None:
    outbox = await store.open()
    assert not await outbox.was_heard(new_stream(1).track_sid)
    log = await outbox.open_stream(new_stream(1))
    assert await outbox.was_heard(new_stream(1).track_sid)
    await log.abandon()
    assert await outbox.was_heard(new_stream(1).track_sid)
    assert not await outbox.was_heard("TR_never")


async def test_a_name_with_a_nul_is_stored_and_found(store: Store) -> None:
    outbox = await store.open()
    log = await outbox.open_stream(NewStream(stream_id(1), "RM_1", "ro\0om", "TR_1", "ali\0ce"))
    await log.append([durable(1, 1)])
    with pytest.raises(StreamTaken):
        await outbox.open_stream(NewStream(stream_id(2), "RM_1", "ro\0om", "TR_1", "ali\0ce"))
    assert await outbox.history("str_\0") == []
    async with open_log(store.url, store.clock) as operator:
        assert (await operator.purge.participant("ali\0ce")).open_streams == 1
