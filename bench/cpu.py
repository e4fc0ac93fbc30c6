"""CPU time of other processes: unlike a rate, it hardly depends on what else the machine does."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from tests.support.outbox.postgres import PostgresServer


def cpu_of(pid: int) -> float:
    """Seconds of a process, without its children."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def server_cpu(server: PostgresServer) -> float:
    """Seconds of all of a server's processes, ended ones included."""
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    postmaster = psutil.Process(pid)
    ended = postmaster.cpu_times()
    seconds = cpu_of(pid) + float(ended.children_user + ended.children_system)
    for child in postmaster.children():
        try:
            seconds += cpu_of(child.pid)
        except psutil.NoSuchProcess:  # it has just ended
            continue
    return seconds


@contextmanager
def telling_what_the_host_took() -> Iterator[None]:
    """Print which share of the processor time that was wanted during the block the host gave to other machines.

    A process that waits for it cannot know: to it, everything takes longer. Linux tells it for virtual machines.
    """
    before = _wanted_and_taken()
    try:
        yield
    finally:
        wanted, taken = (after - was for after, was in zip(_wanted_and_taken(), before, strict=True))
        if taken > 0:
            print(f"    the host took {taken / wanted:.0%} of the processor time that was wanted", flush=True)


def _wanted_and_taken() -> tuple[float, float]:
    """Seconds since the start of this machine."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0), getattr(times, "steal", 0.0)
