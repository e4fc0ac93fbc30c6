"""(c) One participant's CPU and memory, against the shortest path from a track to voice detection.

Each figure is a separate process. The relay's process and its baseline run at the same time, so that both see the same
machine conditions; fifty people fill a core, so those run one after the other. Two processes that share two cores slow
each other down, so the relay is also measured alone: that is the cost of a participant.
"""

import asyncio
import json
import subprocess
import sys

from bench.participant import SECONDS, Cost
from tests.support.providers.deepgram import Deepgram

DETECTORS = ("silero", "livekit")
SIZES = (1, 10, 25, 50)
BOTH_AT_ONCE = 25
LATE_S = 2.0
"""Detectors that are further behind than this do not keep up."""


async def measure() -> None:
    print(f"\n(c) a participant who speaks, {SECONDS:.0f} s each: CPU and memory, the relay / the bare pipeline")
    for detector in DETECTORS:
        for people in SIZES:
            await _compare(detector, 48_000, people)
        await _compare(detector, 16_000, 10)
    await _compare("livekit", 48_000, 25, reference="livekit")
    async with Deepgram([[]]) as provider:
        options = provider.options
        for detector in DETECTORS:
            cost = await _cost("stt", detector, 48_000, 10, options["base_url"], options["api_key"])
            print(f"    {detector:>8}, 48 kHz, 10 people, and speech-to-text: {_words(cost)}")


async def _compare(detector: str, rate: int, people: int, reference: str = "bare") -> None:
    costs = [_cost(how, detector, rate, people) for how in (reference, "relay")]
    bare, relay = await asyncio.gather(*costs) if people <= BOTH_AT_ONCE else [await cost for cost in costs]
    alone = await _cost("relay", detector, rate, people) if people <= BOTH_AT_ONCE else relay
    whose = {"bare": "bare", "livekit": "bare with LiveKit's own settings"}[reference]
    who = f"{detector:>8}, {rate // 1000} kHz, {people:>2} people"
    print(
        f"    {who}: {_words(relay)} / {whose} {_words(bare)}: {relay.cpu_percent / bare.cpu_percent:.2f};"
        f" alone {_words(alone)}",
        flush=True,
    )


def _words(cost: Cost) -> str:
    late = f", {cost.behind_s:.1f} s BEHIND" if cost.behind_s > LATE_S else ""
    return f"{cost.cpu_percent:.2f} % of a core, {cost.mib:.1f} MiB{late}"


async def _cost(how: str, detector: str, rate: int, people: int, *provider: str) -> Cost:
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.participant", how, detector, str(rate), str(people), *provider],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    output, _ = await asyncio.to_thread(child.communicate, None, 120)
    return Cost(**json.loads(output))
