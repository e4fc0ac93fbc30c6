"""Builds the events about a stream's detectors."""

from relay.clock import instant
from relay.events.envelope import Detector
from relay.events.source import SourceFailed, SourceFailedData, SourceName, SourceRecovered, SourceRecoveredData
from relay.speech.emission import Emission
from relay.speech.observations import SourceDown, SourceUp
from relay.speech.utterance import Utterance

TRANSCRIBERS = ("stt", "realtime")
"""Without these, speech is still detected; without any other source, the rest of the speech is unknown."""


def source_failed(emission: Emission, down: SourceDown, utterance: Utterance | None) -> None:
    """``utterance`` is the one in which the source failed."""
    data = SourceFailedData(detector=down.detector, reason=down.reason, failed_at=instant(down.failed_at))
    emission.write(SourceFailed, data, _reporter(down.detector), utterance=utterance)


def source_recovered(emission: Emission, up: SourceUp) -> None:
    data = SourceRecoveredData(
        detector=up.detector,
        reason=up.reason,
        failed_at=instant(up.failed_at),
        gone_ms=up.gone_ms,
        missed_ms=up.missed_ms,
    )
    emission.write(SourceRecovered, data, _reporter(up.detector))


def _reporter(source: SourceName) -> Detector:
    return "room" if source == "audio" else source
