"""The LiveKit worker inside this program: runs each room in its own job process."""

import asyncio
import contextlib
import functools
import logging
import math
import os
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Sequence

import uvloop
from livekit.agents import JobContext, JobProcess, JobRequest, WorkerPermissions
from livekit.agents.types import ATTRIBUTE_AGENT_STATE

from relay.capture.livekit.access import Access, Unreachable, verify_access
from relay.capture.livekit.plan import WORKER_ATTRIBUTE, Jobs
from relay.capture.worker.coverage import matches
from relay.capture.worker.job_processes import job_processes, preloaded
from relay.capture.worker.load import CpuLoad
from relay.capture.worker.registration import RegisteredServer
from relay.capture.worker.warm_pool import WarmPool, bound, free_mb, process_mb


def permissions(*, visible: bool, forwards: bool) -> WorkerPermissions:
    """The permissions to request for every job: ``capture.visible`` and ``capture.forward_transcripts``.

    Without the right to publish data the server silently drops transcripts.
    """
    return WorkerPermissions(
        hidden=not visible, can_publish=False, can_publish_data=forwards, can_update_metadata=False
    )


def shown_as(*, visible: bool) -> dict[str, str]:
    """The attributes of a visible agent, from the moment it joins and after each rejoin.

    Frontends wait for an agent's state before they show it. The relay's state never changes, it listens; so it comes
    with the token and needs no right to update metadata.
    """
    return {ATTRIBUTE_AGENT_STATE: "listening"} if visible else {}


log = logging.getLogger(__name__)

AGENT_NAME = "speech-relay"
"""A named agent gets rooms by explicit dispatch only. Unnamed workers share the rooms between them: beside another
unnamed voice agent, the server would send every room to one of the two."""

LOAD_THRESHOLD = 0.7
"""Share of the processors above which no rooms are accepted."""

_ASK_AGAIN_S = 1.0
_WARM_AGAIN_S = 0.5
"""The delay before processes are warmed after rooms have started."""
_CLOSE_MARGIN_S = 2.0
"""The part of the grace period reserved for job processes to leave their room and exit after their sessions have
ended."""


class Worker:
    """An ``AgentServer`` without its command line.

    ``entry``, ``on_session_end`` and ``setup`` run in job processes, which import them again: they must be functions of
    a module, or ``functools.partial`` of one with arguments that can be pickled. That is how configuration gets there:
    ``setup=partial(prepare, config)`` puts it into ``JobProcess.userdata``. ``entry`` connects the room and returns;
    ``on_session_end`` closes what it opened, within ``grace_s``.
    """

    def __init__(
        self,
        access: Access,
        *,
        entry: Callable[[JobContext], Awaitable[None]],
        on_session_end: Callable[[JobContext], Awaitable[None]],
        setup: Callable[[JobProcess], None],
        rooms: Sequence[str],
        grace_s: float,
        worker_id: str | None = None,
        agent_name: str = AGENT_NAME,
        load_threshold: float = LOAD_THRESHOLD,
        max_warm_processes: int | None = None,
        preload_inference: bool = False,
        visible: bool = False,
        forwards: bool = False,
    ) -> None:
        """``worker_id`` identifies this worker; with the same one after a crash, it recognizes its agents that the
        crash left in rooms. ``preload_inference`` imports the VAD of livekit-agents once for all jobs, which costs 70
        MB where it is not used. ``max_warm_processes`` bounds how many processes wait for rooms; None: memory does.
        ``visible`` shows the agent to participants, ``forwards`` lets it publish transcripts to the room."""
        self._access = access
        self._worker_id = worker_id or uuid.uuid4().hex
        self._rooms = tuple(rooms)
        self._grace_s = grace_s
        self._preload_inference = preload_inference
        self._load = CpuLoad(load_threshold)
        self._stopping = asyncio.Event()
        self._reached = asyncio.Event()
        self._registered = asyncio.Event()
        self._taking = True
        self._max_warm = max_warm_processes
        self._warm = WarmPool(max_warm_processes or 1)
        self._room_begins = asyncio.Event()
        self._started = False
        self._begun: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._accepting: set[str] = set()
        self._attributes = {WORKER_ATTRIBUTE: self._worker_id, **shown_as(visible=visible)}
        self._server = RegisteredServer(
            on_change=self._on_registration,
            ws_url=access.url,
            api_key=access.api_key,
            api_secret=access.api_secret,
            permissions=permissions(visible=visible, forwards=forwards),
            num_idle_processes=1,  # it does not register before this many are ready; the others come after
            load_fnc=self._load.reported,
            # refused by the relay: this limit would also refuse simultaneous rooms, because of what the first might
            # cost
            load_threshold=math.inf,
            setup_fnc=functools.partial(_prepare, setup),
            preload_modules=preloaded([entry.__module__]),
            session_end_timeout=max(1.0, grace_s - _CLOSE_MARGIN_S),
            shutdown_process_timeout=_CLOSE_MARGIN_S,
            max_retry=sys.maxsize,  # it gives up after 16 otherwise; a server may be down for longer
        )
        self._server.rtc_session(
            entry, agent_name=agent_name, on_request=self._on_request, on_session_end=on_session_end
        )
        self._server.on("worker_started", self._on_started)

    @property
    def reached(self) -> asyncio.Event:
        """Set once the server has answered for the first time."""
        return self._reached

    @property
    def registered(self) -> asyncio.Event:
        """Set while the server knows this worker. It registers again by itself after an outage."""
        return self._registered

    @property
    def load(self) -> CpuLoad:
        """The machine's load, and whether rooms are refused for it."""
        return self._load

    def connect_now(self) -> None:
        """The server is back: register with it at once."""
        self._server.connect_now()

    def jobs(self) -> Jobs:
        """The rooms of this worker, for the coverage."""
        active = self._server.active_jobs if self._started else []
        return Jobs(
            worker=self._worker_id,
            taking=self._registered.is_set() and self._taking and not self._stopping.is_set(),
            rooms=frozenset(job.job.room.name for job in active) | self._accepting,
            agents=frozenset(job.accept_arguments.identity for job in active),
        )

    def agents(self) -> dict[str, str]:
        """The rooms of this worker's agents, by identity, as long as their jobs run."""
        active = self._server.active_jobs if self._started else []
        return {job.accept_arguments.identity: job.job.room.name for job in active}

    def kill_job(self, pid: int) -> bool:
        """Kill a hung job process. False where this worker has none with this id."""
        for job in job_processes():
            if job.pid == pid:
                job.kill()
                return True
        return False

    def begin(self) -> None:
        """Start the first job process, and take no rooms yet: it takes as long as the rest of a service's start.

        :meth:`run` follows, or :meth:`abandon`.
        """
        if self._begun is None:
            self._server.may_register.clear()
            self._begun = asyncio.create_task(self._run(), name="worker")

    async def run(self) -> None:
        """Accept rooms until :meth:`stop`, which alone ends jobs in order.

        Waits for a server that is down. Raises LiveKitError where it refuses the key.
        """
        self.begin()
        self._server.may_register.set()
        if self._begun is not None:
            await self._begun

    async def abandon(self) -> None:
        """End at once what :meth:`begin` has begun. No effect after :meth:`run`."""
        if self._begun is None or self._server.may_register.is_set():
            return
        self._begun.cancel()
        if self._running is not None:
            self._running.cancel()
        await self._server.abandon()
        await asyncio.gather(self._begun, *filter(None, [self._running]), return_exceptions=True)

    async def _run(self) -> None:
        # read by the process that job processes are forked from, so set before the first of them
        os.environ.setdefault("LIVEKIT_AGENTS_PRELOAD_LOCAL_INFERENCE", "1" if self._preload_inference else "0")
        if not await self._wait_for_server():
            return
        measuring = asyncio.create_task(self._load.run(self._on_load), name="cpu_load")
        warming = asyncio.create_task(self._keep_warm(), name="warm_processes")
        self._running = asyncio.create_task(self._server.run(), name="agent_server")
        try:
            await asyncio.wait([self._running])
        finally:
            measuring.cancel()
            warming.cancel()
        if not self._running.cancelled():
            self._running.result()

    async def stop(self) -> None:
        """Accept no more rooms and end every job, including ``on_session_end``, within the grace period."""
        self._stopping.set()
        if self._running is None or self._running.done():
            return
        closing = asyncio.create_task(self._server.aclose(), name="agent_server_close")
        _, late = await asyncio.wait([closing], timeout=self._grace_s)
        if late:
            jobs = job_processes()
            log.warning("%d job processes did not end within %g s: killing them", len(jobs), self._grace_s)
            for job in jobs:
                job.kill()
            _, late = await asyncio.wait([closing], timeout=_CLOSE_MARGIN_S)
        for task in late:
            task.cancel()
            self._running.cancel()
        await asyncio.wait([closing, self._running])

    async def _wait_for_server(self) -> bool:
        said = False
        while not self._stopping.is_set():
            try:
                await verify_access(self._access)
            except Unreachable as error:
                if not said:
                    log.warning("%s Waiting for it.", error)
                said = True
            else:
                self._reached.set()
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASK_AGAIN_S):
                    await self._stopping.wait()
        return False

    def _on_started(self) -> None:
        self._started = True
        # AgentServer has put them there. A restarted fork server would inherit them.
        for name in ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
            os.environ.pop(name, None)

    async def _keep_warm(self) -> None:
        """Keep job processes ready for rooms, and leave the processors to the rooms that start."""
        loop = asyncio.get_running_loop()
        await self._registered.wait()
        if self._max_warm is None:  # it can be measured now: one process waits
            waiting = next(iter(job_processes()), None)
            self._warm.most = bound(free_mb(), process_mb(waiting.pid if waiting else None))
        while True:
            self._server.keep_warm(self._warm.target(loop.time()))
            self._room_begins.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WARM_AGAIN_S):
                    await self._room_begins.wait()

    def _on_registration(self, registered: bool) -> None:
        if registered:
            log.info("Registered with the LiveKit server at %s", self._access.url)
            self._registered.set()
        else:
            self._registered.clear()
            if not self._stopping.is_set():
                log.warning("No longer registered with the LiveKit server: no new rooms until it accepts this worker")

    async def _on_load(self) -> None:
        # rooms are dispatched once the server knows that they are accepted, or it would pass over this worker
        if self._load.refusing:
            self._taking = False
        if self._registered.is_set():
            await self._server.report_load()
        self._taking = not self._load.refusing

    async def _on_request(self, request: JobRequest) -> None:
        room = request.room.name
        if self._stopping.is_set() or self._load.refusing or not matches(self._rooms, room):
            await request.reject()
        elif room in self.jobs().rooms:
            log.info("Room %s is heard already: a second dispatch to it is refused", room)
            await request.reject()
        else:
            self._accepting.add(room)
            self._warm.room_began(asyncio.get_running_loop().time())
            self._room_begins.set()
            try:
                await request.accept(name=AGENT_NAME, attributes=self._attributes)
            finally:
                self._accepting.discard(room)


def _prepare(setup: Callable[[JobProcess], None], process: JobProcess) -> None:
    # a signal to the whole process group (Ctrl-C, a supervisor's stop) is for the parent, which ends its jobs in order
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The policy creates the job's event loop after this. Many streams mean many small steps of it: with fifty, uvloop
    # takes a quarter less.
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    # LiveKit's monitor of blocked loops wakes two threads fifty times a second, 0.3 % of a core per waiting process. An
    # operator who looks for a blocked loop sets it to milliseconds.
    os.environ.setdefault("LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS", "0")
    setup(process)
