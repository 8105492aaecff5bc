"""Certificates of a fleet: an authority of its own, and one certificate for each machine, as Dask's TLS wants them.

Source: RFC 5280 (what a certificate holds); P-256 keys, as NIST FIPS 186-5 defines them.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness.errors import MissingPackageError, RefusedError
from harness.fleet.matrix import is_device_name

_VALID_DAYS: Final = 825
_NAME: Final = "edge-harness fleet"


def make_certificates(folder: Path, machines: Sequence[str], hosts: Sequence[str] = ()) -> list[Path]:
    """Write ``ca.pem`` and, for each machine, ``NAME.pem`` and ``NAME-key.pem``; an authority that is there is used.

    Args:
        folder: Where to; only its owner can read the keys.
        machines: Names.
        hosts: Host names and addresses that the certificates are good for.

    Returns:
        The new certificates.

    Raises:
        RefusedError: A name that is none, or a certificate that is there already.
        MissingPackageError: ``cryptography`` is not installed.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise MissingPackageError("cryptography", "fleet") from error

    def signed(
        name: str, key: Any, issuer: Any, issuer_key: Any, alternatives: Sequence[Any], *, authority: bool
    ) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))  # clocks of boards are often behind
            .not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

    def named(name: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def write_key(path: Path, key: Any) -> None:
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)

    for machine in machines:
        if not is_device_name(machine) or machine == "ca":
            raise RefusedError(f"{machine!r} is no name of a machine: letters, digits, dots and dashes")
        if (folder / f"{machine}-key.pem").exists() or (folder / f"{machine}.pem").exists():
            raise RefusedError(f"{folder / machine}.pem is there already; delete it and its key to make new ones")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority_path, authority_key_path = folder / "ca.pem", folder / "ca-key.pem"
    if authority_path.exists() and authority_key_path.exists():
        authority_key: Any = serialization.load_pem_private_key(authority_key_path.read_bytes(), None)
        authority = x509.load_pem_x509_certificate(authority_path.read_bytes())
    else:
        authority_key = ec.generate_private_key(ec.SECP256R1())
        authority = signed(_NAME, authority_key, named(_NAME), authority_key, (), authority=True)
        write_key(authority_key_path, authority_key)
        authority_path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    made = []
    for machine in machines:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(machine), *(_alternative(x509, host) for host in hosts)]
        certificate = signed(machine, key, authority.subject, authority_key, names, authority=False)
        write_key(folder / f"{machine}-key.pem", key)
        made.append(folder / f"{machine}.pem")
        made[-1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return made


def _alternative(x509: Any, host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
