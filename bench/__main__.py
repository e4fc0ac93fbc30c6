"""``make bench``: measures the relay against its lower bounds, completely or by letter.

(g) takes ten minutes and runs only on request.
"""

import argparse
from collections.abc import Awaitable, Callable, Collection

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


LETTERS = "".join(sorted(SENDING | OTHERS))


async def main(wanted: Collection[str]) -> None:
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


def wanted_letters(arguments: list[str] | None = None) -> Collection[str]:
    """The parts that the command line names, all but (g) if it names none. Exits with 2 for any other."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures the relay against its lower bounds. docs/explanation/benchmarks.md explains each part.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"its letters, a to {LETTERS[-1]}, together or apart; without any, all but g, which takes ten minutes",
    )
    letters = "".join(parser.parse_args(arguments).parts)
    if unknown := sorted(set(letters) - set(LETTERS)):
        parser.error(f"no part is called {', '.join(unknown)}; the parts are {LETTERS}")
    return letters or LETTERS.replace("g", "")


if __name__ == "__main__":
    uvloop.run(main(wanted_letters()))
