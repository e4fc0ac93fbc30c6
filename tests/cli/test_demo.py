"""The demo's reckoning finds what it claims to find, and its files are read or refused with one line."""

import json
import re
from pathlib import Path

import pytest

from relay.cli.demo.tally import Tally
from relay.cli.receiver import Arrival
from relay.events.envelope import StreamEvent, StreamRef
from relay.events.samples import SAMPLES
from tests.support.audio.speech import needs_moonshine
from tests.support.cli import speech_relay_process

TOLD = ("stream.started", "speech.started", "transcript.final", "speech.ended", "utterance.completed", "stream.ended")


def arrival(name: str, sequence: int, previous: int, *, error: str | None = None) -> Arrival:
    sample = SAMPLES[name]
    assert isinstance(sample, StreamEvent)
    stream = StreamRef(id="str_1", sequence=sequence, track_sid="TR_1", track_source="file")
    event = sample.model_copy(update={"id": f"evt_1_{sequence}", "stream": stream})
    headers = {"webhook-id": event.id, "relay-previous-sequence": str(previous)}
    received_ns = round(event.timing.emitted_at.timestamp() * 1000) * 1_000_000 + 2_000_000
    return Arrival(headers, event.model_dump_json().encode(), received_ns, error)


def tally(*arrivals: Arrival) -> Tally:
    counted = Tally()
    for one in arrivals:
        counted.take(one, accepted=True)
    return counted


def whole() -> list[Arrival]:
    return [arrival(name, n, n - 1) for n, name in enumerate(TOLD, start=1)]


def test_a_whole_story_has_no_faults() -> None:
    report = tally(*whole()).report(missing=0)
    assert report.faults == []
    assert (report.starts, report.ends, report.finals, report.utterances, report.delivered) == (1, 1, 1, 1, 6)
    assert report.p50_ms == report.p95_ms == 2.0


@pytest.mark.parametrize("left_out", ["speech.ended", "utterance.completed", "speech.started"])
def test_what_is_not_paired_is_found(left_out: str) -> None:
    told = [one for one in whole() if one.event["type"] != left_out]
    assert tally(*told).report(missing=0).unpaired > 0


def test_a_gap_an_unverified_signature_and_a_missing_event_are_faults() -> None:
    first, second, *_ = whole()
    assert tally(second).report(missing=0).out_of_order == 1
    assert tally(first, arrival("speech.started", 2, 1, error="no")).report(missing=0).unverified == 1
    assert any("did not arrive" in fault for fault in tally(*whole()).report(missing=1).faults)


def test_an_interim_that_was_answered_too_late_to_count_is_no_gap() -> None:
    told = [arrival(name, n, 2 if n == 4 else n - 1) for n, name in enumerate(TOLD, start=1)]
    assert tally(*told).report(missing=0).out_of_order == 0


def test_a_refused_first_try_is_a_retry_and_a_second_arrival_a_duplicate() -> None:
    first, *rest = whole()
    counted = Tally()
    counted.take(first, accepted=False)
    for one in (first, first, *rest):
        counted.take(one, accepted=True)
    report = counted.report(missing=0)
    assert (report.retries, report.duplicates, report.delivered, report.faults) == (1, 1, 6, [])


@needs_moonshine
def test_the_demo_on_bundled_speech(tmp_path: Path) -> None:
    run = speech_relay_process("demo", "--fast", "--json", str(bundled("beckett.wav")), cwd=tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    *events, last = [json.loads(line) for line in run.stdout.splitlines()]
    summary = last["summary"]
    assert summary["faults"] == []
    assert summary["starts"] == summary["ends"] >= 4
    assert summary["finals"] >= 4
    assert summary["retries"] == 3
    assert {event["type"] for event in events} >= {
        "stream.started",
        "speech.started",
        "transcript.final",
        "stream.ended",
    }


@needs_moonshine
def test_the_demo_shows_an_utterance_with_its_text_and_what_to_do_next(tmp_path: Path) -> None:
    run = speech_relay_process("demo", "--fast", str(bundled("beckett.wav")), cwd=tmp_path, COLUMNS="80")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "one webhook in full: utterance.completed" in run.stdout
    shown = run.stdout.partition("one webhook in full")[2]
    assert re.search(r'"text": "\w', shown)
    assert re.search(r'"duration_ms": \d', shown)
    assert re.search(r"utterance\.completed *[\d.]+ s, \d+ words: “", run.stdout)
    assert not re.search(r"\b0 words", run.stdout)
    next_steps = run.stdout.partition("Next, with your own rooms:")[2]
    commands = [line.split("  ")[0] for line in next_steps.split("\n") if "speech-relay" in line]
    program = commands[-1].removesuffix(" run")
    assert commands == [f"{program} init --url https://your.app/hooks", f"{program} check", f"{program} run"]


@needs_moonshine
def test_a_file_that_is_no_audio_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("no audio at all")
    run = speech_relay_process("demo", "notes.wav", "--fast", "--json", cwd=tmp_path)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("notes.wav: ")


def bundled(name: str) -> Path:
    from tests.support.audio.speech import speech

    return Path(speech(name))
