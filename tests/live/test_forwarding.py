"""Transcripts that go back into the room, and the agent that is seen there or is not."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from livekit import api, rtc

from tests.live.test_service import WORDS_OF
from tests.support.audio.story import streams
from tests.support.dispatch.dispatching import until as eventually
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.livekit_server import LiveKitServer
from tests.support.livekit.participant import Participant, participant, speech_wav
from tests.support.livekit.reader import Reader, Shown, lines
from tests.support.service import service

pytestmark = [pytest.mark.live, pytest.mark.speech]


def closed(shown: list[Shown], who: str) -> int:
    return sum(one.final and one.who == who and bool(one.text) for one in shown)


def said(receiver: Receiver) -> dict[str, tuple[str, str]]:
    """Who said what, by utterance, as it was last told: a final that comes late revises it."""
    return {
        event.utterance.id: (event.participant.identity, event.data.text)  # type: ignore[attr-defined]
        for stream in streams(receiver)
        for event in stream.events
        if event.type == "utterance.completed" and event.utterance is not None
    }


def shows(shown: list[Shown], utterances: Mapping[str, tuple[str, str]]) -> bool:
    """Whether the last update of everything that was shown, and of each of these, is closed and is the whole text."""
    last = {segment: updates[-1] for segment, updates in lines(shown).items()}
    return {segment for segment, (_, text) in utterances.items() if text} <= last.keys() and all(
        one.final and (one.who, one.text) == utterances.get(segment) for segment, one in last.items()
    )


def agents_seen_by(somebody: Participant) -> list[rtc.RemoteParticipant]:
    everyone = somebody.room.remote_participants.values()
    return [one for one in everyone if one.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT]


def over(receiver: Receiver, *muted: str) -> bool:
    """Whether these are muted, and every utterance is complete."""
    told = [event for stream in streams(receiver) for event in stream.events]
    quiet = {event.participant.identity for event in told if event.type == "microphone.muted"}
    begun, complete = (
        {event.utterance and event.utterance.id for event in told if event.type == kind}
        for kind in ("speech.started", "utterance.completed")
    )
    return quiet == {*muted} and begun == complete


async def test_everyone_is_shown_what_each_said_under_their_name(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, capture="forward_transcripts: true") as relay,
    ):
        await relay.start()
        async with participant(server, "alice", "room") as alice, participant(server, "bob", "room") as bob:
            readers = {"alice": Reader(alice.room), "bob": Reader(bob.room)}
            spoken = {
                "alice": await alice.publish(speech_wav()),
                "bob": await bob.publish(speech_wav("two_cities"), loop=True),
            }
            for reader in readers.values():
                for who in spoken:
                    await reader.until(lambda r=reader, w=who: closed(r.streams, w) >= 2)  # type: ignore[misc]
            assert agents_seen_by(alice) == [], "it forwards, and is hidden all the same"
            # silence, so that every line is closed and no other begins
            alice.mute(spoken["alice"])
            bob.mute(spoken["bob"])
            await receiver.wait_for(lambda: over(receiver, "alice", "bob"), within=60)
            seen = []
            for reader in readers.values():
                # what is said may be known here first, or there
                await eventually(
                    lambda r=reader: shows(r.streams, said(receiver)) and shows(r.events, said(receiver))  # type: ignore[misc]
                )
                seen += [(list(reader.streams), list(reader.events))]
        assert await relay.stop() == 0, relay.tail()

    for by_streams, by_events in seen:
        for shown in (by_streams, by_events):
            for updates in lines(shown).values():
                (who,) = {one.who for one in updates}
                assert {one.track for one in updates} == {spoken[who].sid}
                closings = [one.final for one in updates]
                assert closings == sorted(closings), "once closed it stays closed, also when text comes late"
            for who, words in (("alice", "others"), ("bob", "bob")):
                text = " ".join(one.text for one in shown if one.final and one.who == who).lower()
                assert any(word in text for word in WORDS_OF[words]), text
        grown = [updates for updates in lines(by_streams).values() if len({one.text for one in updates}) > 1]
        assert grown, "no interim grew into its final"
        assert lines(by_streams) == lines(by_events), "both ways tell the same"


async def test_by_default_nothing_is_published_and_nobody_is_seen(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path) as relay:
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            reader = Reader(alice.room)
            await alice.publish(speech_wav(), loop=True)
            await receiver.wait_for(
                lambda: any("transcript.final" in stream.types() for stream in streams(receiver)), within=60
            )
            assert agents_seen_by(alice) == [], "participants must not see the relay"
        assert (reader.streams, reader.events) == ([], []), "the relay must publish nothing to the room"


async def test_a_visible_agent_listens_and_leaves_when_everyone_has_left(server: LiveKitServer, tmp_path: Path) -> None:
    async with receiving() as receiver, service(server, receiver.url, tmp_path, capture="visible: true") as relay:
        await relay.start()
        async with participant(server, "alice", "room") as alice:
            reader = Reader(alice.room)
            await alice.publish(speech_wav(), loop=True)
            async with asyncio.timeout(30):
                while not (seen := agents_seen_by(alice)):  # noqa: ASYNC110 - the room's own state
                    await asyncio.sleep(0.02)
            (agent,) = seen
            assert agent.attributes["lk.agent.state"] == "listening"
            assert agent.attributes["lk.agent.name"] == "speech-relay"
            await receiver.wait_for(
                lambda: any("transcript.final" in stream.types() for stream in streams(receiver)), within=60
            )
            assert list(agent.track_publications) == []
            assert (reader.streams, reader.events) == ([], []), "the relay must publish nothing to the room"
        async with server.api() as client, asyncio.timeout(30):
            while (await client.room.list_rooms(api.ListRoomsRequest())).rooms:  # noqa: ASYNC110 - the server's state
                await asyncio.sleep(0.1)
