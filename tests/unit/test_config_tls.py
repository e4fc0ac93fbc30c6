"""Certificate files are used once while the configuration is read: what is wrong with one is said then."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from relay.config import tls
from relay.config.load import load
from relay.config.problems import Mistakes
from tests.support.dispatch.certificates import Authority

ENDPOINT = "endpoints:\n  - {name: crm, url: 'https://crm.example.com/', signing: none, tls: {%s}}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, client.pem, client.key, other.key, locked.key (with a password)."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = Authority(folder, "ca")
    client, other = authority.sign("client"), authority.sign("other")
    subprocess.run(
        ["openssl", "ec", "-in", other.key, "-out", folder / "locked.key", "-aes256", "-passout", "pass:x"],
        check=True,
        capture_output=True,
    )
    assert client.cert.exists()
    return folder


def mistakes(tmp_path: Path, tls: str) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(ENDPOINT % tls)
    with pytest.raises(Mistakes) as raised:
        load(path, environ={})
    return [str(problem).replace(str(path), "F") for problem in raised.value.problems]


def test_which_receivers_are_trusted_does_not_depend_on_the_python(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = ssl.create_default_context

    def as_python_3_13(**options: Any) -> ssl.SSLContext:
        context = default(**options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13)
    tls._plain.cache_clear()
    ca, cert, key = (files / name for name in ("ca.pem", "client.pem", "client.key"))
    for context in (tls.client_context(None, None, None), *(tls.client_context(a, cert, key) for a in (None, ca))):
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname


def test_what_fits_together_is_fine(tmp_path: Path, files: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ENDPOINT % f"ca: {files}/ca.pem, cert: {files}/client.pem, key: {files}/client.key")
    assert load(path, environ={}).endpoints[0].tls.cert == files / "client.pem"


def test_a_key_of_another_certificate(tmp_path: Path, files: Path) -> None:
    assert mistakes(tmp_path, f"cert: {files}/client.pem, key: {files}/other.key") == [
        f"F:2: endpoints[crm].tls: the key in {files}/other.key is not that of the certificate in {files}/client.pem"
    ]


def test_a_key_in_a_file_of_its_own_that_is_not_named(tmp_path: Path, files: Path) -> None:
    assert mistakes(tmp_path, f"cert: {files}/client.pem") == [
        f"F:2: endpoints[crm].tls: {files}/client.pem does not hold a certificate and its key in PEM; "
        "name the key's file in key"
    ]


def test_a_key_with_a_password_asks_nobody_for_it(tmp_path: Path, files: Path) -> None:
    assert mistakes(tmp_path, f"cert: {files}/client.pem, key: {files}/locked.key") == [
        f"F:2: endpoints[crm].tls: the private key in {files}/locked.key has a password; write it to a file without one"
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read(tmp_path: Path, files: Path) -> None:
    key = Path(shutil.copy(files / "client.key", tmp_path))
    key.chmod(0)
    assert mistakes(tmp_path, f"cert: {files}/client.pem, key: {key}") == [
        f"F:2: endpoints[crm].tls.key: {key} cannot be read: Permission denied; correct the path or the file's mode"
    ]


def test_tls_without_https(tmp_path: Path, files: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(ENDPOINT.replace("https:", "http:") % f"ca: {files}/ca.pem")
    with pytest.raises(Mistakes, match="has tls, and a url without; write https://"):
        load(path, environ={})
