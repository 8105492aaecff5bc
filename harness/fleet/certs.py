"""Certificates of a fleet: an authority of its own, and one certificate for each machine, as Dask's TLS wants them.

Source: RFC 5280 (what a certificate holds); P-256 keys, as NIST FIPS 186-5 defines them.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from harness.errors import RefusedError, optional
from harness.fleet.matrix import is_device_name

_VALID_DAYS: Final = 825
_AUTHORITY: Final = "ca"


def make_certificates(folder: Path, machines: Sequence[str], hosts: Sequence[str] = ()) -> list[Path]:
    """Write ``ca.pem`` and, for each machine, ``NAME.pem`` and ``NAME-key.pem``; an authority that is there is used.

    Only the folder's owner can read the keys. ``hosts`` are names and addresses that the certificates are good for.
    The new certificates are named in the order of the machines.

    Raises:
        RefusedError: A name that is none, or a certificate that is there already.
        MissingPackageError: ``cryptography`` is not installed.
    """
    with optional("cryptography", "fleet"):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

    def named(name: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def make(name: str, issuer: str, issuer_key: Any, *alternatives: Any) -> Any:
        """Write a certificate and its key; give back the key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))  # clocks of boards are often behind
        builder = builder.not_valid_after(now + datetime.timedelta(days=_VALID_DAYS))
        builder = builder.add_extension(x509.BasicConstraints(ca=not alternatives, path_length=None), critical=True)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        text = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        with os.fdopen(os.open(folder / f"{name}-key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text)
        (folder / f"{name}.pem").write_bytes(builder.sign(issuer_key or key, hashes.SHA256()).public_bytes(pem))
        return key

    pem = serialization.Encoding.PEM
    for machine in machines:
        if not is_device_name(machine) or machine == _AUTHORITY:
            raise RefusedError(f"{machine!r} is no name of a machine: letters, digits, dots and dashes")
        if (folder / f"{machine}-key.pem").exists() or machines.count(machine) > 1:
            raise RefusedError(
                f"{folder / machine}-key.pem is there already, or named twice; delete it to make a new one"
            )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    signing = folder / f"{_AUTHORITY}-key.pem"
    if signing.exists():
        authority_key: Any = serialization.load_pem_private_key(signing.read_bytes(), None)
    else:
        authority_key = make(_AUTHORITY, _AUTHORITY, None)
    reached: list[Any] = []
    for host in hosts:
        try:
            reached.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            reached.append(x509.DNSName(host))
    for machine in machines:
        make(machine, _AUTHORITY, authority_key, x509.DNSName(machine), *reached)
    return [folder / f"{machine}.pem" for machine in machines]
