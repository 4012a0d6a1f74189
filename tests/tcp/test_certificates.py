"""What users get wrong with keys and certificates: one sentence each, before anything listens."""

import contextlib
import os
import ssl
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError

from tests.certificates import Certificate, make_certificate
from uppercase.taps.tcp import Options
from uppercase.tcp._tls import server_context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def said(*arguments: str) -> str:
    """Return what the command line answers."""
    with pytest.raises(UsageError) as caught:
        Options().parseOptions(list(arguments))
    return str(caught.value)


def test_a_missing_or_wrong_file_is_named(certificate: Certificate, tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "other.example")
    missing = tmp_path / "missing.pem"
    key, cert, secret = certificate.key, certificate.cert, certificate.encrypted_key
    # One whose key is of a kind that does not exist.
    strange = tmp_path / "strange.pem"
    plain = ssl.PEM_cert_to_DER_cert(cert.read_text())
    kind = bytes.fromhex("06072a8648ce3d02")
    strange.write_text(ssl.DER_cert_to_PEM_cert(plain.replace(kind + b"\1", kind + b"\x09")))
    for arguments, sentence in {
        f"privateKey={missing}:certKey={cert}": f"cannot read the private key file '{missing}': No",
        f"privateKey={tmp_path}:certKey={cert}": "Is a directory",
        f"privateKey={key}:certKey={missing}": f"cannot read the certificate file '{missing}': No",
        f"privateKey={key}:certKey={key}": f"the file '{key}' holds no certificate in PEM form",
        f"privateKey={cert}:certKey={cert}": f"the file '{cert}' holds no private key in PEM form",
        f"privateKey={key}": f"the file '{key}' holds no certificate in PEM form",
        f"privateKey={other.key}:certKey={cert}": "does not belong to the (first) certificate in",
        f"privateKey={secret}:certKey={cert}": "is encrypted, which a service cannot use",
        f"privateKey={key}:certKey={cert}:extraCertChain={missing}": "cannot read the certificate",
        f"privateKey={key}:certKey={cert}:dhParameters={missing}": "cannot read the Diffie-Hellman",
        f"privateKey={key}:certKey={cert}:dhParameters={cert}": f"'{cert}' holds no Diffie-Hellman",
        f"privateKey={key}\0:certKey={cert}": "cannot read the private key file",
        f"privateKey={key}:certKey={strange}": f"the file '{strange}' holds no usable certificate",
    }.items():
        assert sentence in said(f"--listen=tls:0:{arguments}")


def test_a_pipe_is_refused(certificate: Certificate) -> None:
    """OpenSSL would wait at it: files are read again, and a shell's <(COMMAND) writes once."""
    pipe, writer = os.pipe()
    os.write(writer, certificate.key.read_bytes())
    os.close(writer)
    try:
        sentence = said(f"--listen=tls:0:privateKey=/dev/fd/{pipe}:certKey={certificate.cert}")
    finally:
        os.close(pipe)
    assert sentence.startswith(f"cannot read the private key file '/dev/fd/{pipe}': Illegal seek")


def test_a_wrong_endpoint_string_is_named(certificate: Certificate) -> None:
    pair = f"privateKey={certificate.key}:certKey={certificate.cert}"
    assert "TLS 1.2 and every newer" in said(f"--listen=ssl:0:{pair}:sslmethod=TLSv1_METHOD")
    assert "accepted are strings such as tls:12443" in said(f"--listen=tls:0:{pair}:bogus=1")
    assert "without a port" in said(f"--listen=tls:{pair}")
    assert "without a port" in said(f"--listen=tls:/etc/pems:port=443:{pair}")
    assert "cannot read the private key file 'server.pem'" in said("--listen=tls:0")


def test_a_colon_in_a_file_name_is_escaped_with_a_backslash(tmp_path: Path) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    made = make_certificate(folder)
    key, cert = (str(path).replace(":", "\\:") for path in (made.key, made.cert))
    Options().parseOptions([f"--listen=tls:0:privateKey={key}:certKey={cert}"])


def test_certificates_are_served_where_nothing_can_be_written(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/does/not/exist")
    endpoint = certificate.endpoint()
    Options().parseOptions([f"--listen={endpoint}"])
    if os.access("/dev/shm", os.W_OK):
        Options().parseOptions([f"--listen={endpoint}:extraCertChain={certificate.cert}"])


def test_without_cryptography_the_pip_command_is_named_and_plain_tcp_works(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    assert "pip install 'twisted-uppercase[tls]'" in said(f"--listen={certificate.endpoint()}")
    Options().parseOptions(["--port=0"])


@pytest.mark.parametrize(("days_ago", "told"), [(0, 0), (9, 1), (-9, 1)])
def test_a_certificate_that_is_not_valid_now_is_told_of(
    days_ago: int, told: int, tmp_path: Path
) -> None:
    made = make_certificate(tmp_path, days_ago=days_ago)
    with capturedLogs() as events:
        server_context(str(made.key), str(made.cert))
    said = [formatEvent(event) for event in events]
    assert len([line for line in said if "clients that verify it will refuse" in line]) == told


FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""RFC 7919's."""


@pytest.mark.parametrize(
    ("suites", "parameters", "agreed"),
    [
        ("ECDHE+AESGCM", False, True),
        ("ECDHE+CHACHA20", False, True),
        ("ECDHE-RSA-AES128-SHA", False, False),
        ("DHE+AESGCM", False, False),
        ("DHE+AESGCM", True, True),
        ("DHE+CHACHA20", True, True),
        ("DHE-RSA-AES128-SHA", True, False),
    ],
)
def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption(
    suites: str, parameters: bool, agreed: bool, tmp_path: Path
) -> None:
    """With DHE only where its parameters are given; it goes with RSA alone."""
    made = make_certificate(tmp_path, key=rsa.generate_private_key(65537, 2048))
    (dh := tmp_path / "dh.pem").write_text(FFDHE2048)
    files = str(made.key), str(made.cert), None, str(dh) if parameters else None
    client = ssl.create_default_context(cafile=str(made.cert))
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(suites)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(one, other, server_hostname="localhost"),
        server_context(*files).wrap_bio(other, one, server_side=True),
    )

    def shake() -> None:
        for side in sides * 3:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()

    if agreed:
        shake()
        assert sides[0].cipher() == sides[1].cipher() is not None
    else:
        with pytest.raises(ssl.SSLError):
            shake()
