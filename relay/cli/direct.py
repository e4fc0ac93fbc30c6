"""Sends one event to one endpoint at once, bypassing the log, as the dispatcher would."""

import asyncio

import typer

from relay.cli.log import CLOCK
from relay.cli.output.formatting import plain, write
from relay.config.endpoint import Endpoint
from relay.dispatch.endpoint.route import Route
from relay.dispatch.http.outcome import Delivered, Failed, Outcome
from relay.dispatch.http.transport import open_transport
from relay.dispatch.projection import Projections
from relay.outbox.records import Record


def send(endpoint: Endpoint, record: Record) -> Outcome:
    """POST it once, signed and marked as a sample, after applying the endpoint's ``include``."""
    return asyncio.run(_send(endpoint, record))


async def _send(endpoint: Endpoint, record: Record) -> Outcome:
    route, transport = Route(endpoint), open_transport(endpoint)
    try:
        body = Projections().of(record, route.shape)
        headers = [*route.headers(record, body, 0, CLOCK.now_ms()), (b"relay-sample", b"true")]
        return await transport.post(route.url, headers, body, route.timeout)
    finally:
        await transport.aclose()


def report(endpoint: Endpoint, record: Record, outcome: Outcome, *, as_json: bool) -> int:
    """Print the response; returns the exit code: 0 if it was accepted."""
    taken = isinstance(outcome, Delivered)
    status = outcome.status if isinstance(outcome, Delivered | Failed) else None
    match outcome:
        case Delivered():
            why = None
        case Failed():
            why = outcome.reason
        case _:
            why = f"this machine's own fault: {outcome.detail}"
    if as_json:
        write(
            {
                "endpoint": endpoint.name,
                "event_id": record.id,
                "type": record.type,
                "taken": taken,
                "stage": outcome.stage if isinstance(outcome, Failed) else "ok" if taken else "fault",
                "status": status,
                "reason": why,
                "elapsed_ms": round(outcome.elapsed_ms, 1),
            }
        )
    elif taken:
        typer.echo(f"{endpoint.name} took {record.type} {record.id}: {status} after {outcome.elapsed_ms:.0f} ms")
    else:
        typer.echo(f"{endpoint.name} did not take {record.type} {record.id}: {plain(why)}", err=True)
    return 0 if taken else 1
