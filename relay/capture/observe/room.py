"""Follows a room through another agent's session: relays its reports, without listening itself.

The session's host sends its events to everyone in the room, so a hidden relay without any permission receives them, and
sends nothing. They do not name the participant that the session listens to. That is known

- for the only participant with a microphone, since there is no other candidate;
- for one of several by the agent's transcripts in the room (``lk.transcription``), which name the speaker. Any
  participant can send such a transcript, so it counts only where the session reported the same text (``claims``). Until
  one does, the session's reports are left out. Transcripts do not name the agent, so they prove nothing beside another
  agent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Mapping
from typing import Any, Literal

from livekit import rtc
from livekit.agents.types import ATTRIBUTE_TRANSCRIPTION_TRACK_ID, TOPIC_TRANSCRIPTION
from livekit.agents.voice import RemoteSession
from livekit.protocol.agent_pb import agent_session as wire

from relay.capture.health.error_guard import ErrorGuard, place_of
from relay.capture.health.supervisor import RETRY_S
from relay.capture.livekit.access import Access, RoomSid, RoomsOnly
from relay.capture.livekit.participants import (
    LEFT_ON_PURPOSE,
    UNPUBLISH_S,
    Linked,
    joined_at_ms,
    participant_ref,
    source_name,
    why_gone,
)
from relay.capture.observe.recording import ObservedStream, ObservedTrack, OpenRecord
from relay.capture.observe.remote_session import (
    Readings,
    agents,
    candidates,
    names_of,
    observed,
    only_one,
    wanted_agent,
    why_agent_gone,
    with_byte_streams_of,
)
from relay.capture.observe.transcript_claims import GRACE_S, Claims, Verdict
from relay.clock import Clock
from relay.events.envelope import RoomRef
from relay.events.stream import StreamEnd
from relay.speech.observations import Leaving, Observation, Transcribed

log = logging.getLogger(__name__)

SETTLE_S = 3.0
"""After a track ends, its last speech may still get its text: a closing session waits 2 s for it."""

PATIENCE_S = 10.0
"""How long a room may be without the agent before the log says so. A misspelled name shows in nothing else."""
LONGEST_CLAIM = 16_000
"""Characters. A longer transcript in the room is dropped, and not read any further: a sender may compress hundreds of
megabytes into one, which arrive faster than they are read."""
MOST_HELD = 64
"""Observations that wait until their participant is known."""

_EVENTS: tuple[Literal["user_state_changed", "user_input_transcribed", "conversation_item_added"], ...] = (
    "user_state_changed",
    "user_input_transcribed",
    "conversation_item_added",
)
_CHANGES: tuple[rtc.room.EventTypes, ...] = (
    "participant_connected",
    "participant_disconnected",
    "participant_attributes_changed",
    "track_published",
    "track_unpublished",
    "track_muted",
    "track_unmuted",
    "reconnected",
)


class ObservedRoom:
    """Follows the agent that ``agent`` names (a glob), the first to join where there are several.

    Construct it before the room is connected, connect with automatic subscription off, then call :meth:`start`.
    ``kinds`` are those of ``capture.participants.kinds``; with ``access`` the server is asked which room this is after
    an outage.
    """

    def __init__(
        self,
        room: rtc.Room,
        open_record: OpenRecord,
        *,
        agent: str,
        kinds: Collection[str],
        clock: Clock,
        access: Access | RoomsOnly | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._room = room
        self._sid = RoomSid(room, access)
        self._open_record = open_record
        self._wanted = agent
        self._kinds = frozenset(kinds)
        self._clock = clock
        self._guard = ErrorGuard()
        self._agent: rtc.RemoteParticipant | None = None
        self._changed = asyncio.Event()
        self._patience_s = patience_s
        self._following: asyncio.Task[None] | None = None
        self._asking: asyncio.TimerHandle | None = None
        self._link: Linked | None = None
        self._stream: ObservedStream | None = None
        self._going: asyncio.TimerHandle | None = None
        """Set while the track is gone and the stream is not over yet."""
        self._leaving: StreamEnd | None = None
        self._known: str | None = None
        """Identity of the participant that the session is known to listen to."""
        self._left = False
        """Whether that participant has left. A session usually closes then, so it has to show that it has not."""
        self._claims = Claims()
        self._held: deque[Observation] = deque(maxlen=MOST_HELD)
        """The session's reports while their participant is unknown."""
        self._readings = Readings()
        self._ending: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._room_ref = RoomRef(sid="", name="")
        look = self._guard(self._look)
        for change in _CHANGES:
            room.on(change, look)
        room.on("disconnected", self._guard(self._disconnected))

    async def start(self) -> None:
        """Start to follow the participants."""
        self._room.register_text_stream_handler(TOPIC_TRANSCRIPTION, self._guard(self._transcription))
        self._following = asyncio.create_task(self._follow(), name="observed agent")
        self._asking = self._loop.call_later(self._patience_s, self._guard(self._missing))

    async def close(self, reason: StreamEnd, *, within: float = 10.0) -> None:
        """End the stream, and stop following. Gives up after ``within`` seconds."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        self._following = None
        if self._asking is not None:
            self._asking.cancel()
        self._readings.cancel()
        self._end(reason)
        if self._ending:
            await asyncio.wait(self._ending, timeout=within)

    async def _follow(self) -> None:
        while True:
            try:
                if (agent := wanted_agent(self._room, self._wanted)) is not None:
                    await self._follow_agent(agent)
                else:
                    await self._changes()
            except Exception as error:
                log.error("An agent's session cannot be observed; trying again: %s", place_of(error))  # noqa: TRY400 - a message may quote what was said
                await asyncio.sleep(RETRY_S)

    async def _changes(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _follow_agent(self, agent: rtc.RemoteParticipant) -> None:
        self._room_ref = RoomRef(sid=await self._sid(), name=self._room.name)
        session = RemoteSession.from_room(with_byte_streams_of(self._room, agent.identity), agent.identity)
        for event in _EVENTS:
            session.on(event, self._guard(self._said))
        await session.start()
        log.info("Observing the session of agent %s", agent.sid)
        self._agent, self._known, self._left = agent, None, False
        self._claims.clear()
        self._held.clear()
        try:
            self._guard(self._look)()
            while (gone := why_agent_gone(agent, self._room)) is None:
                await self._changes()
            log.info("Agent %s has gone (%s)", agent.sid, gone)
            self._end(gone)
        finally:
            self._agent = None
            await session.aclose()

    def _missing(self) -> None:
        """Say which agents are here where the one to observe is not."""
        if wanted_agent(self._room, self._wanted) is not None:
            return
        others = names_of(agents(self._room))
        log.log(
            logging.WARNING if others else logging.INFO,
            "No agent that capture.observe.agent (%s) names is here after %.0f s; nothing is reported "
            "until it joins. %s",
            self._wanted,
            self._patience_s,
            f"Agents here: {others}" if others else "No other agent has a session here",
        )

    def _look(self, *_: object) -> None:
        self._changed.set()
        if self._agent is None or self._going is not None:
            return
        if self._link is not None:
            if (here := self._present(self._link)) is not None:
                self._link = here
                if self._stream is not None:
                    self._stream.mute(here.publication.muted)
            else:
                self._going = self._loop.call_later(UNPUBLISH_S, self._guard(self._leave), self._link)
            return
        present = candidates(self._room, self._kinds)
        if self._known is not None:
            self._begin(next((link for link in present if link.participant.identity == self._known), None))
        elif not self._left:
            self._begin(only_one(present))

    def _said(self, event: wire.AgentSessionEvent) -> None:
        observation = observed(event)
        if observation is None:
            return
        self._look()
        if self._known is None and (only := only_one(candidates(self._room, self._kinds))) is not None:
            if self._link is None:
                self._begin(only)
            if self._link is not None and self._link.key == only.key:
                self._known = only.participant.identity
                self._held.clear()
        self._held.append(observation)
        if isinstance(observation, Transcribed):
            self._decide(self._claims.said(observation.text, self._loop.time(), known=self._known))
            if self._claims.pending:
                self._loop.call_later(GRACE_S + 0.05, self._guard(self._settle_claims))
        self._pass_on()

    def _pass_on(self) -> None:
        if self._stream is None or self._claims.pending or (self._known is None and self._going is None):
            return
        while self._held:
            self._stream.report(self._held.popleft())

    def _transcription(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._readings.add(reader, identity, self._read_claim(reader, identity))

    async def _read_claim(self, reader: rtc.TextStreamReader, identity: str) -> None:
        text = ""
        try:
            async for chunk in reader:
                text += chunk
                if len(text) > LONGEST_CLAIM:
                    return
        except Exception as error:
            log.debug("a transcript in the room broke off (%s)", type(error).__name__)
            return
        self._guard(self._claimed)(identity, (reader.info.attributes or {}), text)

    def _claimed(self, identity: str, attributes: Mapping[str, str], text: str) -> None:
        track_sid = attributes.get(ATTRIBUTE_TRANSCRIPTION_TRACK_ID)
        theirs = any(
            link.participant.identity == identity and link.publication.sid == track_sid
            for link in candidates(self._room, self._kinds)
        )
        if self._agent is None or not theirs or len(agents(self._room)) > 1:
            return
        self._decide(self._claims.claimed(identity, text, self._loop.time()))
        self._pass_on()

    def _settle_claims(self) -> None:
        for verdict in self._claims.overdue(self._loop.time()):
            self._decide(verdict)
        self._pass_on()

    def _decide(self, verdict: Verdict | None) -> None:
        """Follow the participant that a text is attributed to. After a conflict follow none, until one alone claims a
        text."""
        if verdict is None or self._agent is None:
            return
        if self._link is not None and self._link.participant.identity != verdict.identity:
            self._end("shutdown")
        if self._known != verdict.identity:
            self._forget_before(verdict)
        self._known = verdict.identity
        self._look()

    def _forget_before(self, verdict: Verdict) -> None:
        """Observations held before this text may be about another participant."""
        while self._held:
            first = self._held[0]
            said = isinstance(first, Transcribed) and first.text.strip() == verdict.text
            if said and verdict.identity is not None:
                return
            self._held.popleft()
            if said:
                return

    def _begin(self, link: Linked | None) -> None:
        if link is None:
            return
        self._link, self._left = link, False
        track = ObservedTrack(
            room=self._room_ref,
            participant=participant_ref(link.participant),
            sid=link.publication.sid,
            source=source_name(link.publication.source),
            joined_at=joined_at_ms(link.participant),
            muted=link.publication.muted,
        )
        self._stream = ObservedStream(track, self._open_record, self._clock)
        self._ending.add(self._stream.task)
        self._stream.task.add_done_callback(self._ending.discard)

    def _present(self, link: Linked) -> Linked | None:
        """The same track as it is in the room now; None if it is gone."""
        return next((here for here in candidates(self._room, self._kinds) if here.key == link.key), None)

    def _leave(self, link: Linked) -> None:
        """The track is gone, and not back after a reconnect; its last speech may not have its text yet."""
        if self._present(link) is not None:
            self._going = None
            self._look()
            return
        self._leaving = why_gone(link, self._room)
        if self._leaving != "unpublished":
            self._known, self._left = None, True
        if self._stream is not None:
            self._stream.report(Leaving(self._leaving))
        self._going = self._loop.call_later(SETTLE_S, self._guard(self._settled), self._leaving)

    def _settled(self, reason: StreamEnd) -> None:
        self._end(reason)
        self._look()

    def _disconnected(self, reason: int) -> None:
        self._end("shutdown" if reason in LEFT_ON_PURPOSE else "room_ended")

    def _end(self, reason: StreamEnd) -> None:
        """Whatever ends the stream, a track that is gone already is the reason."""
        if self._going is not None and self._link is not None:
            self._going.cancel()
            reason = self._leaving or why_gone(self._link, self._room)
        if self._stream is not None:
            self._stream.end(reason)
        self._going = self._leaving = self._stream = self._link = None
