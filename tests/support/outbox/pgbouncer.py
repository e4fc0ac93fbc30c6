"""PgBouncer in front of a PostgreSQL server of the tests."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.outbox.postgres import PostgresServer

_NO_RIGHTS = 65534
"""PgBouncer refuses root, as PostgreSQL does."""


class PgBouncer:
    """Where it listens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, database: str) -> str:
        return f"postgresql://relay@/{database}?host={self._folder}&port=6432"


@contextmanager
def pgbouncer(server: PostgresServer, pool_mode: str) -> Iterator[PgBouncer]:
    """A pooler while the block runs. Skips the test where none is installed; in CI that is a failure."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        why = "no pooler: install Debian's pgbouncer"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="pgb", dir="/tmp"))  # short: a socket's path has 107 bytes
    (folder / "users").write_text('"relay" ""\n')
    settings = (
        f"[databases]\n* = host={server.folder}\n[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = 6432\n"
        f"auth_type = trust\nauth_file = {folder}/users\npool_mode = {pool_mode}\nmax_client_conn = 100\n"
    )
    (folder / "pgbouncer.ini").write_text(settings)
    as_user = {"user": _NO_RIGHTS, "group": _NO_RIGHTS, "extra_groups": []} if os.geteuid() == 0 else {}
    for path in (folder, *folder.iterdir()):
        if as_user:
            os.chown(path, _NO_RIGHTS, _NO_RIGHTS)
    process = subprocess.Popen(
        [program, "-q", str(folder / "pgbouncer.ini")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **as_user,  # type: ignore[call-overload]
    )
    try:
        pooler = PgBouncer(folder)
        _await(pooler, process)
        yield pooler
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder)


def _await(pooler: PgBouncer, process: "subprocess.Popen[bytes]") -> None:
    while True:
        assert process.poll() is None, "PgBouncer has ended"
        try:
            psycopg.connect(pooler.url("postgres")).close()
        except psycopg.OperationalError:  # it is starting
            continue
        return
