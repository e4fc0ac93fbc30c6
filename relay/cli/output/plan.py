"""Describes a configuration's effect in words and as JSON, without secrets or credentials."""

from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from relay.config.api import former_name, listening
from relay.config.capture import Participants
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.outbox.log.processes import Role
from relay.outbox.opening import shown


def plan(config: Config) -> dict[str, Any]:
    """The plan as JSON values."""
    served = listening(config.api, config.admin)
    return {
        "livekit": config.livekit.url,
        "rooms": list(config.capture.rooms),
        "participants": list(config.capture.participants.kinds),
        "sources": list(config.capture.participants.sources),
        "vad": None if _hears_otherwise(config) else config.capture.vad.provider,
        "stt": None if _hears_otherwise(config) else _stt(config),
        "realtime": _realtime(config),
        "observe": config.capture.observe.agent if config.capture.observe else None,
        "forward_transcripts": config.capture.forward_transcripts,
        "visible": config.capture.visible,
        "outbox": shown(config.outbox.url),
        "retention_ms": config.outbox.retention // timedelta(milliseconds=1),
        "admin": served.address if served else None,
        "api": served is not None and served.api,
        "endpoints": [
            {
                "name": endpoint.name,
                "url": shown_url(endpoint),
                "events": list(endpoint.events),
                "rooms": list(endpoint.rooms),
                "participants": list(endpoint.participants),
                "text": endpoint.include.text,
                "format": endpoint.format,
                "signing": endpoint.signing,
                "signed": endpoint.signing != "none",
                "public_only": endpoint.egress.public_only,
            }
            for endpoint in config.endpoints
        ],
    }


def sentences(config: Config, role: Role = "run") -> list[str]:
    """The plan of a process as text, one sentence or two each."""
    lines = _listening(config) if role != "dispatch" else [f"Listens to no room; reads {shown(config.outbox.url)}."]
    lines += (
        [*_sending(config), _removing(config.outbox.retention)]
        if role != "worker"
        else ["Sends nothing: `speech-relay dispatch` does."]
    )
    told = _told(config) if role != "dispatch" else None
    lines += filter(None, (_served(config), told, former_name(api=config.api is not None, admin=_names_admin(config))))
    return lines


def _listening(config: Config) -> list[str]:
    capture = config.capture
    if not capture.rooms:
        return [f"Listens to no room, because capture.rooms is empty; keeps events in {shown(config.outbox.url)}."]
    return [
        f"Listens on {config.livekit.url or 'no LiveKit server yet'} to rooms {_list(capture.rooms)}, "
        f"to {_heard(capture.participants)}, with {_detectors(config)}; keeps events in {shown(config.outbox.url)}.",
        _in_the_room(config),
    ]


def _sending(config: Config) -> list[str]:
    lines = []
    for endpoint in config.endpoints:
        narrowed = "" if endpoint.rooms == ("*",) else f" of rooms {_list(endpoint.rooms)}"
        lines.append(
            f"Sends {_list(endpoint.events)}{narrowed} to {endpoint.name} at {shown_url(endpoint)} ({_how(endpoint)})."
        )
    if lines:
        return lines
    served = listening(config.api, config.admin)
    if served is not None and served.api:
        return ["Sends only to endpoints made over the HTTP API: the configuration has none."]
    return ["Sends nothing: there are no endpoints."]


def _removing(retention: timedelta) -> str:
    when = f"{_in_words(retention)} after" if retention else "as soon as"
    return f"Removes events from the log {when} every endpoint has them."


def _in_words(period: timedelta) -> str:
    """The exact period, so that 7 seconds are not taken for 7 days: ``1 day 12 hours``."""
    rest, parts = period, []
    for unit in ("day", "hour", "minute", "second", "millisecond", "microsecond"):
        count, rest = divmod(rest, timedelta(**{f"{unit}s": 1}))
        if count:
            parts.append(f"{count:,} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts)


def _served(config: Config) -> str | None:
    served = listening(config.api, config.admin)
    if served is None or not served.api:
        return None
    if served.tokens:
        return f"Serves the HTTP API at {served.address} to the holders of {len(served.tokens)} tokens."
    if served.demands_token:
        return f"Refuses every request to /v1 at {served.address}, which is no loopback address: add api.tokens."
    return f"Serves the HTTP API, with what was said, to everyone on this machine at {served.address}."


def _told(config: Config) -> str | None:
    served = listening(config.api, config.admin)
    if served is None or not served.livekit_webhook:
        unheard = config.api is not None and config.api.livekit_webhook
        return "Takes no webhooks of LiveKit: api.livekit_webhook needs an address in api.listen." if unheard else None
    seconds = config.capture.poll_interval.total_seconds()
    return (
        f"Looks at a room when LiveKit's webhook to {served.address}/v1/livekit/webhook names it, and at all rooms "
        f"every {seconds:g} s."
    )


def _names_admin(config: Config) -> bool:
    return "admin" in config.model_fields_set


def _heard(participants: Participants) -> str:
    everything = Participants.model_fields["sources"].default
    narrowed = "" if participants.sources == everything else f" ({_list(participants.sources)} only)"
    return f"{_list(participants.kinds)} participants{narrowed}"


def _how(endpoint: Endpoint) -> str:
    signed = {"standard": "signed", "livekit": "signed as LiveKit signs", "none": "NOT signed"}[endpoint.signing]
    parts = [
        signed,
        "as CloudEvents" if endpoint.format == "cloudevents" else "",
        "" if endpoint.include.text else "without text",
        "with a client certificate" if endpoint.tls.cert else "",
        "to public addresses only" if endpoint.egress.public_only else "",
    ]
    return ", ".join(filter(None, parts))


def shown_url(endpoint: Endpoint) -> str:
    """The URL's destination, without what follows the host: a path or a query may grant access."""
    parts = urlsplit(str(endpoint.url))
    rest = "/…" if parts.path not in ("", "/") or parts.query or parts.fragment else "/"
    return urlunsplit((parts.scheme, parts.netloc, rest, "", ""))


def _in_the_room(config: Config) -> str:
    capture = config.capture
    seen = "Visible in each room as an agent that listens" if capture.visible else "Hidden in each room"
    if not capture.forward_transcripts:
        return f"{seen}; publishes nothing there, and has no permission to."
    unseen = "" if capture.visible else "; frontends made for agents show them with capture.visible only"
    return f"{seen}; publishes transcripts to everyone there, with permission for data and for nothing else{unseen}."


def _detectors(config: Config) -> str:
    capture = config.capture
    if capture.observe is not None:
        return f"what the session of agent {capture.observe.agent} hears there, and no detectors of its own"
    if capture.realtime is not None:
        return f"voice activity and transcripts from the realtime model {_realtime(config)}, which never answers"
    heard = "" if capture.stt.provider == "none" else f", transcripts from {_stt(config)}"
    return f"voice activity from {capture.vad.provider}{heard}"


def _hears_otherwise(config: Config) -> bool:
    return config.capture.realtime is not None or config.capture.observe is not None


def _realtime(config: Config) -> str | None:
    realtime = config.capture.realtime
    if realtime is None:
        return None
    return f"{realtime.provider}/{realtime.model}" if realtime.model else realtime.provider


def _stt(config: Config) -> str:
    stt = config.capture.stt
    model = stt.options.get("model")
    return f"{stt.provider}/{model}" if isinstance(model, str) else stt.provider


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(words)
