"""(d) How long commands take, and each process of the relay until it is ready; and the processor time of both.

The processor time is what to compare on a machine that has other work.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.cli import environment
from tests.support.livekit.livekit_server import LiveKitServer, binary, livekit_server
from tests.support.service import service

_COMMANDS = (["--help"], ["status"], ["deliveries"], ["check", "--offline"])
_ROLES = ("run", "worker", "dispatch")
_CONFIG = "endpoints: [{name: a, url: 'http://127.0.0.1:9/', signing: none}]\n"


async def measure(rounds: int = 5) -> None:
    print("\n(d) start-up")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.yaml").write_text(_CONFIG)
        for command in _COMMANDS:
            took = [await asyncio.to_thread(_command, command, folder) for _ in range(rounds)]
            _report(" ".join(command), took)
    if binary() is None:
        print("    time to ready: not measured, there is no livekit-server (make bench builds it where Go is)")
        return
    async with livekit_server() as server:
        ready: dict[str, list[tuple[float, float]]] = {role: [] for role in _ROLES}
        for _ in range(rounds):
            for role in _ROLES:
                ready[role].append(await _until_ready(server, role))
    for role in _ROLES:
        _report(f"{role} → ready", ready[role])


async def _until_ready(server: LiveKitServer, role: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with service(server, "http://127.0.0.1:9/", Path(folder), role=role, warm=None) as relay:
            began = time.perf_counter()
            await relay.start(within=120)
            took = time.perf_counter() - began
            of_all = [relay.process, *relay.process.children(recursive=True)]
            used = sum(_processor_s(each) for each in of_all)
            await relay.stop()
    return took, used


def _processor_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _command(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds, and seconds of a processor."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    arguments = [sys.executable, "-m", "relay", *command]
    subprocess.run(arguments, cwd=folder, env=environment(), check=False, capture_output=True)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _report(name: str, took: list[tuple[float, float]]) -> None:
    seconds, used = (statistics.median(each) for each in zip(*took, strict=True))
    slowest = max(seconds for seconds, _ in took)
    print(
        f"    {name}: {seconds:.2f} s, {used:.2f} s of a processor, medians of {len(took)}; the slowest {slowest:.2f} s"
    )
