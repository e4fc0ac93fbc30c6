"""The board and the alert rules use metrics that exist, and every alert is explained."""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
import yaml

from docs.metrics_page import families
from relay.telemetry.metrics import Histogram
from tests.support.cli import ROOT

DEPLOY = ROOT / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
BOARD = json.loads((DEPLOY / "grafana" / "speech-relay.json").read_text())

KNOWN = {family.name: family for family in chain.from_iterable(families().values())}
SERIES = set(KNOWN) | {
    f"{name}_{part}"
    for name, each in KNOWN.items()
    if isinstance(each, Histogram)
    for part in ("bucket", "count", "sum")
}
OF_PROMETHEUS = {"instance", "job", "le"}


def expressions(node: Any) -> Iterator[str]:
    """Every query of the board."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"expr", "query"} and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for each in node:
            yield from expressions(each)


QUERIES = {
    "rules": [rule["expr"] for rule in RULES],
    "board": [query for query in expressions(BOARD) if "speech_relay_" in query],
    "tests of the rules": [(DEPLOY / "prometheus" / "alerts_test.yaml").read_text()],
}


@pytest.mark.parametrize("where", QUERIES)
def test_every_metric_that_is_used_exists(where: str) -> None:
    used = set(re.findall(r"speech_relay_[a-z_]+", " ".join(QUERIES[where])))
    assert used - SERIES == set()
    assert used, "something is used"


@pytest.mark.parametrize("where", ["rules", "board"])
def test_every_label_that_is_used_exists(where: str) -> None:
    for query in QUERIES[where]:
        labels = set().union(*(KNOWN[name].labels for name in KNOWN if name in query)) | OF_PROMETHEUS
        grouped = chain.from_iterable(each.split(",") for each in re.findall(r"by \(([^)]*)\)", query))
        selected = re.findall(r"[{,]\s*([a-z_]+)\s*=", query)
        assert {*map(str.strip, grouped), *selected} <= labels, query


def test_the_board_shows_every_metric() -> None:
    shown = " ".join(QUERIES["board"])
    assert [name for name in KNOWN if name not in shown] == []


def test_the_panels_of_the_board_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_every_alert_says_what_to_do() -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text()
    explained = re.findall(r"^## (SpeechRelay\w+)$", page, re.MULTILINE)
    assert explained == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"warning", "critical"}


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert {rule["alert"] for rule in RULES} - fired == set()
