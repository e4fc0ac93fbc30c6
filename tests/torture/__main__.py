"""``python -m tests.torture``: in full. Prints the reconciliation, and ends with 1 if there is a fault in it."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.harness import Torture
from tests.torture.reconcile import table
from tests.torture.size import FULL, SMALL

MOST_TOLD = 50
"""Faults that are named one by one."""


def main(size: str = "full") -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        torture = Torture({"full": FULL, "small": SMALL}[size], Path(directory))
        failed = ""
        try:
            asyncio.run(torture.run())
        except AssertionError as error:
            failed = str(error)
    faults = [f"{account.endpoint}: {fault}" for account in torture.accounts for fault in account.faults]
    deaths = [f"died {count} times {what}" for what, count in sorted(torture.deaths.items())]
    lines = [", ".join(deaths), table(torture.accounts), f"{len(faults)} faults, {time.monotonic() - began:.0f} s"]
    sys.stdout.write("\n".join([*lines, *([failed] if failed else []), *faults[:MOST_TOLD], ""]))
    return 1 if failed or faults else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
