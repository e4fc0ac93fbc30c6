"""After a deliberate change of the wire: ``python -m tests.golden.write``, then read the diff.

Refuses a change that breaks receivers of a published ``api_version``.
"""

import json
import sys
from pathlib import Path

from relay.contract.documents import written
from relay.contract.json_schema import union_schema
from relay.events.envelope import API_VERSION
from relay.events.samples import SAMPLES
from tests.support.compatibility import breaks

HERE = Path(__file__).parent
PUBLISHED = HERE / "published" / f"{API_VERSION}.json"
"""What this api_version promises. Written by this program alone, so that it only grows."""


def main() -> int:
    now = union_schema()
    if PUBLISHED.exists() and (found := breaks(json.loads(PUBLISHED.read_text()), now)):
        sys.stderr.write("\n".join([f"breaks receivers of api_version {API_VERSION}:", *found, ""]))
        return 1
    PUBLISHED.write_text(written(now))
    folder = HERE / "events"
    for old in folder.glob("*.json"):
        old.unlink()
    for name, sample in SAMPLES.items():
        (folder / f"{name}.json").write_text(json.dumps(json.loads(sample.model_dump_json()), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
