"""A fleet without certificates stays on this machine; what else is asked for is refused with the way out."""

import ssl
from pathlib import Path

import pytest

from harness.errors import RefusedError
from harness.fleet.net import check_address, check_reach, security_of, up, write_key

KEY = Path("fleet.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "[::1]", "::1"])
def test_this_machine_alone_needs_no_key(host: str) -> None:
    check_reach(host, None)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "[::]", "192.168.1.10", "10.0.0.1", "board.local", "localhost.evil.example"]
)
def test_anything_else_does(host: str) -> None:
    with pytest.raises(RefusedError, match="Give --tls FILE"):
        check_reach(host, None)
    check_reach(host, KEY)


def test_neither_scheduler_nor_client_nor_worker_leaves_the_machine() -> None:
    with pytest.raises(RefusedError, match="Give --tls FILE"):
        up("0.0.0.0", 0, None, 60.0, said=print)
    with pytest.raises(RefusedError, match="Give --tls FILE"):
        check_address("tcp://192.168.1.10:8786", None)
    assert check_address("tcp://127.0.0.1:8786", None) == "127.0.0.1"
    assert check_address("tls://[fe80::1]:8786", KEY) == "fe80::1"


def test_a_key_is_private_and_never_replaced(tmp_path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    pytest.importorskip("distributed")
    path = tmp_path / "fleet.pem"
    write_key(path)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    (certificate,) = x509.load_pem_x509_certificates(path.read_bytes())
    certificate.verify_directly_issued_by(certificate)
    security = security_of(path)
    for role in ("client", "worker", "scheduler"):
        context = security.get_connection_args(role)["ssl_context"]
        assert context.verify_mode == ssl.CERT_REQUIRED, "nobody is spoken to who has not the same key"
    before = path.read_bytes()
    with pytest.raises(RefusedError, match="never replaced"):
        write_key(path)
    assert path.read_bytes() == before


def test_files_that_hold_no_certificates_are_told_before_anything_listens(tmp_path: Path) -> None:
    pytest.importorskip("distributed")

    notes = tmp_path / "notes.txt"
    for text in ("just some notes", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""):
        notes.write_text(text)
        with pytest.raises(RefusedError, match="--tls: found no certificate with its key"):
            security_of(notes)
