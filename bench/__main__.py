"""``make bench``: measures the relay against its lower bounds, completely or by letter.

(g) takes ten minutes and runs only on request.
"""

import sys
from collections.abc import Awaitable, Callable

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
from bench.cpu import telling_what_the_host_took
from bench.receiver import Receiver, receiver
from relay.app.delivery import collect_rarely

SENDING: dict[str, Callable[[Receiver], Awaitable[None]]] = {
    "a": throughput.measure,
    "b": latency.measure,
    "e": isolation.measure,
    "f": backlog.measure,
    "j": floods.measure,
    "l": idle_endpoints.measure,
    "m": page.measure,
    "p": fleet.measure,
    "q": latency.measure_postgres,
    "g": soak.measure,
}
OTHERS: dict[str, Callable[[], Awaitable[None]]] = {
    "c": participants.measure,
    "d": startup.measure,
    "h": onsets.measure,
    "i": hour.measure,
    "k": rooms.measure,
    "n": appends.measure,
    "o": claims.measure,
}


async def main(wanted: str) -> None:
    collect_rarely()
    async with receiver() as target:
        for letter, measure in SENDING.items():
            if letter in wanted:
                with telling_what_the_host_took():
                    await measure(target)
    for letter, measure_alone in OTHERS.items():
        if letter in wanted:
            with telling_what_the_host_took():
                await measure_alone()


if __name__ == "__main__":
    uvloop.run(main("".join(sys.argv[1:]) or "abcdefhijklmnopq"))
