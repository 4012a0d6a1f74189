"""Keys and certificates for tests, made on the fly."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificate:
    """The files of one self-signed certificate for localhost."""

    key: Path
    cert: Path
    encrypted_key: Path

    def endpoint(self, prefix: str = "tls", port: int = 0) -> str:
        """Return the endpoint string of a loopback server with it."""
        return f"{prefix}:{port}:privateKey={self.key}:certKey={self.cert}:interface=127.0.0.1"


def make_certificate(
    folder: Path,
    name: str = "localhost",
    days_ago: int = 0,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
) -> Certificate:
    """Make a key and a certificate that signs itself, valid for three days around then."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
    alternatives: list[x509.GeneralName] = [
        x509.DNSName(name),
        *(x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")),
    ]
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    made = Certificate(folder / "key.pem", folder / "cert.pem", folder / "encrypted.pem")
    pkcs8 = PrivateFormat.PKCS8
    made.key.write_bytes(key.private_bytes(Encoding.PEM, pkcs8, NoEncryption()))
    secret = BestAvailableEncryption(b"secret")
    made.encrypted_key.write_bytes(key.private_bytes(Encoding.PEM, pkcs8, secret))
    made.cert.write_bytes(cert.public_bytes(Encoding.PEM))
    return made
