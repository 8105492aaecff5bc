"""A fleet without certificates stays on this machine; what else is asked for is refused with the way out."""

from pathlib import Path

import pytest

from harness.errors import RefusedError
from harness.fleet.net import Tls, check_address, check_reach, security_of, up

FILES = Tls(Path("ca.pem"), Path("me.pem"), Path("me-key.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "[::1]", "::1"])
def test_this_machine_alone_needs_no_certificate(host: str) -> None:
    check_reach(host, Tls())


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "", "[::]", "192.168.1.10", "10.0.0.1", "board.local", "localhost.evil.example"]
)
def test_anything_else_does(host: str) -> None:
    with pytest.raises(RefusedError, match="edge-harness fleet certs"):
        check_reach(host, Tls())
    check_reach(host, FILES)


def test_neither_scheduler_nor_client_nor_worker_leaves_the_machine() -> None:
    with pytest.raises(RefusedError, match="fleet certs"):
        up("0.0.0.0", 0, 0, Tls(), said=print)
    with pytest.raises(RefusedError, match="fleet certs"):
        check_address("tcp://192.168.1.10:8786", Tls())
    assert check_address("tcp://127.0.0.1:8786", Tls()) == "127.0.0.1"
    assert check_address("tls://[fe80::1]:8786", FILES) == "fe80::1"


def test_certificates_are_of_one_authority_and_keys_are_private(tmp_path: Path) -> None:
    x509 = pytest.importorskip("cryptography.x509")
    from harness.fleet.certs import make_certificates

    folder = tmp_path / "certs"
    first = make_certificates(folder, ["scheduler"], ["192.168.1.10", "hub.local"])
    later = make_certificates(folder, ["phone"])

    authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    for path in (*first, *later):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority)  # raises when it is not
    names = x509.load_pem_x509_certificate(first[0].read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert [str(v) for v in names.value.get_values_for_type(x509.IPAddress)] == ["192.168.1.10"]
    assert {oct(p.stat().st_mode & 0o777) for p in folder.glob("*-key.pem")} == {"0o600"}
    for machines in (["phone"], ["new", "new"]):
        with pytest.raises(RefusedError, match="there already"):
            make_certificates(folder, machines)
    for name in ("../x", "", "ca", "a b"):
        with pytest.raises(RefusedError, match="no name of a machine"):
            make_certificates(folder, [name])


def test_files_that_hold_no_certificates_are_told_before_anything_listens(tmp_path: Path) -> None:
    pytest.importorskip("distributed")

    notes = tmp_path / "notes.txt"
    for text in ("just some notes", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""):
        notes.write_text(text)
        with pytest.raises(RefusedError, match="--tls-ca, --tls-cert, --tls-key: no PEM"):
            security_of(Tls(notes, notes, notes))
