"""TLS of a web server that is no part of the mesh, as an issuer of tokens has."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.fakes import pki

if TYPE_CHECKING:
    from pathlib import Path


def web_server(folder: Path, address: str = "127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """A web server at an IP address, which is no part of the mesh.

    Returns:
        PEM file of its authority, and the server's context.
    """
    now = datetime.now(UTC)

    def made(name: str, *, of: Any = None, is_ca: bool, san: Any = None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = of or (None, key)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        public = issuer_key.public_key()
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
        usage = pki.key_usage("key_cert_sign") if is_ca else pki.key_usage("digital_signature")
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if san is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([san]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256()), key

    authority = made("web ca", is_ca=True)
    name = x509.IPAddress(ipaddress.ip_address(address))
    certificate, key = made("web", of=authority, is_ca=False, san=name)
    ca_file, both = folder / "web-ca.pem", folder / "web.pem"
    ca_file.write_bytes(authority[0].public_bytes(Encoding.PEM))
    both.write_bytes(certificate.public_bytes(Encoding.PEM) + pki.private_pem(key))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return ca_file, context
