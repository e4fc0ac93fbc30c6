"""The pages say what the code does: reference, pictures, configuration, links, and what CONTRIBUTING names."""

import io
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from docs.generate import pages
from relay.capture.audio import clock_anchors as anchors
from relay.capture.plugins import module_of
from relay.capture.realtime.provider import load_realtime
from relay.capture.stt.provider import load_stt
from relay.capture.vad.provider import load_vad
from relay.config.load import load
from relay.config.models import Config
from tests.support.dispatch.certificates import Authority

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages()
PICTURES = {path: text for path, text in PAGES.items() if path.suffix == ".svg"}
_SVG = "{http://www.w3.org/2000/svg}"
TEXTS = {path.relative_to(DOCS.parent).as_posix(): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
TEXTS |= {
    name: (DOCS.parent / name).read_text() for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
}
BLOCKS = [
    pytest.param(block, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE), start=1)
]
LONGEST_CELL = 80
"""Characters; the aim is 60."""
RULED_OUT = (
    "whoever",
    "whomever",
    "anew",
    "came to",
    "there is none",
    "of whom",
    "makes good",
    "were it",
    "for want of",
    "(is|are|be|was|been) told",
    "(tells?|told) of",
    "bec[ao]mes? of",
    "lets? go",
    "owed",
    "in a hurry",
    "patience",
    "hears nothing of",
    "nobody",
    "somebody",
    "for ever",
)
"""Phrases that a reader has to read twice."""
NOT_PLAIN = re.compile(rf"\b(?:{'|'.join(RULED_OUT)})\b", re.IGNORECASE)
ENVIRON: Mapping[str, str] = MappingProxyType(
    {"CRM_WEBHOOK_SECRET": "whsec_" + "c2VjcmV0" * 6, "CRM_API_TOKEN": "c" * 32, "OPS_API_TOKEN": "o" * 32}
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_generated_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"


def test_every_picture_is_shown() -> None:
    assert PICTURES.keys() == set((DOCS / "pictures").iterdir())


def test_every_screenshot_is_shown_and_small() -> None:
    shown = {name for text in TEXTS.values() for name in re.findall(r"screenshots/([\w-]+\.png)", text)}
    there = {path.name: path.stat().st_size for path in (DOCS / "screenshots").iterdir()}
    assert shown == there.keys()
    assert max(there.values()) <= 100_000, "each clone downloads them"


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_a_picture_says_in_words_what_it_shows(path: Path) -> None:
    title, description = (ElementTree.fromstring(PICTURES[path]).findtext(_SVG + tag) for tag in ("title", "desc"))
    assert title
    assert description
    assert "ms: " in description


@pytest.mark.parametrize("figure", [anchors.LATE_MS, anchors.DRIFT_MS, anchors.EARLY_MS])
def test_the_figures_of_the_audio_clock_are_those_of_the_code(figure: int) -> None:
    assert re.search(rf"\b{figure} ms (late|early)", TEXTS["docs/explanation/times.md"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the certificates that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "certs").mkdir()
    Authority(folder / "certs", "private-ca").sign("relay")
    return folder


def loaded(block: str, folder: Path) -> Config:
    """The block as a file of its own; keys of an endpoint in an endpoint."""
    written: dict[str, Any] = yaml.safe_load(block)
    if not written.keys() <= Config.model_fields.keys():
        written = {"endpoints": [{"name": "crm", "url": "https://crm.example.com/", **written}]}
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(written))
    return load(file, environ=ENVIRON)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_configuration_is_one(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert loaded(block, folder)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "capture:" in str(block.values[0])])
def test_every_option_is_one_of_the_plugins(block: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = loaded(block, folder).capture
    for name in ("DEEPGRAM", "ASSEMBLYAI", "CARTESIA", "OPENAI", "LIVEKIT_INFERENCE"):
        monkeypatch.setenv(f"{name}_API_KEY", "a-key-that-nobody-is-shown")
    monkeypatch.setenv("LIVEKIT_INFERENCE_API_SECRET", "a-secret-that-nobody-is-shown")
    if capture.realtime is not None:
        pytest.importorskip(module_of(capture.realtime.provider))
        model = load_realtime(capture.realtime)
        assert model is not None
        assert model.build(None)
    elif capture.observe is None:
        load_vad(capture.vad)
        if capture.stt.provider != "none":
            pytest.importorskip(module_of(capture.stt.provider))
            factory = load_stt(capture.stt)
            assert factory is not None
            assert factory.build(None)
            factory.close()


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_to_a_file_and_heading_that_exist(name: str) -> None:
    here = DOCS.parent / name
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(TEXTS[name])):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (here.parent / file).resolve() if file else here
        assert target.is_relative_to(DOCS.parent), f"{name}: {link} leaves the repository"
        assert target.exists(), f"{name}: {link} leads to no file"
        assert not anchor or anchor in _anchors(target.read_text()), f"{name}: {link} leads to no heading"


def test_the_index_has_one_line_for_each_page() -> None:
    index = DOCS / "README.md"
    lines = [line for line in TEXTS["docs/README.md"].splitlines() if line.startswith("- ")]
    linked = [(DOCS / target).resolve() for line in lines for target in re.findall(r"\]\(([^)#]+)\)", line)]
    assert sorted(linked) == sorted(path for path in DOCS.rglob("*.md") if path != index)


@pytest.mark.parametrize("name", TEXTS)
def test_table_cells_are_short(name: str) -> None:
    long = [cell for cell in _cells(TEXTS[name]) if len(cell) > LONGEST_CELL]
    assert not long, f"{name}: make sections or a list of these"


@pytest.mark.parametrize("name", TEXTS)
def test_prose_is_plain(name: str) -> None:
    found = [match[0] for match in NOT_PLAIN.finditer(_prose(TEXTS[name]))]
    assert not found, f"{name}: say it in plain words"


@pytest.mark.parametrize("folder", ["relay", "tests/support", "bench", "docs", "examples"])
def test_prose_in_code_is_plain(folder: str) -> None:
    """Docstrings, comments, log lines and messages; not the names of variables."""
    root = DOCS.parent
    found = [
        f"{path.relative_to(root)}:{token.start[0]}: {match[0]}"
        for path in sorted((root / folder).rglob("*.py"))
        if NOT_PLAIN.search(path.read_text())
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type not in (tokenize.NAME, tokenize.OP, tokenize.NUMBER)
        for match in NOT_PLAIN.finditer(token.string)
    ]
    assert not found, "say it in plain words"


@pytest.mark.parametrize(
    "pattern", ["relay/config/template.yaml", "relay/api/page/*.js", "deploy/**/*", "tests/unit/timelines/**/*.txt"]
)
def test_other_files_that_people_read_are_plain(pattern: str) -> None:
    found = [
        f"{path.relative_to(DOCS.parent)}: {match[0]}"
        for path in sorted(DOCS.parent.glob(pattern))
        if path.is_file()
        for match in NOT_PLAIN.finditer(path.read_text())
    ]
    assert not found, "say it in plain words"


def test_every_page_that_code_names_exists() -> None:
    root = DOCS.parent
    files = [
        path for folder in ("relay", "tests", "bench", "docs", "examples") for path in (root / folder).rglob("*.py")
    ]
    files += [root / "Makefile", root / "Dockerfile", root / "pyproject.toml", root / "relay/config/template.yaml"]
    named = {(path, page) for path in files for page in re.findall(r"\bdocs/[\w./-]+\.md\b", path.read_text())}
    assert named
    assert not [(path, page) for path, page in named if not (root / page).exists()]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_every_source_file_that_a_page_names_exists(name: str) -> None:
    """A path may begin at the repository or, as within a section about one folder, anywhere below relay/."""
    root = DOCS.parent
    known = {path.relative_to(root).as_posix() for path in (root / "relay").rglob("*")}
    paths = re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", _prose(TEXTS[name]))
    assert paths
    below = [path for path in paths if not (root / path).exists()]
    missing = [path for path in below if not any(one.endswith("/" + path.rstrip("/")) for one in known)]
    assert not missing


def test_contributing_lists_every_make_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (DOCS.parent / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^\| `make ([a-z-]+)` \|", TEXTS["CONTRIBUTING.md"], re.MULTILINE)
    assert not set(targets) - {*listed, "help"}


def test_the_tests_that_contributing_shows_are_real() -> None:
    shown = re.findall(r"^\*\*\w+\*\*, `(\S+)`.*?```\w*\n(.*?)```", TEXTS["CONTRIBUTING.md"], re.DOTALL | re.MULTILINE)
    assert len(shown) == 7, "one of each kind"
    for file, excerpt in shown:
        assert excerpt in (DOCS.parent / file).read_text(), f"{file} has no such lines"


def test_every_threat_names_a_test_that_exists() -> None:
    rows = re.findall(r"\]\((?:\.\./)+(tests/\S+\.py)\) `(test_\w+)`", TEXTS["docs/reference/security.md"])
    assert len(rows) > 20
    missing = [name for file, name in rows if f"def {name}(" not in (DOCS.parent / file).read_text()]
    assert not missing, f"docs/reference/security.md names tests that do not exist: {missing}"


def _cells(text: str) -> list[str]:
    """The cells of every table as a reader sees them, without links and marks."""
    rows = [line for line in _prose(text).splitlines() if line.startswith("|")]
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
    return [re.sub(r"\]\([^)]*\)|[\[`*]", "", cell) for cell in cells]


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(text: str) -> set[str]:
    """The headings as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
