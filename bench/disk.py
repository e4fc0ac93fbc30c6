"""Measures the disk, or a commit, alone: no append is faster, and when it stalls, all appends wait."""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg

EVERY_S = 0.05
"""Rare enough not to load the disk."""
_PAGE = bytes(4096)


@asynccontextmanager
async def syncing(folder: str) -> AsyncIterator[list[float]]:
    """Repeatedly write and sync a page of a file in that folder during the block: milliseconds each."""
    took: list[float] = []
    with Path(folder, "synced").open("wb", buffering=0) as file:

        async def sync() -> None:
            while True:
                await asyncio.sleep(EVERY_S)
                took.append(await asyncio.to_thread(_synced_ms, file.fileno()))

        syncing = asyncio.create_task(sync())
        try:
            yield took
        finally:
            syncing.cancel()
            await asyncio.wait([syncing])


def _synced_ms(file: int) -> float:
    began = time.perf_counter()
    os.pwrite(file, _PAGE, 0)
    os.fdatasync(file)
    return (time.perf_counter() - began) * 1000


@asynccontextmanager
async def committing(url: str) -> AsyncIterator[list[float]]:
    """Repeatedly commit a row of a page to this PostgreSQL database during the block: milliseconds each."""
    took: list[float] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE floor (page bytea)")

        async def commit() -> None:
            while True:
                await asyncio.sleep(EVERY_S)
                took.append(await asyncio.to_thread(_committed_ms, connection))

        committing = asyncio.create_task(commit())
        try:
            yield took
        finally:
            committing.cancel()
            await asyncio.wait([committing])


def _committed_ms(connection: "psycopg.Connection[object]") -> float:
    began = time.perf_counter()
    connection.execute("INSERT INTO floor VALUES (%s)", (_PAGE,))
    return (time.perf_counter() - began) * 1000


def spread(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"p50 {cuts[49]:.2f}  p99 {cuts[98]:.2f}  worst {max(took):.1f} ms"
