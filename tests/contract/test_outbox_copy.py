"""A log is copied to another database and back, row by row, and its deliveries continue where they were."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from relay.clock import SystemClock
from relay.errors import OutboxError
from relay.outbox.log.api_endpoints import NewApiEndpoint
from relay.outbox.log.audience import StreamAudience
from relay.outbox.log.resends import Resend
from relay.outbox.opening import open_database
from relay.outbox.operator import copying
from relay.outbox.operator.copying import COPIED, Copied, copy_log
from relay.outbox.records import Attempt, DeadLetter, Parking, Settlement
from relay.outbox.schema import METADATA, events, identity, lanes, resends, streams
from relay.outbox.sqlite import write_lock
from tests.support.builders import EPOCH_MS, ended, endpoint, interim, new_stream, run, said, stream_id, track
from tests.support.dispatch.dispatching import delivering, per_stream
from tests.support.dispatch.receiver import Receiver
from tests.support.outbox.operator import Folder
from tests.support.outbox.outbox_situation import every_state, looking
from tests.support.outbox.outbox_store import HandClock, Store, claim, postgres, settled, sqlite
from tests.support.outbox.postgres import PostgresServer

LATER = HandClock(1 << 60)
"""When every lease is over."""

Rows = dict[str, list[tuple[object, ...]]]


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[Store]:
    """A log in SQLite."""
    async with sqlite(tmp_path) as opened:
        yield opened


@pytest.fixture
async def server(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    """An empty database of PostgreSQL."""
    async with postgres(postgres_server, template="template1") as opened:
        yield opened


async def filled(store: Store) -> None:
    """A log with rows in every table that is copied, and with text that is hard to copy."""
    outbox = await every_state(store)
    gone = await outbox.open_stream(track(2, "nul\0\u2028\U0001f600\ufffd", room="room\0"))
    await gone.append([said(2, 1, "a\0b", "\0\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace"))])
    await gone.append([interim(2, 2, revision=1), ended(2, 3)])
    bi = {lane.stream: lane for lane in await claim(outbox.lanes, "bi")}
    first, *_, second = (bi[sid] for sid in sorted(bi))
    kept = Attempt(first.id, 1, 1, EPOCH_MS, "ok", 200, 3.14159265358979, "thanks\0\ufffd")
    await outbox.lanes.settle(Settlement(first.id, first.fence, 6, 6, 0, tries=(kept,)))
    await outbox.lanes.release([(first.id, first.fence)])
    aside = Parking(1, 3, "tls\0", 0, EPOCH_MS + 90_000)
    await outbox.lanes.settle(Settlement(second.id, second.fence, 1, 1, 0, parked=aside))
    await outbox.lanes.disable("crm", "gone")
    made = NewApiEndpoint("made", "acme", "{}", StreamAudience(("ro*", "x"), ("*",), ("*",), relay=False), None)
    await outbox.api_endpoints.put(made, "whsec_x", most=9)
    async with looking(store) as log:
        await log.redelivery.resend(Resend("bi", 0, 1 << 60, ("stt.speech_started",)), lambda _room, _identity: True)
    await outbox.aclose()
    store.execute("INSERT INTO writers VALUES ('a dead one', 'job-1', 5)")
    store.execute("UPDATE sqlite_sequence SET seq = 7 WHERE name = 'resends'")  # the others are done
    store.execute("UPDATE events SET body = X'00ff5c7564383030' WHERE sid = 1 AND sequence = 2")


async def test_numbers_are_compared_in_full_however_the_server_writes_them(file: Store, server: Store) -> None:
    outbox = await every_state(file)
    (lane, *_) = await claim(outbox.lanes, "bi")
    third = Attempt(lane.id, 1, 1, EPOCH_MS, "connect", None, 100 / 3)
    await outbox.lanes.settle(Settlement(lane.id, lane.fence, lane.cursor, 0, 1, tries=(third,)))
    await outbox.aclose()
    server.execute(f"ALTER DATABASE {server.url.partition('?')[0].rpartition('/')[2]} SET extra_float_digits = 0")
    copy_log(file.url, server.url, LATER, lambda *_: None)


def content(store: Store) -> Rows:
    with store.engine().connect() as connection:
        tables = [*COPIED, identity]
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]
            for table in tables
        }


def as_in_postgres(rows: Rows) -> Rows:
    def stored(value: object) -> object:
        return value.replace("\0", "\ufffd") if isinstance(value, str) else value

    return {name: [tuple(map(stored, row)) for row in of_table] for name, of_table in rows.items()}


async def copied(source: Store, target: Store, now: int = 1 << 60) -> Copied:
    return await asyncio.to_thread(copy_log, source.url, target.url, HandClock(now), lambda *_: None)


async def test_a_log_is_the_same_after_it_was_copied_there_and_back(
    file: Store, server: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(file)
    monkeypatch.setattr(copying, "_STEP_ROWS", 2)
    original = content(file)
    assert {name for name, rows in original.items() if not rows} == set()
    there = await copied(file, server)
    assert content(server) == as_in_postgres(original)
    assert {name: contents.rows for name, contents in there.tables.items()} == {
        table.name: len(original[table.name]) for table in COPIED
    }
    back = Store(f"sqlite:///{tmp_path}/back.db", server._stack)
    assert (await copied(server, back)).tables == there.tables
    assert content(back) == as_in_postgres(original)


def test_every_table_of_the_log_is_copied_but_those_about_processes() -> None:
    left_out = METADATA.tables.keys() - {table.name for table in COPIED} - {identity.name}
    assert left_out == {"processes", "duties"}


async def test_new_rows_get_numbers_that_no_copied_row_has(file: Store, server: Store, tmp_path: Path) -> None:
    await filled(file)
    await copied(file, server)
    back = Store(f"sqlite:///{tmp_path}/back.db", server._stack)
    await copied(server, back)
    for store in (server, back):
        outbox = await store.open()
        log = await outbox.open_stream(new_stream(9))
        await log.append(run(9, 1, 2))
        store.execute("DELETE FROM resends")  # they are done
        async with looking(store) as log_:
            await log_.redelivery.resend(
                Resend("bi", 0, 1 << 60, ("stt.speech_started",)), lambda _room, _identity: True
            )
        await outbox.aclose()
        after = content(store)
        assert [row[0] for row in after[streams.name]] == list(range(1, len(content(file)[streams.name]) + 2))
        assert len(after[lanes.name]) > len(content(file)[lanes.name])
        assert after[resends.name][0][0] == 8  # no number is given twice


async def test_deliveries_continue_after_a_copy_where_they_were(file: Store, server: Store, receiver: Receiver) -> None:
    file.clock = server.clock = SystemClock()  # type: ignore[assignment]  # what is due is due
    now = file.clock.now_ms()
    outbox = await file.open()
    await outbox.lanes.sync_endpoints(["crm"])
    for number in (1, 2, 3):
        await (await outbox.open_stream(new_stream(number))).append(run(number, 1, 6))
    first, second, third = sorted(await claim(outbox.lanes), key=lambda lane: lane.stream)
    await outbox.lanes.settle(settled(first, 4))
    await outbox.lanes.settle(Settlement(second.id, second.fence, 1, 1, 0, parked=Parking(1, 1, "status 500", 0, now)))
    await outbox.lanes.settle(Settlement(third.id, third.fence, 2, 2, 0, dead=DeadLetter(2, 9, "status 410", 1)))
    await outbox.lanes.release([(lane.id, lane.fence) for lane in (first, second, third)])
    await outbox.aclose()
    await copied(file, server, now=now)
    moved = await server.open()
    async with delivering(moved, endpoint(url=receiver.url)):
        await receiver.wait(2 + 6 + 4)
        await (await moved.open_stream(new_stream(4))).append(run(4, 1, 1))
        await receiver.wait_for(lambda: stream_id(4) in per_stream(receiver.requests))
    came = per_stream(receiver.requests)
    assert (came[stream_id(1)], came[stream_id(3)], came[stream_id(4)]) == ([5, 6], [3, 4, 5, 6], [1])
    parked = came[stream_id(2)]
    assert [sequence for sequence in parked if sequence != 1] == [2, 3, 4, 5, 6]
    assert len(parked) == 6


async def test_a_log_in_use_is_not_copied(file: Store, server: Store) -> None:
    outbox = await file.open()
    await outbox.open_stream(new_stream())
    with pytest.raises(OutboxError, match="a relay uses it"):
        await copied(file, server, now=EPOCH_MS)
    await outbox.aclose()
    process = "'p', 'worker', 'h', 1, '1.0', 0, NULL, {}, NULL, '', 0, 0, 0, 0, 0, 0, false, '[]'"
    file.execute(f"INSERT INTO processes VALUES ({process.format(EPOCH_MS - 1000)})")
    with pytest.raises(OutboxError, match="a relay uses it"):
        await copied(file, server, now=EPOCH_MS)
    outbox = await file.open()
    bell = outbox.listen(lambda _: None)
    with pytest.raises(OutboxError, match="a relay uses it"):
        await copied(file, server)
    bell.close()
    await outbox.aclose()
    await file.open("relay", sole=True)
    with pytest.raises(OutboxError, match="a relay uses it"):
        await copied(file, server)


async def test_a_relay_on_the_target_is_not_disturbed(file: Store, server: Store) -> None:
    await (await file.open()).aclose()
    running = await server.open("relay", sole=True)
    with pytest.raises(OutboxError, match=r"outbox postgresql:\S+ a relay uses it"):
        await copied(file, server)
    await running.open_stream(new_stream())


async def test_nothing_is_appended_to_a_log_while_it_is_copied(
    file: Store, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(file)
    monkeypatch.setattr(write_lock, "LONGEST_WAIT_S", 0.1)
    database = open_database(file.url)
    connection = database.connect_writer()
    outcomes: list[str] = []

    def append(*_: object) -> None:
        try:
            with database.transaction(connection, alone=False):
                outcomes.append("written")
        except TimeoutError:
            outcomes.append("refused")

    await asyncio.to_thread(copy_log, file.url, server.url, LATER, append)
    connection.close()
    database.close()
    assert set(outcomes) == {"refused"}


async def test_a_target_with_anything_in_it_is_refused(file: Store, server: Store, tmp_path: Path) -> None:
    await filled(file)
    other = await server.open()
    await other.lanes.sync_endpoints(["crm"])
    await other.aclose()
    before = content(server)
    with pytest.raises(OutboxError, match="holds a log already"):
        await copied(file, server)
    assert content(server) == before
    with pytest.raises(OutboxError, match="are the same log"):
        await copied(file, file)
    with pytest.raises(OutboxError, match="there is no log to copy"):
        await copied(Store(f"sqlite:///{tmp_path}/none.db", file._stack), server)


class Stopped(Exception):
    """Ends a copy in the middle."""


async def interrupted(source: Store, target: Store, table: str) -> None:
    def stop(name: str, *_: object) -> None:
        if name == table:
            raise Stopped

    with pytest.raises(Stopped):
        await asyncio.to_thread(copy_log, source.url, target.url, LATER, stop)


async def test_an_unfinished_copy_is_opened_by_nothing_but_its_continuation(
    file: Store, server: Store, tmp_path: Path
) -> None:
    await filled(file)
    await interrupted(file, server, "events")
    with pytest.raises(OutboxError, match="holds an unfinished copy: finish it"):
        await server.open()
    async with sqlite(tmp_path) as _:
        another = Store(f"sqlite:///{tmp_path}/another.db", server._stack)
        await (await another.open()).aclose()
        with pytest.raises(OutboxError, match="an unfinished copy of another log"):
            await copied(another, server)
    assert (await copied(file, server)).resumed
    assert content(server) == as_in_postgres(content(file))


async def test_a_row_that_changed_since_the_copy_began_fails_the_comparison(file: Store, server: Store) -> None:
    await filled(file)
    await interrupted(file, server, "events")
    file.execute("UPDATE events SET type = 'x' WHERE sid = 1 AND sequence = 1")
    with pytest.raises(OutboxError, match="the copy of table events is not the original"):
        await copied(file, server)
    with pytest.raises(OutboxError, match="holds an unfinished copy"):
        await server.open()


async def test_a_text_that_is_not_utf8_is_named_by_its_table_only(file: Store, server: Store) -> None:
    await filled(file)
    file.execute("UPDATE streams SET participant = CAST(X'616c696365ff' AS TEXT) WHERE sid = 1")
    with pytest.raises(OutboxError, match="a text in table streams is not UTF-8") as raised:
        await copied(file, server)
    assert "alice" not in str(raised.value)


async def test_the_command_says_what_was_copied(file: Store, server: Store, tmp_path: Path) -> None:
    await filled(file)
    folder = Folder(tmp_path)
    arguments = "outbox", "copy", "--from", file.url, "--to", server.url
    document = await folder.json(*arguments)
    place = server.url.partition("?")[0].replace("relay@", "")
    assert (document["from"], document["to"], document["resumed"]) == (file.url, place, False)
    assert document["tables"]["events"]["rows"] == len(content(file)[events.name])
    again = await folder.run(*arguments)
    assert (again.returncode, again.stdout, again.stderr.count("\n")) == (2, "", 1)
    assert "holds this log already" in again.stderr
    assert json.loads(json.dumps(document))["identity"] == content(server)[identity.name][0][0]
