"""Liveness, readiness and metrics."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from relay.api.problems import ALWAYS, documented
from relay.documented import Documented
from relay.telemetry.metrics import CONTENT_TYPE, Metrics

Readiness = Mapping[str, Callable[[], str | None]]
"""Checks by name. Each returns ``None`` if its part is ready, else the reason, which the response shows."""


class Alive(BaseModel):
    status: str


class Ready(Documented):
    ready: bool
    checks: dict[str, str | None]
    """The parts of the relay, and why each is not ready; null for one that is."""


def router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """``/healthz`` answers 200 while the process runs; ``/readyz`` 200 when every check is ready, else 503;
    ``/metrics`` for Prometheus. Nothing served here is secret."""
    routes = APIRouter(tags=["health"], responses=documented(ALWAYS))

    @routes.get("/healthz", responses={200: {"model": Alive}})
    async def healthz() -> Response:
        """Whether the process runs."""
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", responses={200: {"model": Ready}, 503: {"model": Ready, "description": "Not ready"}})
    async def readyz() -> Response:
        """Whether the relay is ready, and if not, why."""
        checks = {name: check() for name, check in readiness.items()}
        ready = not any(checks.values())
        return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)

    @routes.get(
        "/metrics",
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    async def get_metrics() -> Response:
        """Metrics in Prometheus's text format."""
        return Response(await metrics.scrape(), headers={"Content-Type": CONTENT_TYPE})

    return routes
