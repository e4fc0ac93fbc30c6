"""(d) Duration of ``--help``, and the service's time from start to ready."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.livekit.livekit_server import binary, livekit_server
from tests.support.service import service


async def measure() -> None:
    print("\n(d) start-up")
    took = [await asyncio.to_thread(_help) for _ in range(7)]
    print(f"    --help: {statistics.median(took):.2f} s, the slowest of 7 {max(took):.2f} s")
    if binary() is None:
        print("    time to ready: not measured, there is no livekit-server (make bench builds it where Go is)")
        return
    async with livekit_server() as server:
        ready = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                async with service(server, "http://127.0.0.1:9/", Path(folder)) as relay:
                    began = time.perf_counter()
                    await relay.start(within=60)
                    ready.append(time.perf_counter() - began)
                    await relay.stop()
    print(f"    run → ready (registered with the server): {statistics.median(ready):.2f} s, median of 3")


def _help() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "relay", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began
