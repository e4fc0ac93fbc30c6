"""Writes signatures.json with our own signer: ``python -m tests.vectors.make``. From then on the file is the law."""

import json
from pathlib import Path

from relay.dispatch.signing import Signer

FILE = Path(__file__).parent / "signatures.json"

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the example of the specification
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
LONGEST = "whsec_" + "+/8A" * 21 + "Zg=="  # 64 bytes
UNICODE = '{"data":{"text":"naïve café, 我听到了, שלום, 👩‍👩‍👧, \\u2028 and \\"quotes\\"\\n"}}'


def vector(
    name: str, secrets: list[str], body: str, *, verify_with: str | None = None, arrives: dict[str, str] | None = None
) -> dict[str, object]:
    """What is signed with ``secrets``; ``arrives`` is what of it reaches the receiver otherwise."""
    event_id, timestamp = "evt_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B_8", 1795255200
    signature = Signer(secrets).signature(event_id.encode(), timestamp, body.encode()).decode()
    sent = {"id": event_id, "timestamp": str(timestamp), "body": body, "signature": signature}
    secret = verify_with or secrets[0]
    return {"name": name, "secret": secret, **sent, **(arrives or {}), "holds": secret in secrets and not arrives}


def vectors() -> list[dict[str, object]]:
    body = '{"type":"ping"}'
    return [
        vector("one secret", [OLD], body),
        vector("the longest secret", [LONGEST], body),
        vector("the old secret while rotating", [NEW, OLD], body, verify_with=OLD),
        vector("the new secret while rotating", [NEW, OLD], body, verify_with=NEW),
        vector("three secrets", [LONGEST, NEW, OLD], body, verify_with=OLD),
        vector("a body in many scripts", [OLD], UNICODE),
        vector("a body that is indented", [OLD], '{\n  "type": "ping"\n}\n'),
        vector("a long body", [OLD], json.dumps({"text": "x" * 20_000})),
        vector("an empty body", [OLD], ""),
        vector("another secret", [OLD], body, verify_with=NEW),
        vector("a body with a space more", [OLD], body, arrives={"body": body + " "}),
        vector("another id", [OLD], body, arrives={"id": "evt_01KAJ8Q6T5ZV8K7W0C9Y4M2N3B_9"}),
        vector("another time", [OLD], body, arrives={"timestamp": "1795255201"}),
        vector("another version", [OLD], body, arrives={"signature": "v2,AAAA"}),
        vector("no signature that is ours", [OLD], body, arrives={"signature": "v1,AAAA v1,BBBB"}),
    ]


if __name__ == "__main__":
    FILE.write_text(json.dumps(vectors(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
