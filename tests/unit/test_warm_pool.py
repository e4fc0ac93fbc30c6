"""How many job processes wait for rooms."""

import os
import subprocess
import sys
from pathlib import Path

from relay.capture.worker.warm_pool import LEAST, MOST, PROCESS_MB, WarmPool, bound, free_mb, process_mb


def pool_after(times: list[float], *, most: int = 16) -> WarmPool:
    pool = WarmPool(most)
    for at in times:
        pool.room_began(at)
    return pool


def test_some_wait_before_anything_was_seen() -> None:
    assert WarmPool(16).target(0.0) == LEAST


def test_none_is_warmed_beside_rooms_that_begin() -> None:
    pool = pool_after([100.0, 100.1])
    assert pool.target(100.2) == 0
    assert pool.target(103.2) == LEAST


def test_rooms_that_go_on_beginning_do_not_keep_processes_from_being_warmed() -> None:
    assert pool_after([100 + 0.5 * n for n in range(12)]).target(105.6) > 0


def test_as_many_wait_as_rooms_have_begun_at_once() -> None:
    pool = pool_after([100.0 + 0.1 * n for n in range(9)])
    assert pool.target(110.0) == 9


def test_rooms_that_began_apart_are_not_counted_together() -> None:
    assert pool_after([60.0 * n for n in range(20)]).target(2000.0) == LEAST


def test_a_burst_is_forgotten_after_an_hour() -> None:
    assert pool_after([100.0] * 9).target(100.0 + 3700) == LEAST


def test_memory_bounds_what_waits() -> None:
    assert pool_after([100.0] * 9, most=2).target(110.0) == 2
    assert bound(512 * 0.4, process_mb=30) == 1
    assert bound(2_000, process_mb=170) == 2
    assert bound(64_000, process_mb=30) == MOST


def test_one_waits_where_there_is_no_memory_for_it() -> None:
    assert bound(0, process_mb=30) == 1


def test_a_containers_limit_counts_where_it_is_below_the_machines_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text(f"{200 * 2**20}\n")
    (tmp_path / "memory.max").write_text(f"{256 * 2**20}\n")
    assert free_mb(tmp_path) == 56
    (tmp_path / "memory.max").write_text("max\n")
    assert free_mb(tmp_path) > 56


def test_the_memory_of_a_process_that_is_gone_is_taken_to_be_the_usual() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert process_mb(gone.pid) == PROCESS_MB
    assert 1 < process_mb(os.getpid()) < 10_000
