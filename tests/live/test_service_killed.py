"""kill -9 to a job, then to the whole service, while people speak and the endpoint is down: nothing that was appended
is lost, and everything that was begun is ended."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from relay.clock import SystemClock
from relay.events.envelope import Delivery, StreamEvent
from relay.outbox.log.heartbeat import LEASE_MS
from relay.outbox.outbox import Outbox
from relay.outbox.records import Record
from tests.support.audio.story import Stream, assert_whole, told
from tests.support.cli import SECRET
from tests.support.dispatch.receiver import Answer, Received, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]

ENDS_WITHIN_S = 40.0
HEARD_AGAIN_WITHIN_S = 5.0
LEASE = timedelta(milliseconds=LEASE_MS)
STOPPING = timedelta(milliseconds=500)


async def appended(folder: Path, streams: list[Stream]) -> list[Record]:
    """Every event that the log holds of these streams, but interims, which may be overtaken."""
    outbox = await Outbox.open(f"sqlite:///{folder}/relay.db", name="test", clock=SystemClock())
    try:
        records = []
        for stream in streams:
            records += await outbox.history(stream.events[0].stream.id, limit=10_000)
        return [record for record in records if record.delivery is Delivery.DURABLE]
    finally:
        await outbox.aclose()


async def test_nothing_that_was_appended_is_lost(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path) as relay:

        def streams() -> list[Stream]:
            return told(accepted(), SECRET)

        def accepted() -> list[Received]:
            return [request for request in receiver.answered if request not in refused]

        refused: list[Received] = []
        down = False

        def answer(request: Received) -> Answer:
            if down:
                refused.append(request)
                return Answer(503)
            return Answer(204)

        receiver.answer = answer
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            await alice.publish(speech_wav(), loop=True)
            await bob.publish(speech_wav("two_cities"), loop=True)
            await receiver.wait_for(lambda: spoken(streams()) >= {"alice", "bob"}, within=20)

            down = True
            await receiver.wait_for(lambda: len(tried(refused)) == 2, within=20)
            relay.kill_job()
            await receiver.wait_for(lambda: len(tried(refused)) == 4, within=30)
            await relay.kill()
            await relay.start()
            await receiver.wait_for(lambda: len(tried(refused)) == 6, within=30)
            down = False
            await receiver.wait_for(lambda: len(spoken_streams(streams())) >= 4, within=30)
        # those of the job that was killed first may be waiting for their next try still
        await receiver.wait_for(lambda: sum(stream.end is not None for stream in streams()) == 6, within=ENDS_WITHIN_S)
        assert await relay.stop() == 0, relay.tail()

        everything = streams()
        for stream in everything:
            assert_whole(stream)
        ends = sorted((stream.identity, stream.end.data.reason) for stream in everything if stream.end)
        assert ends == [
            (who, reason) for who in ("alice", "bob") for reason in ("disconnected", "worker_lost", "worker_lost")
        ]
        delivered = {event.id for stream in everything for event in stream.events}
        lost = [record for record in await appended(tmp_path, everything) if record.id not in delivered]
        assert not lost, [(record.type, record.id) for record in lost]
        # One in flight per lane is what a kill may repeat.
        assert all(stream.duplicates <= 1 for stream in everything)


async def test_a_job_that_hangs_is_given_up_and_its_room_heard_by_another_one(
    server: LiveKitServer, tmp_path: Path
) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path, detectors="stt: none") as relay:

        def streams() -> list[Stream]:
            return told(receiver.answered, SECRET)

        await relay.start()
        async with participant(server, "alice", "room") as alice:
            await alice.publish(speech_wav(), loop=True)
            await receiver.wait_for(lambda: len(spoken_streams(streams())) == 1, within=20)
            frozen, frozen_at = relay.freeze_job(), datetime.now(UTC)
            await receiver.wait_for(lambda: streams()[0].end is not None, within=20)
            await receiver.wait_for(lambda: len(streams()) == 2, within=HEARD_AGAIN_WITHIN_S)
            await receiver.wait_for(lambda: len(spoken_streams(streams())) == 2, within=20)
        await receiver.wait_for(lambda: all(stream.end for stream in streams()), within=ENDS_WITHIN_S)
        for job in frozen:
            if job.is_running():
                job.resume()  # the one that waited for a room, or the service could not end in order
        assert await relay.stop() == 0, relay.tail()

        for stream in streams():
            assert_whole(stream)
            assert stream.duplicates == 0, "an event arrived twice without a crash in between"
        lost, left = (stream.end.data for stream in streams() if stream.end)
        assert (lost.reason, left.reason) == ("worker_lost", "disconnected"), (
            "the lost stream must say worker_lost, and its successor must hear the participant to the end"
        )
        assert lost.listened_until is not None
        assert frozen_at - LEASE <= lost.listened_until <= frozen_at + STOPPING
        assert left.listened_until is None
        assert len(relay.lines("hangs; it is killed")) == 1, "the operator must read once that a job hangs"


def tried(requests: list[Received]) -> set[str]:
    """Ids of the streams of which anything was sent, whether or not it was taken."""
    events = [request.event for request in requests]
    return {event.stream.id for event in events if isinstance(event, StreamEvent)}


def spoken_streams(streams: list[Stream]) -> list[Stream]:
    return [stream for stream in streams if "speech.started" in stream.types()]


def spoken(streams: list[Stream]) -> set[str]:
    return {stream.identity for stream in spoken_streams(streams)}
