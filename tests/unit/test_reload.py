"""A changed file is taken over, a bad one refused, and what cannot be changed in flight is named."""

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from relay.app.reload import Reload
from relay.cli.options import ConfigSource
from relay.config.endpoint import Endpoint
from relay.config.models import Config
from relay.errors import OutboxError
from tests.support.cli import SECRET
from tests.support.dispatch.certificates import Authority


def config_yaml(*endpoints: str, retention: str = "7d") -> str:
    named = "".join(f"  - {{name: {name}, url: 'http://127.0.0.1:9/{name}', secret: {SECRET}}}\n" for name in endpoints)
    return f"outbox: {{retention: {retention}}}\nendpoints:\n{named}"


class Source(ConfigSource):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.looked = threading.Event()
        """Set once it was read again."""

    def load(self) -> Config:
        try:
            return super().load()
        finally:
            self.looked.set()


class Running:
    """A reload of a real file, and what it applied."""

    def __init__(self, path: Path, config: Config | None = None) -> None:
        """``config`` is what the process started with; None for what is in the file now."""
        self.path = path
        self.applied: asyncio.Queue[list[str]] = asyncio.Queue()
        self.asked = asyncio.Event()
        self.broken: Exception | None = None
        self.source = Source(path)
        config = config or ConfigSource(path).load()
        self.reload = Reload(self.source, config, self.apply, asked=self.asked, every_s=0.01)

    async def apply(self, endpoints: Sequence[Endpoint]) -> None:
        if self.broken:
            raise self.broken
        self.applied.put_nowait([f"{endpoint.name} {endpoint.url.path}" for endpoint in endpoints])

    async def next(self) -> list[str]:
        async with asyncio.timeout(30):
            return await self.applied.get()


@asynccontextmanager
async def running(path: Path, config: Config | None = None) -> AsyncIterator[Running]:
    case = Running(path, config)
    duty = asyncio.create_task(case.reload.run())
    try:
        yield case
    finally:
        duty.cancel()
        with suppress(asyncio.CancelledError):
            await duty


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> str:
    async with asyncio.timeout(30):
        while not (found := [r.getMessage() for r in caplog.records if text in r.getMessage()]):  # noqa: ASYNC110 - a log line sets no event
            await asyncio.sleep(0.01)
    return found[-1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(config_yaml("crm", "bi"))
    return path


async def test_a_changed_file_is_taken_over(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(file) as case:
        file.write_text(config_yaml("crm", "audit").replace("/crm", "/crm/v2"))
        assert await case.next() == ["crm /crm/v2", "audit /audit"]
        said = await logged(caplog, "read again")
    assert said == "the configuration was read again: added audit; changed crm; removed bi"


async def test_what_was_saved_while_the_process_started_is_taken_over(file: Path) -> None:
    """It imports and opens the log for seconds after it has read its configuration."""
    config = ConfigSource(file).load()
    file.write_text(config_yaml("crm"))
    async with running(file, config) as case:
        assert await case.next() == ["crm /crm"]


async def test_a_start_reports_no_reload_of_what_it_has_just_read(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(file) as case:
        assert await asyncio.to_thread(case.source.looked.wait, 30)
        file.write_text(config_yaml("crm"))
        assert await case.next() == ["crm /crm"]
        await logged(caplog, "read again")
    assert caplog.messages == ["the configuration was read again: removed bi"]


async def test_a_certificate_that_was_replaced_is_taken_over_and_half_a_pair_refused(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    authority = Authority(tmp_path)
    pair = authority.sign("relay")
    tls = f"tls: {{cert: {pair.cert}, key: {pair.key}}}"
    secure = f"  - {{name: mtls, url: 'https://localhost:9/mtls', secret: {SECRET}, {tls}}}\n"
    file.write_text(config_yaml("crm") + secure)
    async with running(file) as case:
        other = authority.sign("other")
        other.cert.replace(pair.cert)
        assert "is not that of the certificate" in await logged(caplog, "not taken over")
        other.key.replace(pair.key)
        assert await case.next() == ["crm /crm", "mtls /mtls"]
        said = await logged(caplog, "read again")
    assert said == "the configuration was read again: changed mtls"


async def test_a_file_of_a_configmap_is_taken_over(tmp_path: Path) -> None:
    """Kubernetes writes a new folder, and turns the link to the former one over to it."""
    for folder, name in (("..1", "crm"), ("..2", "bi3")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(config_yaml(name))
        os.utime(tmp_path / folder / "config.yaml", ns=(0, 0))
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    async with running(tmp_path / "config.yaml") as case:
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        assert await case.next() == ["bi3 /bi3"]


async def test_a_file_that_is_replaced_as_editors_do_is_taken_over(file: Path) -> None:
    async with running(file) as case:
        new = file.with_name("new.yaml")
        new.write_text(config_yaml("crm", "xy"))  # as long as the old one
        os.utime(new, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        new.replace(file)
        assert await case.next() == ["crm /crm", "xy /xy"]


async def test_a_bad_file_is_refused_with_its_line_and_the_old_one_stays(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(file) as case:
        file.write_text(config_yaml("crm") + "  - {name: bi, url: nonsense}\n")
        said = await logged(caplog, "is not taken over")
        assert "config.yaml:4" in said
        file.write_text(config_yaml("crm"))
        assert await case.next() == ["crm /crm"]
    assert case.applied.empty()


async def test_sighup_applies_again_what_did_not_change(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(file) as case:
        case.asked.set()
        assert await logged(caplog, "read again") == "the configuration was read again: the endpoints are the same"
        assert await case.next() == ["crm /crm", "bi /bi"], (
            "the log may know less: another dispatcher has other endpoints"
        )


async def test_a_secret_that_changes_in_env_is_a_changed_endpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRM_WEBHOOK_SECRET", "")  # put back at the end, whatever loading puts into it
    path, dotenv = tmp_path / "config.yaml", tmp_path / ".env"
    path.write_text("endpoints:\n  - {name: crm, url: 'http://127.0.0.1:9/'}\n")
    dotenv.write_text(f"CRM_WEBHOOK_SECRET={SECRET}\n")
    async with running(path) as case:
        dotenv.write_text(f"CRM_WEBHOOK_SECRET={SECRET[:-4]}AAA=\n")
        assert await case.next() == ["crm /"]


async def test_what_needs_a_restart_is_named(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(file):
        file.write_text(config_yaml("crm", "bi", retention="1d"))
        said = await logged(caplog, "read again")
    assert said.endswith("the endpoints are the same; changes of outbox take effect at the next start")


async def test_a_log_that_cannot_be_written_leaves_the_change_for_the_next_time(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(file) as case:
        case.broken = OutboxError("the disk is full")
        file.write_text(config_yaml("crm"))
        assert "the disk is full" in await logged(caplog, "is not taken over")
        case.broken = None
        case.asked.set()
        assert await case.next() == ["crm /crm"]


@pytest.mark.parametrize(
    "text",
    [
        "capture: &c\n  rooms: &a [*a]\n",
        "capture: {stt: {provider: x, options: {a: " + "[" * 5000 + "]" * 5000 + "}}}",
        "a: 2026-02-30",
        "a: !!timestamp x",
        "a: " + "9" * 5000,
        'a: "\\UFFFFFFFF"',
        "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*{'a' if i == 0 else f'b{i - 1}'}, *a]\n" for i in range(60)),
    ],
    ids=["alias to itself", "deep", "no such date", "no timestamp", "many digits", "no character", "alias bomb"],
)
async def test_a_file_that_yaml_chokes_on_is_refused_and_the_relay_goes_on(
    file: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    async with running(file) as case:
        file.write_text(text)
        assert "config.yaml:" in await logged(caplog, "is not taken over")
        file.write_text(config_yaml("crm"))
        assert await case.next() == ["crm /crm"]
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("error", [RecursionError(), MemoryError(), ValueError("x"), UnicodeError()], ids=repr)
async def test_no_error_of_any_kind_ends_the_reload(
    file: Path, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    async with running(file) as case:
        case.broken = error
        file.write_text(config_yaml("crm"))
        await logged(caplog, "is not taken over")
        case.broken = None
        case.asked.set()
        assert await case.next() == ["crm /crm"]
