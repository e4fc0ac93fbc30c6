"""What the tests of deploy/ share: tools that are built from their Go modules, and commands of the documentation."""

import re
import shutil
import socket

from tests.support.cli import ROOT
from tests.support.tools import unavailable


def built(name: str) -> str:
    """The path of a tool that ``make test`` builds into .cache, or of the PATH's; skips the test without it."""
    cached = sorted((ROOT / ".cache" / name).glob(f"*/{name}"))
    found = str(cached[-1]) if cached else shutil.which(name)
    return found or unavailable(f"no {name}: `make test` builds it, where Go is installed")


def sh_block(page: str, text: str) -> str:
    """The one block of shell commands on a page that contains ``text``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    (block,) = [block for block in blocks if text in block]
    return str(block)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
