"""What the outside may ask: is the process alive, is it ready, and how much does it hear."""

from collections.abc import Callable, Mapping, Sequence

from aiohttp import web

from relay.admin.metrics import CONTENT_TYPE, Counts, Gauge, Metrics
from relay.config.fields import split_address
from relay.errors import ConfigError

Readiness = Mapping[str, Callable[[], str | None]]
"""Checks by name. Each returns ``None`` when its part is ready, else the reason, which is shown to whoever asks."""


class Admin:
    """``/healthz`` answers 200 while the process runs; ``/readyz`` 200 when every check is ready, else 503.

    Both answer JSON: ``{"status": "ok"}`` and ``{"ready": false, "checks": {"worker": "not registered"}}``, where a
    ready check is ``null``. ``/metrics`` answers what ``gauges`` read, for Prometheus. Nothing that is served here is
    secret.
    """

    def __init__(
        self, listen: str, readiness: Readiness, gauges: Sequence[Gauge] = (), counts: Sequence[Counts] = ()
    ) -> None:
        self._host, self._port = split_address(listen)
        self._readiness = readiness
        self._figures = Metrics(gauges, counts)
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)

    async def start(self) -> None:
        """Begin to answer. Raises :class:`ConfigError` when the address cannot be had."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
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
        """The port that is listened on; of use where the configured one is 0."""
        port: int = self._runner.addresses[0][1]
        return port

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _: web.Request) -> web.Response:
        checks = {name: check() for name, check in self._readiness.items()}
        ready = not any(checks.values())
        return web.json_response({"ready": ready, "checks": checks}, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._figures.page(), headers={"Content-Type": CONTENT_TYPE})
