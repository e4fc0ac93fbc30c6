"""CPU time of other processes: unlike a rate, it hardly depends on what else the machine does."""

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
