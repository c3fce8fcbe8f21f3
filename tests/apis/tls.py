"""A TLS proxy for a port on loopback, with a certificate signed by a private authority."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Example Authority")])


def write_certificate(directory: Path, host: str) -> tuple[Path, Path]:
    """Write two files: the authority's certificate, and the host's with its key."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    may_sign = x509.KeyUsage(
        key_cert_sign=True,
        **dict.fromkeys(
            (
                "digital_signature", "content_commitment", "key_encipherment", "key_agreement",
                "data_encipherment", "crl_sign", "encipher_only", "decipher_only",
            ),
            False,
        ),
    )  # fmt: skip
    is_authority = x509.BasicConstraints(ca=True, path_length=None)
    authority = _sign(_NAME, authority_key, authority_key, is_authority, may_sign)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    signed = _sign(subject, key, authority_key, names)
    authority_path, pair_path = directory / "authority.pem", directory / "pair.pem"
    authority_path.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    pair_path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return authority_path, pair_path


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(identifier, critical=False)
        .add_extension(issuer, critical=False)
    )
    for extension in extensions:
        is_critical = isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(signer, hashes.SHA256())


@contextmanager
def serve_tls(pair: Path, port: int) -> Iterator[int]:
    """Accept TLS on a new port within the block, and forward it to another port in plain text."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, context, port), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=_serve, args=(plain, context, port), daemon=True).start()


def _serve(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    """Forward one request at a time, as our client sends them: it waits for each answer."""
    with (
        suppress(OSError),
        plain,
        context.wrap_socket(plain, server_side=True) as outside,
        socket.create_connection(("127.0.0.1", port)) as inside,
    ):
        while request := outside.recv(1 << 20):
            inside.sendall(request)
            outside.sendall(inside.recv(1 << 20))
