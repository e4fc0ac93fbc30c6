"""What a frontend in a real browser, made with LiveKit's own React components, shows of a call that the relay hears."""

import asyncio
from pathlib import Path

import pytest
from livekit import api, rtc

from relay.capture.livekit.forwarding import Forwarding
from relay.speech.observations import Listening, Observation, Transcribed, VadEnded, VadStarted
from tests.live.test_service import WORDS_OF, told_of
from tests.support.audio.story import streams
from tests.support.dispatch.receiver import Receiver, receiving
from tests.support.livekit.browser import Row, Screen, Told, browser
from tests.support.livekit.livekit_server import API_KEY, API_SECRET, LiveKitServer
from tests.support.livekit.participant import participant, speech_wav
from tests.support.service import service
from tests.unit.timelines.play import T0, tracker

pytestmark = [pytest.mark.live, pytest.mark.speech]

SEEN_AND_FORWARDING = "forward_transcripts: true\n  visible: true"

LISTENING = ("listening", "listening")
"""The agent's state, as both of LiveKit's hooks for it tell."""


def closed(shown: Screen, name: str) -> int:
    return sum(row.final and bool(row.text) for row in shown.rows if row.name == name)


def completed(receiver: Receiver) -> dict[str, tuple[str, str]]:
    """Utterance → who said it, and what, as the webhooks tell."""
    return {
        event.utterance.id: (event.participant.identity, event.data.text)  # type: ignore[attr-defined]  # this type has it
        for stream in streams(receiver)
        for event in stream.events
        if event.type == "utterance.completed" and event.utterance is not None
    }


def told_all(receiver: Receiver, *muted: str) -> bool:
    """Whether these are silent by now, and what they had begun to say is complete."""
    begun = sum(told_of(receiver, identity, "speech.started") for identity in muted)
    return all(told_of(receiver, who, "microphone.muted") for who in muted) and begun == len(completed(receiver))


async def mute(server: LiveKitServer, room: str) -> dict[str, str]:
    """Mute everyone, so that what is being said completes. Identity → track."""
    async with server.api() as client:
        there = await client.room.list_participants(api.ListParticipantsRequest(room=room))
        tracks = {one.identity: track.sid for one in there.participants for track in one.tracks}
        for identity, sid in tracks.items():
            request = api.MuteRoomTrackRequest(room=room, identity=identity, track_sid=sid, muted=True)
            await client.room.mute_published_track(request)
    return tracks


def told_by_webhooks(receiver: Receiver, tracks: dict[str, str]) -> set[tuple[str, str, str, str]]:
    """What the webhooks tell by now, as lines of the page."""
    return {(segment, who.title(), text, tracks[who]) for segment, (who, text) in completed(receiver).items() if text}


def shown_by_events(events: list[Told], tracks: dict[str, str]) -> set[tuple[str, str, str, str]]:
    """The lines that the client's older events give."""
    last = {event.segment: event for event in events}.values()
    return {
        (each.segment, str(each.who).title(), each.text, tracks.get(str(each.who), "")) for each in last if each.text
    }


def told(row: Row) -> tuple[str, str, str, str]:
    return row.segment, row.name, row.text, row.track


def histories(screens: list[Screen]) -> dict[str, list[Row]]:
    """Segment → what its row has been, one after the other."""
    found: dict[str, list[Row]] = {}
    for shown in screens:
        for row in shown.rows:
            rows = found.setdefault(row.segment, [])
            if row not in rows[-1:]:
                rows.append(row)
    return found


async def test_everyones_lines_appear_once_under_their_name_and_grow(server: LiveKitServer, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        service(server, receiver.url, tmp_path, capture=SEEN_AND_FORWARDING) as relay,
    ):
        await relay.start()
        async with (
            browser(server, "bob", "room", wav=speech_wav("two_cities")) as page,
            participant(server, "alice", "room") as alice,
        ):
            await page.until(lambda shown: (shown.state, shown.assistant) == LISTENING)
            await alice.publish(speech_wav(), loop=True)
            await page.until(lambda shown: closed(shown, "Alice") >= 3 and closed(shown, "Bob") >= 2, within=60)
            tracks = await mute(server, "room")
            await receiver.wait_for(lambda: told_all(receiver, *tracks), within=60)
            for _ in range(240):  # on a busy machine texts come long after the speech, and complete it once more
                shown, expected, older = (
                    page.now,
                    told_by_webhooks(receiver, tracks),
                    shown_by_events(page.events, tracks),
                )
                lines = {told(row) for row in shown.rows if row.text}
                if lines == expected and older == expected and all(row.final for row in shown.rows):
                    break
                await page.change(within=0.5)
            screens = page.screens[:]  # before anybody leaves, and their names with them
        assert await relay.stop() == 0, relay.tail()

    assert lines == expected, "everyone's words must be on the page, under their own name"
    assert older == expected, "the older event tells the same"
    assert all(row.final for row in shown.rows)
    for name, words in (("Alice", "others"), ("Bob", "bob")):
        said = " ".join(row.text for row in shown.rows if row.name == name).lower()
        assert any(word in said for word in WORDS_OF[words]), said

    order = [row.segment for row in shown.rows]
    assert len(order) == len(set(order)), "one row for an utterance"
    for screen in screens:
        assert [row.segment for row in screen.rows] == order[: len(screen.rows)], "replaced where it stands"
    rows_of = histories(screens)
    for rows in rows_of.values():
        assert len({(row.name, row.track) for row in rows}) == 1
        closings = [row.final for row in rows]
        assert closings[-1], "closed at last"
        assert closings == sorted(closings), "once closed it stays closed, also when text comes late"
    assert any(len({row.text for row in rows}) > 1 for rows in rows_of.values()), "no interim grew into its final"
    states = [(screen.state, screen.assistant) for screen in screens]
    assert set(states[states.index(LISTENING) :]) == {LISTENING}


async def test_what_was_only_guessed_is_taken_off_the_page_also_by_one_who_is_hidden(server: LiveKitServer) -> None:
    relay = rtc.Room()
    grants = api.VideoGrants(room_join=True, room="room", hidden=True, can_publish=False, can_publish_data=True)
    token = api.AccessToken(API_KEY, API_SECRET).with_identity("relay").with_kind("agent").with_grants(grants).to_jwt()
    async with browser(server, "alice", "room", wav=speech_wav("two_cities")) as page:
        await relay.connect(server.url, token)
        forwarding, machine = Forwarding(relay), tracker()

        def heard(at: int, observation: Observation) -> None:
            for event in machine.observe(observation, T0 + at):
                forwarding.take(event)

        try:
            heard(0, Listening(T0, T0))
            heard(1000, VadStarted(800, 200))
            async with asyncio.timeout(30):
                while not page.now.rows:  # the page reads from when its connection is whole, which nobody else can see
                    heard(1500, Transcribed("hm", final=False))
                    await page.change(within=0.5)
            assert [(row.name, row.text) for row in page.now.rows] == [("Alice", "hm")], (
                "an interim without a final must be taken off the page"
            )
            heard(2600, VadEnded(2000))
            for event in machine.tick(T0 + 20_000):
                forwarding.take(event)
            await page.until(lambda shown: [(row.text, row.final) for row in shown.rows] == [("", True)])
        finally:
            await forwarding.aclose()
            await relay.disconnect()
