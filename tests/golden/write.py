"""After a deliberate change of the wire: ``python -m tests.golden.write``, then read the diff."""

import json
from pathlib import Path

from relay.events.samples import SAMPLES

if __name__ == "__main__":
    folder = Path(__file__).parent / "events"
    for old in folder.glob("*.json"):
        old.unlink()
    for name, sample in SAMPLES.items():
        (folder / f"{name}.json").write_text(json.dumps(json.loads(sample.model_dump_json()), indent=2) + "\n")
