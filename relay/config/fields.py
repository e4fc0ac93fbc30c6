"""The value types of config.yaml and their rules. A message states the problem and, after ``;``, the cure.

No message repeats the value: it may be a secret.
"""

import base64
import difflib
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
)

from relay.config import quotes
from relay.config.tls import readable, trusting
from relay.documented import Documented
from relay.events.catalog import CATALOG, unknown_patterns

PARTICIPANT_KINDS = ("standard", "ingress", "egress", "sip", "agent", "connector", "bridge")
"""``ParticipantInfo.Kind`` of the LiveKit protocol, in lower case."""

NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""The pattern of the name of an endpoint, a token or a tenant."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset(
    {
        *("content-type", "content-length", "host", "user-agent", "accept-encoding", "content-encoding"),
        *("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"),  # of the connection
    }
)
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
_HOST = re.compile(r"[\w.:-]+")
_LONGEST_URL = 8192
_OWN_PREFIXES = ("relay-", "webhook-", "proxy-")


LONGEST = timedelta(days=36500)
"""The system cannot represent or show times further ahead than this."""

_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_WRITTEN = re.compile(r"\s*".join(rf"(?:{_NUMBER}\s*{unit}(?![a-z]))?" for unit in _SECONDS))
_BARE = re.compile(_NUMBER)
_MOST_CHARACTERS = 40


class Section(Documented):
    """A section of config.yaml. An unknown key is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_timedelta="float")


def parse_duration(value: object) -> timedelta:
    """Parse ``250ms``, ``1.5s``, ``5m30s``, ``1h``, ``7d`` or a number of seconds. Raises ``ValueError`` otherwise."""
    if isinstance(value, timedelta):
        return value
    seconds = _seconds(value)
    if seconds is None:
        raise ValueError("not a duration; write 250ms, 10s, 5m, 5m30s, 1h, 7d or a number of seconds")
    if seconds > LONGEST.total_seconds():
        raise ValueError(f"too long; write {LONGEST.days}d or less")
    return timedelta(seconds=seconds)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, int) and abs(value) > 10**_MOST_CHARACTERS:  # Python refuses to format a very long one
        return None
    written = str(value).strip()
    if len(written) > _MOST_CHARACTERS:
        return None
    if bare := _BARE.fullmatch(written):
        return float(bare[1])
    parts = _WRITTEN.fullmatch(written)
    if parts is None or not written:
        return None
    return sum(float(number) * unit for number, unit in zip(parts.groups(), _SECONDS.values(), strict=True) if number)


def is_unicode(text: str) -> bool:
    r"""Whether a text can be sent and stored: JSON and YAML can write half a surrogate pair, such as ``\ud800``."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def nearest(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that this one was probably meant to be."""
    if len(word) > 100:  # a comparison would take long
        return None
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.6)), None)


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("is zero; it must be longer")
    return value


def _event_pattern(value: str) -> str:
    if unknown_patterns((value,)):
        families = tuple(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in CATALOG if "." in name))
        meant = nearest(value, (*CATALOG, *families))
        cure = f"did you mean {meant}?" if meant else f"one of {', '.join(families)} or a single type"
        raise ValueError(f"no event type is called {value}; {cure}")
    return value


def _kind(value: str) -> str:
    if value not in PARTICIPANT_KINDS:
        raise ValueError(f"not a kind of participant; one of {', '.join(PARTICIPANT_KINDS)}")
    return value


def _glob(value: str) -> str:
    if wrong := quotes.around(value):
        raise ValueError(wrong)
    return value


def _bare(value: object) -> object:
    """Remove blanks and line ends around a text; refuse quotes around it."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if wrong := quotes.at_an_end(value):
        raise ValueError(wrong)
    return value


def bare_secret(value: object) -> object:
    """As ``_bare``, for a text that is not shown."""
    return _bare(value.get_secret_value() if isinstance(value, SecretStr) else value)


def _unbroken(value: object) -> object:
    """An address without characters that a URL parser would silently remove."""
    value = _bare(value)
    if isinstance(value, str):
        if _BLANK.search(value):
            raise ValueError("has a blank or a line break inside; take it out")
        if len(value) > _LONGEST_URL:
            raise ValueError(f"longer than {_LONGEST_URL} characters; shorten it")
    return value


def _endpoint_url(value: AnyHttpUrl) -> AnyHttpUrl:
    if value.username or value.password:
        raise ValueError("carries credentials, which end up in logs; put them in headers: {Authorization: …}")
    if value.port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    return value


def _livekit_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        known = parts.scheme in ("ws", "wss", "http", "https") and parts.port != 0
    except ValueError:  # a port that is not a number, brackets without an address
        known = False
    if not known or not _HOST.fullmatch(parts.hostname or ""):
        raise ValueError("not the address of a LiveKit server; write it like wss://livekit.example.com")
    if parts.username or parts.password:
        raise ValueError("carries credentials, which end up in logs; write livekit.api_key and livekit.api_secret")
    return value


_POSTGRESQL = "postgresql://user@host/database"


def _outbox_url(value: str) -> str:
    if value.startswith("postgresql:"):
        return _postgresql_url(value)
    if value.startswith("postgres:"):
        raise ValueError(f"the scheme is postgresql://, not postgres:; write {_POSTGRESQL}")
    path = value.removeprefix("sqlite:///")
    if path == value or not path.strip("/"):
        if not value.startswith("sqlite:"):
            raise ValueError(f"not the URL of a database; write sqlite:///relative/path.db or {_POSTGRESQL}")
        raise ValueError("not a SQLite URL; write sqlite:///relative/path.db or sqlite:////absolute/path.db")
    if ":memory:" in path:
        raise ValueError("a database in memory is not durable; write sqlite:///var/relay.db")
    return value


def _has_late_end(value: str) -> bool:
    """Whether a ``?`` is in the password: the user and the host are then on both sides of it, and no path is before."""
    before, _, after = value.removeprefix("postgresql://").partition("?")
    return "/" not in before and "@" in after


def _postgresql_url(value: str) -> str:
    # the last @ ends the password, unless it is in a parameter
    authority, at, _ = value.partition("?")[0].removeprefix("postgresql://").rpartition("@")
    if any(mark in authority for mark in "@/#[]") or (not at and _has_late_end(value)):
        raise ValueError("its user or password has @ / ? # or a bracket; write %40 %2F %3F %23, %5B and %5D for them")
    try:
        parts = urlsplit(value)
    except ValueError:  # brackets without an address
        raise ValueError(f"not the URL of a PostgreSQL database; write {_POSTGRESQL}") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0 and "," in parts.netloc:
        raise ValueError(
            "several servers are written as …/database?host=a:5432&host=b:5432&target_session_attrs=read-write"
        )
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    if not value.startswith("postgresql://"):
        raise ValueError(f"not the URL of a PostgreSQL database; write {_POSTGRESQL}")
    if len(parts.path) < 2:
        raise ValueError(f"names no database; write {_POSTGRESQL}")
    return value


def _signing_secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if wrong := quotes.at_an_end(text):
        raise ValueError(wrong)
    encoded = text.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        key = b""
    if encoded == text or not 24 <= len(key) <= 64:  # the sizes of the Standard Webhooks specification
        raise ValueError("not a signing secret: whsec_ and 24 to 64 bytes in base64; `speech-relay init` makes one")
    return value


def _one_or_more(value: object) -> object:
    """A list of secrets: given as one, or as one text with blanks between, as in a variable."""
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    if not isinstance(value, (str, SecretStr, list, tuple)):
        return (value,)  # the rules of a secret say that it is no text
    texts = [each.get_secret_value() if isinstance(each, SecretStr) else each for each in given]
    words = [part for each in texts if isinstance(each, str) for part in each.split()]
    if not all(isinstance(each, str) for each in texts):
        return value  # the rules of each secret say which is no text
    return tuple(dict.fromkeys(words))


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``. Raises ``ValueError`` for anything else."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None or int(parts["port"]) > 65535:
        raise ValueError("not an address; write it like 127.0.0.1:8790")
    return parts["v6"] or parts["host"], int(parts["port"])


_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Za-z:.%_-]+)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})")


def _address(value: str) -> str:
    split_address(value)
    return value


def _readable(value: Path) -> Path:
    readable(value)
    return value


def _authorities(value: Path) -> Path:
    trusting(value)
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    known: dict[str, str] = {}
    for name, text in value.items():
        if (other := known.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other} and {name} are one header; keep one")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an HTTP header; letters, digits and - only")
        if name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIXES):
            raise ValueError(f"{name} is set by the relay itself; take it out")
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            raise ValueError(f"the value of {name} has a line break or another control character; take it out")
        if not is_unicode(text):
            raise ValueError(f"the value of {name} has half a character; take it out")
    return {name: text.strip() for name, text in value.items()}


def _no_yes_or_no(value: object) -> object:
    if value is True or value is False:
        raise ValueError("a yes or no is not a number; write it in digits")
    return value


Whole = Annotated[int, BeforeValidator(_no_yes_or_no)]
Fraction = Annotated[float, BeforeValidator(_no_yes_or_no)]
"""Pydantic takes ``true`` for 1."""

Glob = Annotated[str, AfterValidator(_glob)]
Globs = tuple[Glob, ...]
"""Shell patterns: ``*``, ``?``, ``[ab]``."""

_AS_WRITTEN = {
    "anyOf": [{"type": "string", "examples": ["250ms", "10s", "5m30s", "7d"]}, {"type": "number", "minimum": 0}]
}
"""For OpenAPI: pydantic's own form, ``PT10S``, is not taken."""

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0)), WithJsonSchema(_AS_WRITTEN, mode="validation")
]
"""Written as ``250ms``, ``10s``, ``5m``, ``1h``, ``7d``, or a number of seconds."""

NOT_A_TIME = "not a time with its zone; write it like 2026-11-21T10:15:00Z"


def _written_time(value: object) -> object:
    """pydantic takes a number, in quotes too, for seconds or milliseconds since 1970: 3600, meant as an hour, is all
    that there is."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and _DATE.match(value)):
        raise ValueError(NOT_A_TIME)
    return value


_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
Moment = Annotated[AwareDatetime, BeforeValidator(_written_time)]
"""A time with its zone, as ISO 8601 has it."""

PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
EventPattern = Annotated[str, AfterValidator(_event_pattern)]
ParticipantKind = Annotated[str, AfterValidator(_kind)]
EndpointUrl = Annotated[AnyHttpUrl, BeforeValidator(_unbroken), AfterValidator(_endpoint_url)]
LiveKitUrl = Annotated[str, BeforeValidator(_unbroken), AfterValidator(_livekit_url)]
OutboxUrl = Annotated[str, BeforeValidator(_bare), AfterValidator(_outbox_url)]
ApiKey = Annotated[str, BeforeValidator(_bare)]
ApiSecret = Annotated[SecretStr, BeforeValidator(bare_secret)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
SigningSecrets = Annotated[tuple[SigningSecret, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
Address = Annotated[str, BeforeValidator(_unbroken), AfterValidator(_address)]
ReadableFile = Annotated[Path, AfterValidator(_readable)]
CaFile = Annotated[Path, AfterValidator(_authorities)]
Headers = Annotated[dict[str, str], AfterValidator(_headers)]
