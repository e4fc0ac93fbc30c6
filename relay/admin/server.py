"""The admin endpoints: liveness, readiness and metrics."""

from collections.abc import Callable, Collection, Mapping, Sequence

from aiohttp import web

from relay.admin.bounds import LIFETIME_S, MOST_CONNECTIONS, BoundedServer, foreign_host
from relay.admin.metrics import CONTENT_TYPE, Counts, Gauge, Metrics
from relay.config.fields import split_address
from relay.errors import ConfigError

Readiness = Mapping[str, Callable[[], str | None]]
"""Checks by name. Each returns ``None`` if its part is ready, else the reason, which the response shows."""


class Admin:
    """``/healthz`` answers 200 while the process runs; ``/readyz`` 200 when every check is ready, else 503.

    Both answer JSON: ``{"status": "ok"}`` and ``{"ready": false, "checks": {"worker": "not registered"}}``, where a
    ready check is ``null``. ``/metrics`` returns the ``gauges`` for Prometheus. Nothing served here is secret. Each
    connection serves one request.
    """

    def __init__(
        self,
        listen: str,
        readiness: Readiness,
        gauges: Sequence[Gauge] = (),
        counts: Sequence[Counts] = (),
        *,
        hosts: Collection[str] = (),
        lifetime_s: float = LIFETIME_S,
    ) -> None:
        """``hosts``: accepted host names, besides those that cannot be a web site's."""
        self._host, self._port = split_address(listen)
        self._hosts = {name.lower() for name in (self._host, *hosts)}
        self._readiness = readiness
        self._figures = Metrics(gauges, counts)
        self._pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        self._lifetime_s = lifetime_s

    async def start(self) -> None:
        """Start the server. Raises :class:`ConfigError` if the address cannot be used."""
        server = BoundedServer(self._answer, lifetime_s=self._lifetime_s, access_log=None)  # needs the running loop
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        try:
            # asyncio accepts as many connections at once as the backlog has places, each of which is a descriptor
            await web.TCPSite(self._runner, self._host, self._port, backlog=MOST_CONNECTIONS).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"admin.listen: {self._host}:{self._port} cannot be listened on ({error.strerror}); "
                "choose another address, or null for none"
            ) from None

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port that is listened on; useful if the configured one is 0."""
        port: int = self._runner.addresses[0][1]
        return port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        answer = self._page(request)
        answer.force_close()
        return answer

    def _page(self, request: web.BaseRequest) -> web.Response:
        if foreign_host(request.headers.get("Host"), self._hosts):
            return web.Response(status=421, text="not a name of this relay; admin.allowed_hosts names more\n")
        page = self._pages.get(request.path)
        if page is None:
            return web.Response(status=404, text="/healthz, /readyz or /metrics\n")
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, headers={"Allow": "GET, HEAD"})
        return page()

    def _healthz(self) -> web.Response:
        return web.json_response({"status": "ok"})

    def _readyz(self) -> web.Response:
        checks = {name: check() for name, check in self._readiness.items()}
        ready = not any(checks.values())
        return web.json_response({"ready": ready, "checks": checks}, status=200 if ready else 503)

    def _metrics(self) -> web.Response:
        return web.Response(body=self._figures.page(), headers={"Content-Type": CONTENT_TYPE})
