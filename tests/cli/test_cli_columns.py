"""Tables fit the terminal, and are left alone where the output is no terminal."""

import pytest

from relay.cli.output import formatting as module
from relay.cli.output.formatting import columns, wrapped

HEADS = ("ENDPOINT", "STATE", "PENDING", "LAST ERROR")
ROWS = [
    ("crm", "disabled (gone) 3 h ago", 4107, "connect: no connection within 5 s; the host does not answer"),
    ("bi", "enabled", 0, None),
]


def test_a_table_that_fits_is_a_table() -> None:
    assert columns(HEADS, ROWS[1:], width=60).splitlines() == [
        "ENDPOINT  STATE    PENDING  LAST ERROR",
        "bi        enabled  0",
    ]


@pytest.mark.parametrize("width", [40, 60])
def test_a_table_that_does_not_fit_shows_each_row_cell_by_cell(width: int) -> None:
    shown = columns(HEADS, ROWS, width=width)
    assert max(map(len, shown.splitlines())) <= width
    assert shown.splitlines()[:4] == ["crm", "  state       disabled (gone) 3 h ago", "  pending     4107"] + [
        line for line in shown.splitlines() if "last error" in line
    ]
    assert shown.endswith("bi\n  state       enabled\n  pending     0")


def test_a_table_that_goes_to_a_file_or_a_pipe_is_one_line_a_row() -> None:
    assert len(columns(HEADS, ROWS, width=0).splitlines()) == 3


def test_a_line_is_broken_at_blanks_on_a_terminal_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "Sends stream.*, speech.*, transcript.* to crm at https://crm.example.com/ (signed, without text)."
    assert wrapped(line, indent=2) == line, "the output goes elsewhere"
    monkeypatch.setattr(module, "terminal_width", lambda: 60)
    broken = wrapped(line, indent=2).splitlines()
    assert max(map(len, broken)) <= 60
    assert " ".join(part.strip() for part in broken) == line
