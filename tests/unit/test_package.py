"""The package ``relay``: it exports what the documentation promises, and importing it is cheap."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import relay
from tests.support.cli import environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/embed-in-an-agent.md").read_text()


def test_the_package_exports_exactly_what_the_docs_promise() -> None:
    api = PAGE.partition("## Python API")[2].partition("\n## ")[0]
    promised = re.findall(r"^\| `(\w+)` \|", api, re.MULTILINE)
    assert sorted(promised) == sorted(relay.__all__)
    assert all(getattr(relay, name) for name in promised)


def test_docs_and_examples_import_only_what_is_exported() -> None:
    texts = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *(ROOT / "examples").rglob("*.py")]
    lines = [line for path in texts for line in re.findall(r"^from relay import (.+)$", path.read_text(), re.MULTILINE)]
    used = {name for line in lines for name in re.split(r",\s*", line)}
    assert "SpeechRelay" in used
    assert used <= set(relay.__all__)


def test_importing_the_package_loads_no_library(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import relay\n"
        "relay.ConfigError\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["relay"]


def test_the_lock_for_development_has_every_package_that_an_extra_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    locked = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    wanted = {re.split(r"[\[<>=!;, ]", each)[0].lower() for each in named}
    assert wanted <= set(locked), "run make lock"
