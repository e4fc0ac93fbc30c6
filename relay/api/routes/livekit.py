"""The LiveKit server's own webhooks: a hint to look at a room at once."""

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from relay.api.answers import WebhookReceipt
from relay.api.backend import LiveKitWebhooks
from relay.api.problems import ALWAYS, Problem, documented

PATH = "/v1/livekit/webhook"
MOST_BODY = 512 * 1024
"""Bytes of a webhook: it has the metadata and attributes of a room and a participant, each up to 64 KiB."""

_BODY = {
    "required": True,
    "description": "LiveKit's WebhookEvent.",
    "content": {"application/webhook+json": {"schema": {"type": "object"}}},
}


def router(webhooks: LiveKitWebhooks) -> APIRouter:
    routes = APIRouter(tags=["livekit"], responses=documented((*ALWAYS, 401, 403, 413)))

    @routes.post(PATH, openapi_extra={"requestBody": _BODY})
    async def livekit_webhook(request: Request) -> WebhookReceipt:
        """Take a webhook of the LiveKit server, which signs it: it needs no token. Only with `api.livekit_webhook`."""
        authorization = request.headers.get("authorization", "")
        if not webhooks.signed(authorization):
            raise _unsigned()  # before the body is read
        try:
            body = await request.body()
        except ClientDisconnect:
            raise Problem(400, "The body ended early.") from None
        looks = webhooks.take(authorization, body)
        if looks is None:
            raise _unsigned()
        return WebhookReceipt(looks=looks)

    return routes


def _unsigned() -> Problem:
    return Problem(
        401,
        "Only the LiveKit server may send this, signed with the key in livekit.api_key.",
        headers={"WWW-Authenticate": 'Bearer realm="livekit"'},
    )
