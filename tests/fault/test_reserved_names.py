"""A name of a database in a file is one process's at a time, and a look at it takes it from no one."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from relay.errors import NameTaken
from relay.outbox.sqlite.reserved_names import require_free, reserve


def test_a_name_is_free_again_when_its_process_lets_it_go(tmp_path: Path) -> None:
    database = tmp_path / "relay.db"
    held = reserve(database, "relay")
    with pytest.raises(NameTaken, match="another relay has it"):
        reserve(database, "relay")
    with pytest.raises(NameTaken, match="another relay has it"):
        require_free(database, "relay")
    require_free(database, "another")
    held.close()
    require_free(database, "relay")
    reserve(database, "relay").close()


def test_a_look_at_a_name_that_no_process_had_creates_nothing(tmp_path: Path) -> None:
    require_free(tmp_path / "relay.db", "relay")
    require_free(tmp_path / "missing" / "relay.db", "relay")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_only_looks_keeps_the_name_from_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "relay.db"
    reserve(database, "relay").close()
    looking = os.open(tmp_path / "relay.db.relay", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(looking))  # the look is over meanwhile
    reserve(database, "relay").close()
