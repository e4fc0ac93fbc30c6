"""``deploy/compose.yaml``: every command and health check is run as it is written, on loopback, without containers."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from dotenv import dotenv_values

from relay.config.load import load
from tests.support.cli import ROOT, environment
from tests.support.deploy import built, free_port, sh_block
from tests.support.livekit import livekit_server
from tests.support.outbox.postgres import PostgresServer, running_server
from tests.support.tools import tool, unavailable

FOLDER = ROOT / "deploy"
WRITTEN: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = WRITTEN["services"]
SET = [name for name, service in SERVICES.items() if not service.get("profiles")]
FLEET = [name for name, service in SERVICES.items() if service.get("profiles") == ["fleet"]]
OWN_PORT = 8790
"""Each relay listens on it in its own container."""
SHARED_PORTS = (7880, 7881, 7882, 5432, 8791)
_SECRETS = re.compile("SECRET|PASSWORD|TOKEN|_KEY")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def seconds(duration: str) -> int:
    assert duration.endswith("s")
    return int(duration[:-1])


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that the documented commands write into .env."""
    folder = tmp_path_factory.mktemp("compose")
    (folder / "deploy").mkdir()
    openssl = tool("openssl")
    block = sh_block("docs/how-to/run-with-compose.md", "> .env").replace("openssl ", f"{openssl} ")
    subprocess.run(["sh", "-euc", block], cwd=folder, check=True, timeout=60)
    file = folder / "deploy" / ".env"
    assert file.stat().st_mode & 0o077 == 0
    return {name: value for name, value in dotenv_values(file).items() if value}


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}``, as Compose reads them."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        assert variables.get(name) or kind == "-", f"{name} {rest}"
        return variables.get(name) or rest

    return _VARIABLE.sub(value, text)


class Composed:
    """The services as processes of this machine; only their addresses are replaced."""

    def __init__(self, folder: Path, secrets: Mapping[str, str], postgres: PostgresServer) -> None:
        self._folder, self._secrets, self._postgres = folder, secrets, postgres
        self._shared = {port: free_port() for port in SHARED_PORTS}
        self._own = {name: free_port() for name in SERVICES}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start the service after those that it depends on, and wait until its health check passes."""
        if name in self.processes:
            return
        for other, how in SERVICES[name].get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            self.start(other)
        assert self.check(name).returncode, f"the health check of {name} passes without it"
        command, identity = self._command(name)
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self.folder(name), env=self.variables(name), stdout=log, stderr=log, **identity
            )
        self.processes[name] = process
        until = time.monotonic() + 60
        while (checked := self.check(name)).returncode:
            assert process.poll() is None, f"{name} ended: {self.log(name).read_text()}"
            assert time.monotonic() < until, f"{name}: {checked.stdout} {self.log(name).read_text()}"
            time.sleep(0.2)

    def stop(self, name: str) -> int:
        """Stop it as Docker does; return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(seconds(SERVICES[name].get("stop_grace_period", "10s")) * 3)

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """The service's health check."""
        kind, *command = self._replaced(name, SERVICES[name]["healthcheck"]["test"])
        assert kind == "CMD"
        return self.run(name, *command)

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """What ``docker compose exec`` does."""
        variables, folder = self.variables(name), self.folder(name)
        found = tool(command[0], f"{variables['PATH'].split(os.pathsep)[0]}/{command[0]}")
        return subprocess.run(
            [found, *command[1:]], cwd=folder, env=variables, capture_output=True, text=True, timeout=60, check=False
        )

    def variables(self, name: str) -> dict[str, str]:
        given = {key: value for key, value in self._replaced(name, SERVICES[name]["environment"]).items() if value}
        if name == "livekit":
            given["LIVEKIT_CONFIG"] = self._on_loopback(given["LIVEKIT_CONFIG"])
        if name == "postgres":
            given |= {"PGPORT": str(self._shared[5432]), "PGDATA": str(self._postgres.data)}
        programs = (str(ROOT / ".venv" / "bin"), str(self._postgres.binaries))
        return environment(**given, PATH=os.pathsep.join((*programs, os.environ["PATH"])))

    def folder(self, name: str) -> Path:
        """Its working directory, with the configuration that is mounted there."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        for volume in SERVICES[name].get("volumes", ()):
            source, target, *_ = volume.split(":")
            if source.startswith("./") and name != "postgres" and not (folder / Path(target).name).exists():
                assert Path(target).parent == Path("/app"), "the working directory of the image"
                (folder / Path(target).name).write_text(self._addresses(name, (FOLDER / source).read_text()))
        return folder

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _command(self, name: str) -> tuple[list[str], dict[str, Any]]:
        """The image's entry point and the service's command, or the image's own."""
        image, _, _ = SERVICES[name]["image"].partition(":")
        command: list[str] = self._replaced(name, SERVICES[name].get("command", []))
        if image == "livekit/livekit-server":
            server = livekit_server.binary()
            return [str(server or unavailable("no livekit-server: build it into .cache/livekit/")), *command], {}
        if image == "postgres":
            return [str(self._postgres.binaries / command[0]), *command[1:]], self._postgres.identity
        assert image == "speech-relay"
        dockerfile = (ROOT / "Dockerfile").read_text()
        entry, default = (
            json.loads(re.findall(rf"^{word} (\[.*\])$", dockerfile, re.MULTILINE)[-1])
            for word in ("ENTRYPOINT", "CMD")
        )
        entry[0] = str(ROOT / ".venv" / "bin" / entry[0])
        return [*entry, *(command or default)], {}

    def _on_loopback(self, config: str) -> str:
        """The server's configuration, with every socket and candidate on loopback."""
        settings = yaml.safe_load(config)
        rtc = {
            "tcp_port": 0,  # it would listen on every address
            "interfaces": {"includes": ["lo"]},
            "ips": {"includes": ["127.0.0.0/8"]},
            "enable_loopback_candidate": True,
            "stun_servers": [f"127.0.0.1:{settings['port']}"],
        }
        return yaml.safe_dump({**settings, "bind_addresses": ["127.0.0.1"], "rtc": {**settings["rtc"], **rtc}})

    def _addresses(self, name: str, text: str) -> str:
        for port, ours in {**self._shared, OWN_PORT: self._own[name]}.items():
            text = re.sub(rf"\b(livekit|postgres|receiver|0\.0\.0\.0):{port}\b", f"127.0.0.1:{ours}", text)
            text = re.sub(rf"(?<![.\d]){port}\b", str(ours), text)
        return "127.0.0.1" if text == "0.0.0.0" else text

    def _replaced(self, name: str, value: Any) -> Any:
        match value:
            case str():
                return interpolated(self._addresses(name, value), self._secrets)
            case dict():
                return {key: self._replaced(name, each) for key, each in value.items()}
            case list():
                return [self._replaced(name, each) for each in value]
        return value

    def close(self) -> None:
        for name, process in self.processes.items():
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGKILL)
            process.wait()


def initialize(postgres: PostgresServer, secrets: Mapping[str, str]) -> None:
    """What the image's entry point does before it starts the server, with the superuser that the file names."""
    given = SERVICES["postgres"]["environment"]
    superuser = given["POSTGRES_USER"]
    postgres.execute(f"CREATE ROLE {superuser} SUPERUSER LOGIN")
    with psycopg.connect(host=str(postgres.folder), user=superuser, dbname="postgres", autocommit=True) as connection:
        connection.execute("ALTER ROLE relay RENAME TO unused")  # the test server's own superuser
    (script,) = [each for each in SERVICES["postgres"]["volumes"] if "/docker-entrypoint-initdb.d/" in each]
    variables = {key: interpolated(value, secrets) for key, value in given.items()}
    path = os.pathsep.join((str(postgres.binaries), os.environ["PATH"]))
    done = subprocess.run(
        ["bash", "-eu", str(FOLDER / script.partition(":")[0])],
        env=environment(**variables, PGHOST=str(postgres.folder), PATH=path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def composed(folder: Path, secrets: Mapping[str, str]) -> Iterator[Composed]:
    with running_server() as postgres:
        initialize(postgres, secrets)
        postgres.stop("fast")
        (postgres.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        with (postgres.data / "postgresql.conf").open("a") as settings:
            settings.write("listen_addresses = '127.0.0.1'\n")
        services = Composed(folder, secrets, postgres)
        try:
            yield services
        finally:
            services.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, str]) -> Iterator[Composed]:
    """Everything that ``docker compose up`` starts, once its health checks pass."""
    with composed(tmp_path_factory.mktemp("compose"), secrets) as services:
        for name in SET:
            services.start(name)
        yield services


def test_it_follows_the_compose_specification() -> None:
    checked = subprocess.run(
        [built("compose-spec"), "-no-interpolation", str(FOLDER / "compose.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_change_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & service.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_comes_from_outside_the_file(name: str) -> None:
    given = SERVICES[name]["environment"]
    assert all(value is None or value.startswith("${") for key, value in given.items() if _SECRETS.search(key))
    assert "${LIVEKIT_API_SECRET" in SERVICES["livekit"]["environment"]["LIVEKIT_CONFIG"]


def test_the_documented_commands_write_every_secret(secrets: dict[str, str]) -> None:
    required = {name for name, kind, _ in _VARIABLE.findall((FOLDER / "compose.yaml").read_text()) if kind == "?"}
    assert secrets.keys() == required


def test_only_livekit_is_published_beyond_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    beyond = {name for name, ports in published.items() if not all(port.startswith("127.0.0.1:") for port in ports)}
    assert beyond == {"livekit"}


def test_a_relay_is_given_longer_to_stop_than_it_takes(secrets: dict[str, str]) -> None:
    grace = load(FOLDER / "relay.yaml", environ=secrets).shutdown.grace.total_seconds()
    assert seconds(SERVICES["relay"]["stop_grace_period"]) >= grace + 10


@pytest.mark.parametrize("name", SET)
def test_a_health_check_passes_once_its_service_runs(name: str, running: Composed) -> None:
    checked = running.check(name)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert running.processes[name].poll() is None


def test_the_log_is_in_the_database_behind_its_password(running: Composed, secrets: dict[str, str]) -> None:
    address = f"postgresql://relay@127.0.0.1:{running.variables('postgres')['PGPORT']}/relay"
    with psycopg.connect(address, password=secrets["RELAY_POSTGRES_PASSWORD"]) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(address, password="wrong")


def test_the_relay_has_no_rights_but_on_its_own_database(running: Composed, secrets: dict[str, str]) -> None:
    address = f"postgresql://relay@127.0.0.1:{running.variables('postgres')['PGPORT']}"
    password = secrets["RELAY_POSTGRES_PASSWORD"]
    with psycopg.connect(f"{address}/relay", password=password) as connection:
        rights = connection.execute(
            "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
            " FROM pg_roles WHERE rolname = 'relay'"
        ).fetchone()
        public = connection.execute(
            "SELECT has_database_privilege('public', 'relay', 'CONNECT'),"
            " has_schema_privilege('public', 'public', 'CREATE')"
        ).fetchone()
    assert rights == (False,) * 5
    assert public == (False, False)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(f"{address}/postgres", password=password)


def test_each_service_gets_the_secrets_that_it_needs_to_start(secrets: dict[str, str]) -> None:
    given = {
        name: {key for key in service["environment"] if _SECRETS.search(key)} for name, service in SERVICES.items()
    }
    assert given["dispatch"] == {"PGPASSWORD", "RECEIVER_WEBHOOK_SECRET", "RELAY_API_TOKEN"}
    assert given["receiver"] == {"WEBHOOK_SECRET"}
    assert [name for name in given if "${POSTGRES_PASSWORD" in str(SERVICES[name])] == ["postgres"]


@pytest.mark.parametrize("name", ["relay", *FLEET])
def test_what_waits_for_the_database_is_on_a_volume(name: str, secrets: dict[str, str]) -> None:
    spill = load(FOLDER / "relay.yaml", environ=secrets).outbox.spill.path
    mounts = {target: rest for _, target, *rest in (each.split(":") for each in SERVICES[name]["volumes"])}
    (mount,) = [str(each) for each in (Path("/app") / spill).parents if str(each) in mounts]
    assert mounts[mount] == [], "not read-only"


def test_what_the_sample_receiver_shows_is_bounded() -> None:
    options = SERVICES["receiver"]["logging"]["options"]
    assert options.keys() == {"max-size", "max-file"}


def test_the_receiver_verifies_what_the_relay_sends(running: Composed) -> None:
    pinged = running.run("relay", "speech-relay", "endpoints", "ping", "receiver")
    assert pinged.returncode == 0, pinged.stdout + pinged.stderr
    until = time.monotonic() + 30
    while "ping" not in (shown := running.log("receiver").read_text()):
        assert time.monotonic() < until, shown
        time.sleep(0.1)
    assert "verifying signatures" in shown


@pytest.mark.parametrize("name", FLEET)
def test_a_service_of_the_fleet_is_healthy_beside_the_relay_and_stops_cleanly(name: str, running: Composed) -> None:
    running.start(name)
    assert running.stop(name) == 0
