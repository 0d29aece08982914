"""HTTPS on this machine: a local certificate authority, and a server certificate that it issues.

MSAL requires https. The authority is created once and kept in a directory. A client that trusts it trusts
everything that its key signs; so only the owner can read the key, and the authority can sign for this
machine's names only (name constraints, RFC 5280, section 4.2.1.10).
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from entra_fast.errors import ConfigurationError

AUTHORITY_DAYS: Final = 365
CERTIFICATE_DAYS: Final = 90
_NAMES: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class LocalTls:
    """What the server needs, and what its clients have to trust.

    Attributes:
        context: for serving.
        authority: PEM file with the authority's certificate.
    """

    context: ssl.SSLContext
    authority: Path

    def instructions(self) -> str:
        """How to make common clients trust the authority."""
        path = self.authority
        return (
            f"Trust {path} in the programs that talk to this provider:\n"
            f"  Python (requests, MSAL):  export REQUESTS_CA_BUNDLE={path}\n"
            f"  Python (ssl), OpenSSL:    export SSL_CERT_FILE={path}\n"
            f"  Node.js:                  export NODE_EXTRA_CA_CERTS={path}\n"
            f"  curl:                     curl --cacert {path} ...\n"
            f"  Java:                     keytool -importcert -noprompt -trustcacerts -alias entra-fast "
            f"-file {path} -keystore truststore.p12 -storepass changeit\n"
            f"  Debian, Ubuntu:           cp {path} /usr/local/share/ca-certificates/entra-fast.crt "
            "&& update-ca-certificates"
        )


def prepare(directory: Path, names: Iterable[str] = ()) -> LocalTls:
    """The authority of a directory, created if there is none or it has expired, and a new server certificate.

    Args:
        names: host names in addition to localhost, for containers; the authority is replaced if it may not
            sign for them.

    Raises:
        ConfigurationError: the directory cannot be written, or holds a damaged authority.
    """
    wanted = tuple(dict.fromkeys((*_NAMES, *names)))
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority, key = _authority(directory, wanted)
        chain, chain_key = directory / "server.pem", directory / "server-key.pem"
        _issue(authority, key, wanted, chain, chain_key)
    except OSError as error:
        text = f"the directory {directory} for TLS cannot be used: {error.strerror}"
        raise ConfigurationError("tls_unwritable", text, "tls") from None
    except ValueError:
        text = f"{directory} holds a damaged certificate authority; remove it to start from scratch"
        raise ConfigurationError("tls_damaged", text, "tls") from None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, chain_key)
    return LocalTls(context, directory / "ca.pem")


def _authority(
    directory: Path, names: tuple[str, ...]
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate_file, key_file = directory / "ca.pem", directory / "ca-key.pem"
    if certificate_file.exists() and key_file.exists():
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = load_pem_private_key(key_file.read_bytes(), None)
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        permitted = {str(item.value) for item in constraints.permitted_subtrees or ()}
        alive = certificate.not_valid_after_utc > _now() + datetime.timedelta(days=1)
        if (
            alive
            and isinstance(key, ec.EllipticCurvePrivateKey)
            and permitted >= {str(_subtree(n).value) for n in names}
        ):
            return certificate, key
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "entra-fast local CA, for this machine only")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(hours=1))
        .not_valid_after(_now() + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints([_subtree(item) for item in names], None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(certificate_file, certificate.public_bytes(Encoding.PEM), 0o644)
    return certificate, key


def _issue(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    chain: Path,
    chain_key: Path,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - datetime.timedelta(hours=1))
        .not_valid_after(
            min(_now() + datetime.timedelta(days=CERTIFICATE_DAYS), authority.not_valid_after_utc)
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_general_name(item) for item in names]), critical=False)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write(chain_key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    _write(chain, certificate.public_bytes(Encoding.PEM), 0o644)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _subtree(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, data: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "wb") as file:
        if hasattr(os, "fchmod"):  # not on Windows, where files get the permissions of their folder
            os.fchmod(file.fileno(), mode)
        file.write(data)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
