"""The reference pages say what the models say."""

from pathlib import Path

import pytest

from docs.generate import pages

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_reference_page_is_up_to_date(path: Path) -> None:
    assert path.read_text() == PAGES[path], "run: make docs"
