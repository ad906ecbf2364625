"""Certificates for servers of tests: an authority of their own, which nobody else trusts."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

_BEGIN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_END = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """`name.crt` and `name.key`."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key


def authority(name: str = "test authority") -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    return Certificate(certificate=_signed(name, key, name, key, is_ca=True), key=key)


def of_server(issuer: Certificate, *hosts: str) -> Certificate:
    """For names and addresses."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = issuer.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    signed = _signed(hosts[0], key, str(name), issuer.key, is_ca=False, hosts=hosts)
    return Certificate(certificate=signed, key=key)


def signing() -> Certificate:
    """RSA, for tokens; signs itself."""
    key = rsa.generate_private_key(65537, 2048)
    return Certificate(certificate=_signed("tokens", key, "tokens", key, is_ca=True), key=key)


def _signed(
    subject: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: str,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    *,
    is_ca: bool,
    hosts: tuple[str, ...] = (),
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
