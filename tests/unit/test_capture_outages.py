"""Each outage is told once, and its end once."""

from aiohttp import ClientConnectionError
from livekit.agents import APIConnectionError, APIStatusError, APITimeoutError

from relay.capture.health.outages import Outages, kind_of
from relay.speech.observations import SourceDown, SourceUp
from tests.support.outbox.outbox_store import HandClock


def test_an_outage_is_told_once_and_so_is_its_end() -> None:
    clock, told, faults = HandClock(), list[SourceDown | SourceUp](), list[str]()
    outages = Outages(clock, told.append, faults.append)
    began = clock.now_ms()

    outages.up("stt", 0)
    clock.at += 1_000
    for _ in range(3):
        outages.down("stt", "refused", "it is refused", since_ms=400)
    outages.down("vad", "lost", "it is lost")
    clock.at += 5_000
    outages.up("stt", 300)
    outages.up("stt", 300)

    assert told == [
        SourceDown("stt", "refused", began + 600),
        SourceDown("vad", "lost", began + 1_000),
        SourceUp("stt", "refused", began + 600, gone_ms=5_400, missed_ms=300),
    ]
    assert faults == ["it is refused", "it is lost"]


def test_a_wall_clock_that_is_set_back_does_not_shorten_an_outage() -> None:
    clock, told = HandClock(), list[SourceDown | SourceUp]()
    outages = Outages(clock, told.append, lambda _: None)
    outages.down("stt", "lost", "it is lost")
    clock.at += 2_000
    clock.set_by = -3_600_000
    outages.up("stt", None)

    [_, up] = told
    assert isinstance(up, SourceUp)
    assert up.gone_ms == 2_000


def test_reasons_go_by_what_the_provider_answered() -> None:
    refused = [APIStatusError("", status_code=code) for code in (401, 402, 403, 429, 1008, 3009)]
    assert {kind_of(error) for error in refused} == {"refused"}
    away = [
        APIStatusError("", status_code=503),
        APIConnectionError(),
        APITimeoutError(),
        ClientConnectionError(),
        OSError(),
    ]
    assert {kind_of(error) for error in away} == {"unreachable"}
    assert {kind_of(error) for error in (APIStatusError("", status_code=1011), KeyError("text"))} == {"lost"}
