"""``make bench``: what the relay costs, beside what it cannot be faster than. All of it, or some by letter."""

import sys

import uvloop

from bench import capture, latency, startup, throughput
from bench.receiver import receiver
from relay.dispatch.collector import collect_rarely


async def main(wanted: str) -> None:
    collect_rarely()
    async with receiver() as target:
        if "a" in wanted:
            await throughput.measure(target)
        if "b" in wanted:
            await latency.measure(target)
    if "c" in wanted:
        await capture.measure()
    if "d" in wanted:
        await startup.measure()


if __name__ == "__main__":
    uvloop.run(main("".join(sys.argv[1:]) or "abcd"))
