"""Samples of events about the relay itself."""

from typing import Any

from relay.events.envelope import Event
from relay.events.operator import (
    CaptureLimited,
    CaptureLimitedData,
    DeliveryDead,
    DeliveryParked,
    EndpointDisabled,
    EndpointDisabledData,
    EndpointEnabled,
    EndpointEnabledData,
    Ping,
    PingData,
    RelayStreamRef,
    UndeliveredData,
)
from relay.events.samples.scene import ROOM, STREAM, at


def told_to_operators() -> dict[str, Event]:
    """One endpoint fails for a long time; another is tested."""
    stream = "01KAJ8R1C7M3Q9S5W2X4Y6Z8A0"
    undelivered = UndeliveredData(
        endpoint="crm",
        event_id=f"evt_{STREAM}_8",
        event_type="transcript.final",
        stream_id=f"str_{STREAM}",
        sequence=8,
        attempts=5,
        reason="status 500",
    )

    def fields(sequence: int, ms: int) -> dict[str, Any]:
        return {
            "timestamp": at(ms),
            "id": f"evt_{stream}_{sequence}",
            "stream": RelayStreamRef(id=f"str_{stream}", sequence=sequence),
        }

    disabled = EndpointDisabledData(
        endpoint="crm", reason="failing", failing_since=at(7200), last_error="connect: Connection refused"
    )
    about_rooms = "01KAJ8R1D2N4R6T8V0X2Z4B6D8"
    limited = CaptureLimitedData(limit="max_tracks_per_participant", maximum=2, room=ROOM, participant_sid="PA_8Uu4Kq")
    enabled = EndpointEnabledData(endpoint="crm", replay=True, disabled_at=at(432_007_200))
    return {
        "delivery.parked": DeliveryParked(**fields(1, 307_200), data=undelivered),
        "delivery.dead": DeliveryDead(**fields(2, 284_107_200), data=undelivered.model_copy(update={"attempts": 12})),
        "endpoint.disabled": EndpointDisabled(**fields(3, 432_007_200), data=disabled),
        "endpoint.enabled": EndpointEnabled(**fields(4, 434_000_000), data=enabled),
        "capture.limited": CaptureLimited(
            timestamp=at(400),
            id=f"evt_{about_rooms}_1",
            stream=RelayStreamRef(id=f"str_{about_rooms}", sequence=1),
            data=limited,
        ),
        "ping": Ping(timestamp=at(0), id="evt_01KAJ8R0V3N7T1B5G9H2K4M6P8", data=PingData(endpoint="crm")),
    }
