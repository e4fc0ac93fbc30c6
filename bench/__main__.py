"""``make bench``: measures the relay against its lower bounds, completely or by letter.

(g) takes ten minutes and runs only on request.
"""

import sys

import uvloop

from bench import (
    appends,
    backlog,
    claims,
    fleet,
    floods,
    hour,
    idle_endpoints,
    isolation,
    latency,
    onsets,
    page,
    participants,
    rooms,
    soak,
    startup,
    throughput,
)
from bench.receiver import receiver
from relay.app.delivery import collect_rarely


async def main(wanted: str) -> None:
    collect_rarely()
    async with receiver() as target:
        if "a" in wanted:
            await throughput.measure(target)
        if "b" in wanted:
            await latency.measure(target)
        if "e" in wanted:
            await isolation.measure(target)
        if "f" in wanted:
            await backlog.measure(target)
        if "j" in wanted:
            await floods.measure(target)
        if "l" in wanted:
            await idle_endpoints.measure(target)
        if "m" in wanted:
            await page.measure(target)
        if "p" in wanted:
            await fleet.measure(target)
        if "q" in wanted:
            await latency.measure_postgres(target)
        if "g" in wanted:
            await soak.measure(target)
    if "c" in wanted:
        await participants.measure()
    if "d" in wanted:
        await startup.measure()
    if "h" in wanted:
        await onsets.measure()
    if "i" in wanted:
        await hour.measure()
    if "k" in wanted:
        await rooms.measure()
    if "n" in wanted:
        await appends.measure()
    if "o" in wanted:
        await claims.measure()


if __name__ == "__main__":
    uvloop.run(main("".join(sys.argv[1:]) or "abcdefhijklmnopq"))
