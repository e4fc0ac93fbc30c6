"""The whole line over PostgreSQL: what a participant says is told to a receiver."""

from pathlib import Path

import pytest

from tests.support.audio.story import assert_whole, of, told
from tests.support.cli import SECRET, speech_relay_process
from tests.support.dispatch.receiver import receiving
from tests.support.livekit.coverage import VAD_ALONE
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.outbox.outbox_store import postgres
from tests.support.outbox.postgres import PostgresServer
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]

HEARD_WITHIN_S = 60.0


async def test_what_is_said_arrives_over_a_log_in_postgresql(
    server: LiveKitServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    async with postgres(postgres_server, template="template1") as store, receiving() as receiver:
        variables = {"SPEECH_RELAY__OUTBOX__URL": store.url}
        async with service(server, receiver.url, tmp_path, variables=variables) as relay:
            await relay.start()
            async with participant(server, "alice", "room") as alice:
                await alice.publish(speech_wav(), loop=True)
                await receiver.wait_for(
                    lambda: any("transcript.final" in stream.types() for stream in told(receiver.answered, SECRET)),
                    within=HEARD_WITHIN_S,
                )
                status = speech_relay_process("status", cwd=tmp_path, **variables)
                assert (status.returncode, status.stderr) == (0, "")
            await receiver.wait_for(
                lambda: any("stream.ended" in stream.types() for stream in told(receiver.answered, SECRET)),
                within=HEARD_WITHIN_S,
            )
            assert await relay.stop() == 0
        (stream,) = of(told(receiver.answered, SECRET), "alice")
        assert_whole(stream)
        assert not (tmp_path / "relay.db").exists()


async def test_a_running_relay_hears_new_rooms_after_an_upgrade_of_the_tables(
    server: LiveKitServer, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    async with postgres(postgres_server) as store, receiving() as receiver:
        variables = {"SPEECH_RELAY__OUTBOX__URL": store.url}
        async with service(server, receiver.url, tmp_path, detectors=VAD_ALONE, variables=variables) as relay:
            await relay.start()
            store.execute("UPDATE alembic_version SET version_num = '9999'")
            async with participant(server, "alice", "room") as alice:
                await alice.publish(speech_wav(), loop=True)
                await receiver.wait_for(
                    lambda: any("speech.started" in stream.types() for stream in told(receiver.answered, SECRET)),
                    within=HEARD_WITHIN_S,
                )
            assert await relay.stop() == 0
        assert store.execute("SELECT version_num FROM alembic_version") == [("9999",)]
