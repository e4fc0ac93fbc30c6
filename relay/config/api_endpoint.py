"""Endpoints that are made over the HTTP API: what a request may choose, and what it comes to.

A request comes from someone who has a token, not from the operator of the host. It may name nothing of the host (files,
variables, the LiveKit project's key), reach nothing but public addresses, and take only so much of the relay.
"""

import json
from collections.abc import Iterable
from datetime import UTC, timedelta
from itertools import islice
from typing import Any, Self

from pydantic import AnyUrl, Field, IPvAnyNetwork, field_validator, model_validator

from relay.config.endpoint import Egress, Endpoint, EndpointOptions
from relay.config.fields import NAME, Globs, Moment, Whole, is_unicode
from relay.events.catalog import CATALOG, unknown_patterns

MOST_TIMEOUT = timedelta(seconds=60)
"""Leases outlast the longest attempt of any endpoint: a long timeout would delay all of them after a crash."""
MOST_CONNECTION_AGE = timedelta(hours=1)
MOST_CONCURRENCY = 32
LEAST_WAIT = timedelta(seconds=1)
"""Between two attempts: one that fails at once would be made without a pause, each with a line of the log."""
MOST_WAIT = timedelta(days=7)
MOST_RETRIES = 32
MOST_DISABLE_AFTER = timedelta(days=30)
MOST_GLOBS = 64
LONGEST_GLOB = 256
MOST_STARS = 8
"""In one glob: to compile one takes time, and longer the more it has."""
MOST_UNKNOWN = 3
"""Entries of ``events`` that match no type, each of which is named with what was probably meant."""
MOST_HEADERS = 4096
LONGEST_URL = 2048


class ApiEndpointOptions(EndpointOptions):
    """What an endpoint made over the API may choose. It is always signed, with a secret that the relay makes, and sent
    to public addresses only."""

    concurrency: Whole = Field(default=16, ge=1, le=MOST_CONCURRENCY)
    """Maximum requests in flight to this endpoint. Fewer after timeouts, 429, 502, 503 and 504, until it recovers."""
    tenant: str | None = Field(default=None, pattern=NAME)
    """Whose endpoint it is. A token of a tenant need not say it, and cannot say another."""
    expires_at: Moment | None = None
    """From then on it gets nothing, and is removed."""

    @field_validator("expires_at")
    @classmethod
    def _in_utc(cls, value: Moment | None) -> Moment | None:
        try:
            return None if value is None else value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is before the year 1 or after the year 9999 in UTC") from None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for key, most in (
            ("timeout", MOST_TIMEOUT),
            ("connect_timeout", MOST_TIMEOUT),
            ("max_connection_age", MOST_CONNECTION_AGE),
        ):
            if getattr(self, key) > most:
                raise ValueError(f"{key} is longer than {most.total_seconds():g} s")
        if self.disable_after is None or self.disable_after > MOST_DISABLE_AFTER:
            raise ValueError(f"disable_after must be a duration of at most {MOST_DISABLE_AFTER.days} days")
        if len(self.retry.schedule) > MOST_RETRIES or any(wait > MOST_WAIT for wait in self.retry.schedule):
            raise ValueError(f"retry.schedule may have {MOST_RETRIES} waits of at most {MOST_WAIT.days} days")
        if any(wait < LEAST_WAIT for wait in (*self.retry.schedule, *([self.breaker.rest] if self.breaker else []))):
            raise ValueError(f"a wait of retry.schedule, or breaker.rest, is shorter than {LEAST_WAIT.seconds} s")
        if self.retry.park_after > MOST_WAIT:
            raise ValueError(f"retry.park_after is longer than {MOST_WAIT.days} days")
        if (breaker := self.breaker) and (
            breaker.requests > 1000 or max(breaker.window, breaker.rest) > MOST_TIMEOUT * 60
        ):
            raise ValueError("breaker.requests may be 1000, and breaker.window and breaker.rest an hour, at most")
        return self

    @model_validator(mode="before")
    @classmethod
    def _few_globs(cls, given: Any) -> Any:
        """Before the patterns of ``events`` are compared with types: a very long one would stop the relay meanwhile."""
        for key in ("rooms", "participants", "events") if isinstance(given, dict) else ():
            texts = given.get(key)
            if not isinstance(texts, list | tuple):
                continue
            if len(texts) > MOST_GLOBS or any(isinstance(text, str) and len(text) > LONGEST_GLOB for text in texts):
                raise ValueError(f"{key} may have {MOST_GLOBS} entries of at most {LONGEST_GLOB} characters")
            if any(isinstance(text, str) and text.count("*") > MOST_STARS for text in texts):
                raise ValueError(f"an entry of {key} may have {MOST_STARS} stars at most")
            if key == "events":
                _few_unknown(texts)
        for section, key in (("retry", "schedule"), ("include", "attributes")):
            options = given.get(section) if isinstance(given, dict) else None
            entries = options.get(key) if isinstance(options, dict) else None
            if isinstance(entries, list) and len(entries) > MOST_GLOBS:
                raise ValueError(f"{section}.{key} may have {MOST_GLOBS} entries")
        return given

    @model_validator(mode="after")
    def _short(self) -> Self:
        attributes = self.include.attributes if isinstance(self.include.attributes, tuple) else ()
        if len(attributes) > MOST_GLOBS or any(len(text) > LONGEST_GLOB for text in attributes):
            raise ValueError(f"include.attributes may have {MOST_GLOBS} entries of at most {LONGEST_GLOB} characters")
        if any("\x00" in text or not is_unicode(text) for text in (*self.rooms, *self.participants, *attributes)):
            raise ValueError("a null character or half a character is in no room's or participant's name")
        if sum(len(name) + len(value) for name, value in self.headers.items()) > MOST_HEADERS:
            raise ValueError(f"headers may have {MOST_HEADERS} characters in all")
        if len(str(self.url)) > LONGEST_URL:
            raise ValueError(f"url is longer than {LONGEST_URL} characters")
        return self

    def written(self) -> str:
        """Everything but tenant and expiry as JSON: equal for equal options, and valid as options again."""
        chosen = self.model_dump(exclude_defaults=True, exclude={"tenant", "expires_at"})
        return json.dumps(chosen | {"url": self.url}, default=_plain, sort_keys=True)


def _few_unknown(events: Iterable[object]) -> None:
    """To look for what was meant takes a millisecond for each."""
    unknown = (each for each in events if isinstance(each, str) and each not in CATALOG and unknown_patterns((each,)))
    if len(list(islice(unknown, MOST_UNKNOWN + 1))) > MOST_UNKNOWN:
        raise ValueError(f"more than {MOST_UNKNOWN} entries of events name no type of event")


class ApiEndpoint(Endpoint):
    """An endpoint made over the API, as it is sent to."""

    tenant: str | None = None
    within: Globs = ("*",)
    """Rooms that it may get at most."""


def api_endpoint(
    name: str,
    written: str,
    *,
    secrets: Iterable[str],
    tenant: str | None,
    within: Iterable[str],
    allow: Iterable[IPvAnyNetwork],
) -> ApiEndpoint:
    """The endpoint of these options, as :meth:`ApiEndpointOptions.written` has them. ``allow``: networks that are not
    public and may be reached all the same, by the operator's choice.

    Raises pydantic's ``ValidationError`` for options that this version does not take.
    """
    return ApiEndpoint.model_validate(
        {
            **json.loads(written),
            "name": name,
            "signing": "standard",
            "secret": tuple(secrets),
            "egress": Egress(public_only=True, allow=tuple(allow)),
            "tenant": tenant,
            "within": tuple(within),
        }
    )


def _plain(value: Any) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case AnyUrl():
            return str(value)
    return list(value)
