"""The command line of the bench: what it does not know is refused before anything is measured."""

import pytest

from bench.__main__ import wanted_letters


@pytest.mark.parametrize(
    ("arguments", "letters"),
    [([], "abcdefhijklmnopq"), (["a"], "a"), (["ab", "g"], "abg")],
    ids=["all but the long one", "one", "several"],
)
def test_parts_are_chosen_by_letter(arguments: list[str], letters: str) -> None:
    assert wanted_letters(arguments) == letters


@pytest.mark.parametrize("argument", ["z", "az", "A", "--rounds"])
def test_a_part_that_is_none_is_refused(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        wanted_letters([argument])
    assert refused.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_help_is_printed_and_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        wanted_letters(["--help"])
    assert ended.value.code == 0
    assert "usage: python -m bench [-h] [PART ...]" in capsys.readouterr().out
