"""``speech-relay run``, ``worker`` and ``dispatch``: the processes of the relay."""

from pathlib import Path
from typing import TYPE_CHECKING

from relay.cli.options import DEFAULT_CONFIG, ConfigOption, ConfigSource, LogFormatOption, LogLevelOption
from relay.telemetry.logs import LogFormat, LogLevel

if TYPE_CHECKING:
    from relay.outbox.log.processes import Role

_OPEN_FILES = 65_536
"""A room takes about ten descriptors, a connection to a receiver one."""


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Run until SIGTERM or Ctrl-C; then end streams, send what is left and exit 0. A second Ctrl-C ends it at once,
    and so does either while it still starts: exit code 143 or 130.

    Endpoints follow the configuration file when it changes, and at SIGHUP.
    """
    serve("run", config, log_format, log_level)


def worker(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Listen until SIGTERM or Ctrl-C; then end streams and exit 0. Events go into the log, from where
    `speech-relay dispatch` sends them.

    Any number of workers share the rooms. When one dies, another hears its rooms within seconds.
    """
    serve("worker", config, log_format, log_level)


def dispatch(
    config: ConfigOption = DEFAULT_CONFIG,
    log_format: LogFormatOption = "auto",
    log_level: LogLevelOption = "info",
) -> None:
    """Deliver until SIGTERM or Ctrl-C; then send what is held and exit 0. Needs no LiveKit server.

    With PostgreSQL, any number of dispatchers share the deliveries. A log in a file has one.
    """
    serve("dispatch", config, log_format, log_level)


def serve(role: "Role", config: Path, log_format: LogFormat, log_level: LogLevel) -> None:
    """Run until SIGTERM or Ctrl-C, then end in order. A second Ctrl-C ends it at once."""
    import asyncio
    import gc
    import logging
    import os
    import signal

    from relay.telemetry.logs import setup_logging

    # until it can be followed: its default action ends the process. The configuration has not been read yet.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # collections during imports find nothing, and take a tenth of the time
    gc.disable()
    source = ConfigSource(config, exports=False)
    loaded = source.load()
    raise_open_files_limit()
    if role != "dispatch":
        from relay.capture.plugins import modules_of
        from relay.capture.worker.job_processes import begin_preload, keep_inherited

        # Before the first process starts: each shows its start arguments for its lifetime. As early as possible: what
        # it imports takes longer than all that this process does until it is ready.
        keep_inherited(os.environ)
        begin_preload(
            ["relay.app.job", *modules_of(loaded.capture)], local_inference=loaded.capture.vad.provider == "livekit"
        )

    setup_logging(log_format, log_level)
    if role != "worker":
        refuse_beside_another(loaded.outbox.url)
    from relay.cli.output.plan import sentences

    for sentence in sentences(loaded, role):
        logging.getLogger("relay.run").info("%s", sentence)

    if role == "dispatch":
        from relay.outbox.opening import client_variables

        variables = client_variables(loaded.outbox.url, source.variables())
    else:
        from relay.app.capturing import prove_usable
        from relay.app.job import provider_variables

        variables = provider_variables(loaded, source.variables())

    from relay.app.service import run_service
    from relay.cli.interrupt import calling_on_signal
    from relay.telemetry.traces import settings

    os.environ.update(variables)  # where the plugins and the database's client look for them, here as in the jobs
    os.environ.update(settings(source.variables()))  # the service traces for its jobs, too

    async def serving() -> None:
        if role != "dispatch":
            await prove_usable(loaded)
        stop, reload = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
        with calling_on_signal(stop.set):  # from here on there is something to clean up
            await run_service(loaded, stop, source, reload, variables, role=role)

    import uvloop

    from relay.app.delivery import collect_rarely

    collect_rarely()
    gc.enable()
    uvloop.run(serving())


def refuse_beside_another(url: str) -> None:
    """Raise ``NameTaken`` at once while another process delivers from a log in a file: its opening comes after imports
    of seconds."""
    from relay.capture.worker.job_processes import end_at_once
    from relay.errors import NameTaken
    from relay.outbox.opening import require_no_other

    try:
        require_no_other(url)
    except NameTaken:
        end_at_once()
        raise


def raise_open_files_limit() -> None:
    """Raise the soft limit on open files, often 1024, towards the hard one; child processes inherit it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
