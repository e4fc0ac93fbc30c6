"""``api``: the address of the HTTP API and who may use it. ``admin`` is its older name."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, IPvAnyNetwork, SecretStr, model_validator

from relay.config.fields import NAME, Address, Globs, Section, Whole, bare_secret, split_address
from relay.config.problems import KeyPath

DEFAULT_LISTEN = "127.0.0.1:8790"
_SHORTEST_TOKEN = 24


def _token(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < _SHORTEST_TOKEN or not all("!" <= character <= "~" for character in text):
        raise ValueError(
            f"not a token: at least {_SHORTEST_TOKEN} letters, digits and signs without blanks; "
            "`openssl rand -hex 32` makes one"
        )
    return value


TokenText = Annotated[SecretStr, BeforeValidator(bare_secret), AfterValidator(_token)]


class Token(Section):
    name: str = Field(pattern=NAME)
    """For the log. Lower-case letters, digits, ``-`` and ``_``."""
    token: TokenText
    """Sent as ``Authorization: Bearer …``. At least 24 characters; write it as ``${VAR}``."""
    endpoint: str | None = None
    """With it, the token may only read, and sees only what this endpoint receives. Without it and ``tenant``, it is an
    operator's and may do everything."""
    tenant: str | None = Field(default=None, pattern=NAME)
    """With it, the token may make, change and remove this tenant's endpoints at run time, and sees only what these
    receive."""
    rooms: Globs | None = None
    """With ``tenant``, which requires it: the rooms that this tenant's endpoints may get at most, by name; globs.
    ``["*"]`` is all of them."""

    @model_validator(mode="after")
    def _of_one(self) -> Self:
        if self.tenant is not None and self.endpoint is not None:
            raise ValueError("has an endpoint and a tenant; keep one of them")
        if self.tenant is not None and not self.rooms:
            raise ValueError('has a tenant and no rooms; name those that the tenant may hear, or write ["*"] for all')
        if self.tenant is None and self.rooms is not None:
            raise ValueError("has rooms and no tenant; take them out, or name the tenant")
        return self


class RuntimeEndpoints(Section):
    """Endpoints that are made over the API."""

    max: Whole = Field(default=10_000, ge=0)
    """How many there may be at a time."""
    max_per_tenant: Whole = Field(default=1_000, ge=0)
    """How many of them may be one tenant's."""
    allow: tuple[IPvAnyNetwork, ...] = ()
    """Networks that they may reach besides public addresses, such as ``10.1.0.0/16``."""


class Api(Section):
    listen: Address | None = DEFAULT_LISTEN
    """Address of the HTTP API, and of /healthz, /readyz and /metrics; null for none."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names accepted in requests to the address, such as relay.example.com. Addresses and localhost are always
    accepted, and where a token is required also names without a dot and names in .local, .internal, .svc and
    .localhost. Others get 421."""
    tokens: tuple[Token, ...] = ()
    """Who may use the HTTP API. Without any, everyone who reaches a loopback address may; any other address then
    refuses every request to /v1."""
    livekit_webhook: bool = False
    """Take the LiveKit server's own webhooks at /v1/livekit/webhook, and look at a room as soon as something happens in
    it. They are signed with ``livekit.api_key``, so they need no token. See docs/how-to/hear-rooms-at-once.md."""
    runtime_endpoints: RuntimeEndpoints = RuntimeEndpoints()
    playground: bool = False
    """Let operators join rooms called ``playground-…`` from the live page, with their browser's microphone. Off where
    the address is not a loopback one and no token is required."""


class Admin(Section):
    listen: Address | None = DEFAULT_LISTEN
    """The former name of ``api.listen``. Without a section ``api`` it is the address of /healthz, /readyz and /metrics,
    and the HTTP API is off; null for none."""
    allowed_hosts: tuple[str, ...] = ()
    """The former name of ``api.allowed_hosts``."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where the relay answers HTTP, and what."""

    key: str
    """The key of the address."""
    address: str
    allowed_hosts: tuple[str, ...]
    api: bool
    """Whether it serves /v1, besides health and metrics."""
    tokens: tuple[Token, ...] = ()
    livekit_webhook: bool = False
    """Whether /v1 takes the LiveKit server's webhooks."""
    playground: bool = False
    """Whether /v1 gives operators a token for a room."""
    runtime_endpoints: RuntimeEndpoints = field(default_factory=RuntimeEndpoints)

    @property
    def tenants(self) -> dict[str, tuple[str, ...]]:
        """The rooms of each tenant that has a token, as globs."""
        return {token.tenant: token.rooms or () for token in self.tokens if token.tenant is not None}

    @property
    def demands_token(self) -> bool:
        """Whether /v1 demands a token."""
        return bool(self.tokens) or not _is_loopback(split_address(self.address)[0])


def listening(api: Api | None, admin: Admin) -> ListenAddress | None:
    """What the two sections come to; None if nothing listens. ``admin`` is ignored beside ``api``."""
    if api is not None:
        if api.listen is None:
            return None
        return ListenAddress(
            "api.listen",
            api.listen,
            api.allowed_hosts,
            api=True,
            tokens=api.tokens,
            livekit_webhook=api.livekit_webhook,
            runtime_endpoints=api.runtime_endpoints,
            playground=api.playground and (bool(api.tokens) or _is_loopback(split_address(api.listen)[0])),
        )
    if admin.listen is None:
        return None
    key = "admin.listen" if admin.model_fields_set else "api.listen"  # the former name, only where it is written
    return ListenAddress(key, admin.listen, admin.allowed_hosts, api=False)


def former_name(*, api: bool, admin: bool) -> str | None:
    """The notice about the section ``admin``, if the configuration has it. The arguments: which sections it has."""
    if not admin:
        return None
    if api:
        return "The section admin is ignored beside api: take it out."
    return "admin is the former name of the section api: rename it, which also serves the HTTP API at /v1."


def unusable_tokens(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """Tokens that name no endpoint of the configuration, have the name or the text of an earlier one, or other rooms
    than an earlier one of their tenant."""
    tokens, endpoints = _dicts(_get(values.get("api"), "tokens")), _dicts(values.get("endpoints"))
    known = {_text(endpoint.get("name")) for _, endpoint in endpoints}
    names: set[object] = set()
    texts: set[object] = set()
    rooms_of: dict[str, object] = {}
    for index, token in tokens:
        at: KeyPath = ("api", "tokens", index)
        name, text, endpoint = (_text(token.get(key)) for key in ("name", "token", "endpoint"))
        if endpoint is not None and endpoint not in known:
            yield (*at, "endpoint"), "no endpoint has this name; correct it"
        if name is not None and name in names:
            yield (*at, "name"), "another token has this name; give each its own"
        if text is not None and text in texts:
            yield (*at, "token"), "another token is the same; give each its own"
        tenant = _text(token.get("tenant"))
        if tenant is not None and rooms_of.setdefault(tenant, token.get("rooms")) != token.get("rooms"):
            yield (*at, "rooms"), "another token of this tenant has other rooms; give both the same"
        names.add(name)
        texts.add(text)


def _dicts(value: object) -> list[tuple[int, dict[str, Any]]]:
    items = value if isinstance(value, (list, tuple)) else ()
    return [(index, each) for index, each in enumerate(items) if isinstance(each, dict)]


def _get(section: object, key: str) -> object:
    return section.get(key) if isinstance(section, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
