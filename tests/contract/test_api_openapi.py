"""What is served is what the OpenAPI document says."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.api import access
from tests.support.api import OPERATOR, TOKENS, serving
from tests.support.builders import endpoint
from tests.support.cli import environment

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance"
)


async def test_the_document_is_openapi_3_1_and_describes_every_operation(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        document = (await api.get("/openapi.json")).json()
        assert document["openapi"].startswith("3.1.")
        assert len(document["paths"]) > 15
        for operations in document["paths"].values():
            for operation in operations.values():
                assert operation["description"]
                assert {"400", "421", "500"} <= operation["responses"].keys()


async def test_a_client_can_be_made_from_the_document(tmp_path: Path) -> None:
    """Each operation has a short name of its own, and no type has a default that openapi-python-client refuses: it
    leaves out the operations with such a type."""
    async with serving(tmp_path) as api:
        document = (await api.get("/openapi.json")).json()
    names = [each["operationId"] for operations in document["paths"].values() for each in operations.values()]
    assert {"list_events", "put_endpoint", "get_transcript"} <= set(names)
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z]+(_[a-z]+){0,3}", name) for name in names)
    fields = [
        each for schema in document["components"]["schemas"].values() for each in schema.get("properties", {}).values()
    ]
    assert not [each for each in fields if "anyOf" in each and isinstance(each.get("default"), dict)]


async def test_a_body_of_the_documents_own_defaults_is_taken(tmp_path: Path) -> None:
    async with serving(tmp_path) as api:
        schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]

        def defaults(name: str) -> dict[str, Any]:
            fields = schemas[name]["properties"]
            return {key: each["default"] for key, each in fields.items() if each.get("default") is not None}

        options = defaults("ApiEndpointOptions")
        for part in ("include", "retry"):
            assert options[part] == defaults(part.title())
        options["breaker"] = defaults("Breaker")
        answer = await api.client.put("/v1/endpoints/crm", json={**options, "url": "https://crm.example.com/"})
        assert answer.status_code == 201, answer.text
        assert answer.json()["options"] == {"url": "https://crm.example.com/"}


async def test_no_generated_request_gets_an_undocumented_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With schemathesis, without the stream of events, which does not end."""
    pytest.importorskip("schemathesis")
    for limit in ("BURST", "PER_SECOND"):
        monkeypatch.setattr(access, limit, 1e9)
    async with serving(tmp_path, [endpoint()], tokens=TOKENS) as api:
        await (await api.stream(1)).says("one", "two")
        # it is made at the first request, which takes longer than schemathesis waits where the machine is busy
        assert (await api.get("/openapi.json", timeout=120)).status_code == 200
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{api.server.url}/openapi.json", "--exclude-path-regex", "events/stream$", "--no-color"),
            *("-H", f"Authorization: Bearer {OPERATOR}", "--max-examples", "10", "--seed", "1"),
            *("--request-timeout", "60"),
            *("--phases", "coverage,fuzzing", "--checks", CHECKS),
            cwd=tmp_path,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await asyncio.wait_for(process.communicate(), 200)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, said.decode()[-6000:]
