"""Tokens for gRPC, with real servers and channels, over TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from entra_fast.errors import ProviderError
from entra_fast.tokens import AsyncTokenClient, TokenClient
from entra_fast.tokens.grpc import AioGrpcRenewal, GrpcAuth, GrpcRenewal
from support.provider import Provider, refuse

from .conftest import TARGET
from .test_authentication import CLAIMS, challenge

METHOD = "/cases.v1.Cases/Get"


def certificate() -> tuple[bytes, bytes]:
    """A key and a self-signed certificate for this machine, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem, signed.public_bytes(Encoding.PEM)


@dataclass
class Service:
    """A service that records the tokens it gets, and refuses as scripted."""

    tokens: list[str | None] = field(default_factory=list)
    challenges: list[str] = field(default_factory=list)
    port: int = 0
    root: bytes = b""

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    def get(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        sent = dict(context.invocation_metadata()).get("authorization")
        self.tokens.append(None if sent is None else str(sent))
        if self.challenges:
            context.set_trailing_metadata((("www-authenticate", self.challenges.pop(0)),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "more is needed")
        return b"a case"


@pytest.fixture
def service() -> Iterator[Service]:
    """A running one."""
    made = Service()
    key, made.root = certificate()
    handler: Any = grpc.unary_unary_rpc_method_handler(made.get)
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("cases.v1.Cases", {"Get": handler})]
    )
    made.port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, made.root)]))
    server.start()
    yield made
    server.stop(None).wait()


def credentials(service: Service, auth: GrpcAuth) -> grpc.ChannelCredentials:
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(service.root), grpc.metadata_call_credentials(auth)
    )


def call(service: Service, auth: GrpcAuth, *, renew: bool = True) -> bytes:
    with grpc.secure_channel(f"localhost:{service.port}", credentials(service, auth)) as channel:
        intercepted: Any = grpc.intercept_channel(channel, GrpcRenewal(auth)) if renew else channel
        found: bytes = intercepted.unary_unary(METHOD)(b"", timeout=20)
        return found


async def call_aio(service: Service, auth: GrpcAuth) -> bytes:
    async with grpc.aio.secure_channel(
        f"localhost:{service.port}", credentials(service, auth), interceptors=[AioGrpcRenewal(auth)]
    ) as channel:
        method: Any = channel.unary_unary(METHOD)
        found: bytes = await method(b"", timeout=20)
        return found


def calling(kind: str, service: Service, auth: GrpcAuth) -> bytes:
    return asyncio.run(call_aio(service, auth)) if kind == "aio" else call(service, auth)


@pytest.fixture
def client(entra: Provider) -> Iterator[TokenClient]:
    """Of the provider."""
    with TokenClient.from_env(entra.environment()) as made:
        yield made


both = pytest.mark.parametrize("kind", ["threads", "aio"])


@both
def test_calls_get_the_token(kind: str, service: Service, client: TokenClient, entra: Provider) -> None:
    """In the metadata, from the cache the second time."""
    auth = GrpcAuth(client, TARGET, origins=[service.origin])
    for _ in range(2):
        assert calling(kind, service, auth) == b"a case"
    first, second = service.tokens
    assert first is not None
    assert first.startswith("Bearer ")
    assert first == second
    assert len(entra.requests) == 1


def test_other_origins_get_no_token(service: Service, client: TokenClient, entra: Provider) -> None:
    """The call is made without one."""
    assert call(service, GrpcAuth(client, TARGET, origins=["https://localhost"])) == b"a case"
    assert service.tokens == [None]
    assert entra.requests == []


@both
def test_a_claims_challenge_is_answered_once(
    kind: str, service: Service, client: TokenClient, entra: Provider
) -> None:
    """With a new token; a second challenge is the result of the call."""
    auth = GrpcAuth(client, TARGET, origins=[service.origin])
    field = challenge().headers["WWW-Authenticate"]
    service.challenges = [field]
    assert calling(kind, service, auth) == b"a case"
    assert [request.form.get("claims") for request in entra.requests] == [None, CLAIMS]
    assert service.tokens[0] != service.tokens[1]
    service.challenges = [field, field]
    with pytest.raises(grpc.RpcError) as caught:
        calling(kind, service, auth)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(service.tokens) == 4


@both
def test_other_refusals_are_returned(
    kind: str, service: Service, client: TokenClient, entra: Provider
) -> None:
    """Without another token."""
    service.challenges = ['Bearer error="invalid_token"']
    with pytest.raises(grpc.RpcError):
        calling(kind, service, GrpcAuth(client, TARGET, origins=[service.origin]))
    assert len(entra.requests) == len(service.tokens) == 1


def test_the_refusal_of_a_challenge_is_raised(service: Service, client: TokenClient, entra: Provider) -> None:
    """With the challenge."""
    auth = GrpcAuth(client, TARGET, origins=[service.origin])
    assert call(service, auth) == b"a case"
    service.challenges = [challenge().headers["WWW-Authenticate"]]
    entra.then(refuse(400, "interaction_required"))
    with pytest.raises(ProviderError) as caught:
        call(service, auth)
    assert caught.value.details["claims"] == CLAIMS


def test_no_token_no_call(service: Service, client: TokenClient, entra: Provider) -> None:
    """The status says why, and the service is not called."""
    entra.always = refuse(400, "invalid_grant", "AADSTS501051: not assigned")
    with pytest.raises(grpc.RpcError) as caught:
        call(service, GrpcAuth(client, TARGET, origins=[service.origin]), renew=False)
    error: Any = caught.value
    assert "AADSTS501051" in error.details()
    assert service.tokens == []


def test_an_asynchronous_client_is_refused(entra: Provider) -> None:
    """gRPC asks for tokens in threads."""
    client: Any = AsyncTokenClient.from_env(entra.environment())
    with pytest.raises(TypeError, match="pass a TokenClient"):
        GrpcAuth(client, TARGET, origins=["https://localhost"])
