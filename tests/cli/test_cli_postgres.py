"""The commands on a log in PostgreSQL."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest

from relay.cli.output.plan import plan, sentences
from relay.cli.probes import probe_outbox
from relay.config.models import Config, OutboxConfig
from relay.outbox.failure import GRANT, UPGRADE, words
from relay.outbox.opening import open_database
from relay.outbox.postgres import session
from relay.outbox.schema import REVISION
from tests.support.builders import durable, new_stream
from tests.support.cli import SECRET
from tests.support.outbox.operator import NOWHERE, Folder
from tests.support.outbox.outbox_store import Store, postgres
from tests.support.outbox.postgres import PostgresServer


@pytest.fixture
async def store(postgres_server: PostgresServer) -> AsyncIterator[Store]:
    """A database without any tables."""
    async with postgres(postgres_server, template="template1") as opened:
        yield opened


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Folder:
    return configured(tmp_path, store.url)


def configured(path: Path, url: str) -> Folder:
    endpoints = [{"name": "crm", "url": NOWHERE, "secret": SECRET, "events": ["*"]}]
    config = {"outbox": {"url": url}, "endpoints": endpoints, "capture": {"stt": {"provider": "none"}}}
    (path / "config.yaml").write_text(json.dumps(config))
    return Folder(path, configured=True)


def refused(folder: Path, *command: str) -> str:
    """What a process of its own says when it cannot start: one line."""
    started = [sys.executable, "-m", "relay", *command, "--config", str(folder / "config.yaml")]
    done = subprocess.run(started, capture_output=True, text=True, timeout=60, check=False, cwd=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return done.stderr


async def test_migrate_creates_the_tables_once_and_says_what_it_found(folder: Folder, store: Store) -> None:
    place = store.url.partition("?")[0].replace("relay@", "")
    first, second = await folder.run("migrate"), await folder.run("migrate")
    assert (first.returncode, first.stdout) == (0, f"{place}: the tables were created ({REVISION})\n")
    assert (second.returncode, second.stdout) == (0, f"{place}: the tables are up to date ({REVISION})\n")
    assert await folder.json("migrate") == {"outbox": place, "found": REVISION, "tables": REVISION}


async def test_a_parameter_with_a_blank_is_the_same_for_every_connection(tmp_path: Path, store: Store) -> None:
    """Some connections are SQLAlchemy's, and some the driver's own."""
    spaced = configured(tmp_path, f"{store.url}&options=-c%20statement_timeout%3D9s%20-c%20lock_timeout%3D9s")
    assert probe_outbox(OutboxConfig(url=f"{store.url}&options=-c%20statement_timeout%3D9s")).status == "ok"
    assert (await spaced.run("migrate")).returncode == 0
    assert (await spaced.run("endpoints")).returncode == 0


async def test_a_search_path_that_names_no_schema_is_refused_in_one_line(tmp_path: Path, store: Store) -> None:
    url = f"{store.url}&options=-csearch_path%3Dnowhere"
    said = "create the schema that the user's search_path names, or name another there"
    configured(tmp_path, url)
    assert said in refused(tmp_path, "migrate")
    assert said in refused(tmp_path, "dispatch")
    finding = probe_outbox(OutboxConfig(url=url))
    assert (finding.status, finding.detail.endswith(said)) == ("failed", True), finding.detail


async def test_the_schema_of_the_log_may_have_any_name(folder: Folder, store: Store, tmp_path: Path) -> None:
    name = """ "The ""Log"", 100%% of it' " """.strip()
    store.execute(f"CREATE SCHEMA {name}")
    store.execute(f"ALTER DATABASE {store.url.partition('?')[0].rpartition('/')[2]} SET search_path = {name}")
    assert (await folder.run("migrate")).returncode == 0
    finding = probe_outbox(OutboxConfig(url=store.url))
    assert finding.status == "ok", finding.detail
    copied = await folder.run("outbox", "copy", "--from", store.url, "--to", f"sqlite:///{tmp_path}/copy.db")
    assert copied.returncode == 0, copied.stderr


async def test_the_tables_of_another_schema_in_the_search_path_are_not_the_log(folder: Folder, store: Store) -> None:
    store.execute("CREATE TABLE alembic_version (version_num text)")
    store.execute("INSERT INTO alembic_version VALUES ('of something else')")
    store.execute("CREATE SCHEMA mine")
    store.execute(f"ALTER DATABASE {store.url.partition('?')[0].rpartition('/')[2]} SET search_path = mine, public")
    assert "there is no log yet" in (await folder.run("status")).stderr
    assert (await folder.run("migrate")).returncode == 0
    finding = probe_outbox(OutboxConfig(url=store.url))
    assert finding.status == "ok", finding.detail


async def test_a_log_whose_rows_row_security_withholds_is_refused_in_one_line(
    tmp_path: Path, store: Store, postgres_server: PostgresServer
) -> None:
    """Its user would see an empty log, and deliver nothing."""
    await (await store.open()).aclose()
    user = f"reader_{store.url.partition('?')[0].rpartition('_')[2]}"
    store.execute(f"CREATE ROLE {user} LOGIN")
    try:
        for what in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            store.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO {user}")
        store.execute("ALTER TABLE lanes ENABLE ROW LEVEL SECURITY")
        configured(tmp_path, store.url.replace("//relay@", f"//{user}@"))
        said = 'policy for table "lanes": turn that off for the tables, or give the user of outbox.url BYPASSRLS'
        assert said in refused(tmp_path, "dispatch")
        store.execute(f"ALTER ROLE {user} BYPASSRLS")
        assert probe_outbox(OutboxConfig(url=store.url.replace("//relay@", f"//{user}@"))).status == "ok"
    finally:
        store.execute(f"DROP OWNED BY {user}")
        store.execute(f"DROP ROLE {user}")


async def test_the_tables_of_a_newer_version_are_refused_in_one_line(folder: Folder, store: Store) -> None:
    await folder.run("migrate")
    store.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in (["migrate"], ["events"]):
        refused = await folder.run(*command)
        assert refused.returncode != 0
        assert refused.stderr.count("\n") == 1
        assert "was written by a newer version of speech-relay (tables 9999" in refused.stderr


async def test_reading_creates_nothing(folder: Folder, store: Store) -> None:
    done = await folder.run("status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no log yet" in done.stderr
    assert store.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


async def test_what_is_in_the_log_is_shown(folder: Folder, store: Store) -> None:
    outbox = await store.open()
    await outbox.lanes.sync_endpoints(["crm"])
    log = await outbox.open_stream(new_stream())
    await log.append([durable(1, 1)])
    assert [event["id"] for event in (await folder.json("events"))["events"]] == [durable(1, 1).id]
    (pending,) = (await folder.json("deliveries"))["deliveries"]
    assert (pending["endpoint"], pending["state"]) == ("crm", "pending")


async def test_an_unknown_parameter_of_the_url_is_named_in_one_line(tmp_path: Path, store: Store) -> None:
    folder = configured(tmp_path, f"{store.url}&sslmod=x")
    for command in (["migrate"], ["status"]):
        refused = await folder.run(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "sslmod" in refused.stderr
        assert refused.stderr.endswith(": correct the parameters of outbox.url\n")


@pytest.mark.parametrize("parameters", ["port=abc", "host=a,b,c&port=1,2"])
async def test_ports_that_fit_no_server_are_refused_in_one_line(tmp_path: Path, parameters: str) -> None:
    folder = configured(tmp_path, f"postgresql://relay@/relay?{parameters}")
    for command in (["migrate"], ["status"], ["check", "--offline"]):
        refused = await folder.run(*command)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert refused.stderr.startswith("outbox.url: correct its parameters host and port: ")


async def test_the_folder_of_a_socket_may_be_written_as_a_host(tmp_path: Path, store: Store) -> None:
    database, _, socket = store.url.removeprefix("postgresql://relay@/").partition("?host=")
    folder = configured(tmp_path, f"postgresql://relay@{socket.replace('/', '%2F')}/{database}")
    assert (await folder.run("migrate")).returncode == 0
    assert store.execute("SELECT version_num FROM alembic_version") == [(REVISION,)]


def test_a_missing_certificate_of_the_authority_has_its_own_cure() -> None:
    said = 'root certificate file "/root/.postgresql/root.crt" does not exist\nEither provide the file'
    cure = "name the file of the server's authority in outbox.url, as sslrootcert=/path/ca.pem"
    assert words(psycopg.OperationalError(said)).endswith(f"does not exist: {cure}")


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ('too many connections for role "relay"', "raise that CONNECTION LIMIT;"),
        ('too many connections for database "relay"', "raise that CONNECTION LIMIT;"),
        ("sorry, too many clients already", "raise the server's max_connections;"),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", "raise the server's max"),
        ('no pg_hba.conf entry for host "10.0.0.1", user "relay", database "relay"', "allow this host, user and"),
        ("canceling statement due to statement timeout", "give it seconds;"),
        ('password authentication failed for user "relay"', "correct the user and password in outbox.url, PGPASS"),
    ],
)
def test_what_a_server_refuses_is_told_with_its_cure(said: str, cure: str) -> None:
    assert (
        words(psycopg.OperationalError(f"connection failed: FATAL:  {said}")).partition(f"{said}: ")[2].startswith(cure)
    )


async def test_a_password_in_the_url_is_never_shown(tmp_path: Path) -> None:
    secret, place = "open-sesame", "postgresql://127.0.0.1:1/relay"
    url = f"postgresql://relay:{secret}@127.0.0.1:1/relay?sslpassword={secret}"
    folder = configured(tmp_path, url)
    said = [await folder.run(*command) for command in (["status"], ["migrate"], ["purge", "--room", "x", "--yes"])]
    assert [done.returncode == 0 for done in said] == [False] * 3
    config = Config.model_validate({"outbox": {"url": url}})
    shown = [done.stdout + done.stderr for done in said]
    shown += [str(plan(config)), str(sentences(config)), probe_outbox(config.outbox).detail]
    assert all(place in text and secret not in text for text in shown), shown


async def test_a_server_that_is_too_old_is_refused_in_one_line(
    folder: Folder, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "OLDEST_SERVER", 990_000)
    (number,) = store.execute("SHOW server_version_num")[0]
    why = f"the server is PostgreSQL {int(str(number)) // 10_000}, and the relay needs 99 or newer"
    for command in ("migrate", "status", "deliveries"):
        done = await folder.run(command)
        assert (done.returncode, done.stderr.count("\n"), why in done.stderr) == (2, 1, True), (command, done.stderr)
    found = probe_outbox(OutboxConfig(url=store.url))
    assert (found.status, why in found.detail) == ("failed", True)


def test_a_database_that_is_not_utf8_is_refused_in_one_line(
    tmp_path: Path, postgres_server: PostgresServer, store: Store
) -> None:
    for encoding in ("SQL_ASCII", "LATIN1"):
        name = f"encoded_{encoding.lower()}"
        postgres_server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'")
        try:
            url = postgres_server.url(name)
            said = (
                f"the database's encoding is {encoding}: create it with createdb --template template0 --encoding UTF8"
            )
            configured(tmp_path, url)
            assert said in refused(tmp_path, "migrate")
            finding = probe_outbox(OutboxConfig(url=url))
            assert (finding.status, said in finding.detail) == ("failed", True)
        finally:
            postgres_server.drop(name)


def test_a_user_who_may_only_read_is_told_what_to_grant(tmp_path: Path, store: Store) -> None:
    open_database(store.url).close()
    store.execute("CREATE ROLE only_reads LOGIN")
    try:
        store.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO only_reads")
        url = store.url.replace("relay@", "only_reads@")
        finding = probe_outbox(OutboxConfig(url=url))
        assert (finding.status, GRANT in finding.detail) == ("failed", True)
        configured(tmp_path, url)
        assert refused(tmp_path, "dispatch").endswith(f": {GRANT}\n")
        store.execute("UPDATE alembic_version SET version_num = '0010'")
        assert probe_outbox(OutboxConfig(url=url)).detail.endswith(UPGRADE)
        told = refused(tmp_path, "migrate")
        assert told.endswith((f": {UPGRADE}\n", f": {GRANT}\n")), told
        store.execute("UPDATE alembic_version SET version_num = '" + REVISION + "'")
        store.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO only_reads")
        store.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO only_reads")
        assert probe_outbox(OutboxConfig(url=url)).status == "ok"
        store.execute("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC")
        assert probe_outbox(OutboxConfig(url=url)).detail.endswith(GRANT)
        store.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO only_reads")
        assert probe_outbox(OutboxConfig(url=url)).status == "ok"
    finally:
        store.execute("DROP OWNED BY only_reads")
        store.execute("DROP ROLE only_reads")


def test_check_refuses_the_tables_of_a_newer_version(store: Store) -> None:
    open_database(store.url).close()
    store.execute("UPDATE alembic_version SET version_num = '9999'")
    finding = probe_outbox(OutboxConfig(url=store.url))
    assert (finding.status, "newer version" in finding.detail) == ("failed", True)


def test_check_says_whether_the_database_can_be_used(store: Store) -> None:
    def said(url: str) -> tuple[str, str]:
        finding = probe_outbox(OutboxConfig(url=url))
        return finding.status, finding.detail.partition("; ")[2] or finding.detail.partition(", ")[2]

    assert said(store.url) == ("ok", "the log will be made")
    open_database(store.url).close()
    assert said(store.url) == ("ok", "with a log")
    missing = probe_outbox(OutboxConfig(url=store.url.replace("/test_", "/missing_")))
    assert missing.status == "failed"
    assert "does not exist" in missing.detail
    assert probe_outbox(OutboxConfig(url=store.url), offline=True).status == "not tried"


async def test_copy_names_its_options_and_how_to_go_on(tmp_path: Path, store: Store) -> None:
    source, folder = f"sqlite:///{tmp_path}/relay.db", Folder(tmp_path)
    open_database(source).close()
    target = store.url.replace("relay@", "relay:open-sesame@")
    missing = await folder.run("outbox", "copy", "--from", source, "--to", target.replace("/test_", "/missing_"))
    assert missing.stderr.endswith("create the database or the user, or correct --to\n")
    wrong = await folder.run("outbox", "copy", "--from", "postgres://a/b", "--to", target)
    assert (wrong.returncode, wrong.stderr.startswith("--from: the scheme is postgresql://")) == (2, True)
    done = await folder.run("outbox", "copy", "--from", source, "--to", target)
    assert done.stdout.endswith(f"Now set outbox.url to {store.url}, and start the relay.\n"), done.stderr
    assert "open-sesame" not in done.stdout + done.stderr + missing.stderr


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: (path.mkdir(), path.chmod(0o755)), "other users may enter it, or own it, or it is no folder"),
        (lambda path: path.touch(), "other users may enter it, or own it, or it is no folder"),
        (lambda path: path.symlink_to("/tmp"), "other users may enter it, or own it, or it is no folder"),
        (lambda path: path.parent.joinpath("file").touch(), ""),
        (lambda path: path.mkdir(mode=0o700), ""),
    ],
    ids=["others may enter it", "a file", "a link", "not made yet", "its own"],
)
async def test_check_warns_of_a_folder_in_which_events_cannot_wait(
    folder: Folder, make: Callable[[Path], object], why: str
) -> None:
    path = folder.path / "var" / "spill"
    path.parent.mkdir()
    make(path)
    found = (await folder.json("check", "--offline"))["checks"]
    details = [each["detail"] for each in found if each["subject"] == "outbox.spill"]
    assert len(details) == bool(why)
    assert all(why in detail and str(path) in detail for detail in details)
