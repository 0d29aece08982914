"""gRPC on asyncio, over a socket: unary calls and streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio
from werkzeug.datastructures import WWWAuthenticate

from entra_fast import Require
from entra_fast.integrations.grpc import EntraIDInterceptor, claims
from support.bearer import OID, READER, SITUATIONS, STEP_UP, Situation, async_validator, token

METHODS = {
    "/cases": "/cases.v1.Cases/List",
    "/reader": "/cases.v1.Cases/Read",
    "/step-up": "/secret.v1.Secret/Get",
    "/healthz": "/grpc.health.v1.Health/Check",
}
CODES = {
    200: grpc.StatusCode.OK,
    400: grpc.StatusCode.UNAUTHENTICATED,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}
# What has no counterpart in a call.
HTTP_ONLY = {
    "head",
    "head_with_a_token",
    "post",
    "preflight",
    "excluded_head",
    "token_in_the_query",
    "empty_header",
    # RFC 9728 defines metadata over HTTP.
    "metadata",
    "metadata_head",
    "metadata_with_a_bad_token",
}


def who() -> bytes:
    found = claims()
    return b"" if found is None else (found.object_id or "").encode()


class Handlers(grpc.GenericRpcHandler):
    """Any method responds with the caller's object id; `Watch` and `Talk` are streams."""

    def service(self, call: Any) -> Any:
        async def unary(_: bytes, __: Any) -> bytes:
            return who()

        async def watch(_: bytes, __: Any) -> AsyncIterator[bytes]:
            yield who()
            yield who()

        async def talk(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
            async for request in requests:
                yield request + who()

        if call.method.endswith("/Watch"):
            return grpc.unary_stream_rpc_method_handler(watch)
        if call.method.endswith("/Talk"):
            return grpc.stream_stream_rpc_method_handler(talk)
        return grpc.unary_unary_rpc_method_handler(unary)


@pytest_asyncio.fixture
async def channels() -> AsyncIterator[dict[str, Any]]:
    """A server for each kind of service, and a channel to it."""
    servers: list[Any] = []
    found: dict[str, Any] = {}
    with (
        async_validator("normal") as normal,
        async_validator("optional") as optional,
        async_validator("down") as down,
    ):
        for service, validator in (("normal", normal), ("optional", optional), ("down", down)):
            entra = EntraIDInterceptor(
                {"/cases.v1.Cases/Read": READER, "/secret.v1.Secret/*": STEP_UP},
                validator,
                exclude=["/grpc.health.v1.Health/*"],
                optional=service == "optional",
            )
            server = grpc.aio.server(interceptors=[entra])
            server.add_generic_rpc_handlers((Handlers(),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            servers.append((server, validator))
            found[service] = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        yield found
        for channel in found.values():
            await channel.close()
        for server, validator in servers:
            await server.stop(None)
            await validator.aclose()


async def call(channel: Any, method: str, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, Any, bytes]:
    """(status, trailing metadata, response) of a unary call."""
    running = channel.unary_unary(method)(b"", metadata=metadata)
    try:
        response = await running
    except grpc.aio.AioRpcError as error:
        trailing: Any = error.trailing_metadata()
        return error.code(), dict(trailing), b""
    return await running.code(), dict(await running.trailing_metadata()), response


@pytest.mark.parametrize(
    "situation", [one for one in SITUATIONS if one.name not in HTTP_ONLY], ids=lambda one: one.name
)
async def test_situations(channels: dict[str, Any], situation: Situation) -> None:
    """Every situation of the table that has a counterpart, with status codes and metadata of gRPC."""
    metadata = [(name.lower(), str(value)) for name, value in situation.fields()]
    method = METHODS[situation.path]
    code, trailing, response = await call(channels[situation.service], method, *metadata)
    assert code is CODES[situation.status]
    assert response == (situation.oid or "").encode()
    if situation.challenge is None:
        assert "www-authenticate" not in trailing
    else:
        parsed = WWWAuthenticate.from_header(trailing["www-authenticate"])
        assert parsed is not None
        for name, value in {"realm": "api", **situation.challenge}.items():
            assert parsed.parameters[name] == value
    if situation.status == 503:
        assert int(trailing["retry-after"]) > 0


async def test_streams(channels: dict[str, Any]) -> None:
    """They are refused before their first message, and have the claims in each of theirs."""
    for method, send in (("/cases.v1.Cases/Watch", b""), ("/cases.v1.Cases/Talk", iter([b"", b""]))):
        watch = method.endswith("Watch")
        kind = channels["normal"].unary_stream if watch else channels["normal"].stream_stream
        metadata = (("authorization", f"Bearer {token()}"),)
        assert [one async for one in kind(method)(send, metadata=metadata)] == [OID.encode()] * 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [one async for one in kind(method)(b"" if watch else iter([b""]))]
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_calls_at_the_same_time_have_claims_of_their_own(channels: dict[str, Any]) -> None:
    """One caller never sees another's."""

    async def one(oid: str) -> bool:
        mine = token(oid=oid)
        return (await call(channels["normal"], METHODS["/cases"], ("authorization", f"Bearer {mine}")))[
            2
        ] == oid.encode()

    assert all(await asyncio.gather(*(one(f"user-{number}") for number in range(50))))


async def test_a_method_wins_over_its_service() -> None:
    """And what is not named needs what `require` says."""
    everyone, readers = Require.any_token(), Require(role="reader")
    entra = EntraIDInterceptor({"/a.A/*": readers, "/a.A/Open": everyone}, require=Require(app=True))
    assert entra.requirement_of("/a.A/Open") == everyone
    assert entra.requirement_of("/a.A/Other") == readers
    assert entra.requirement_of("/a.AB/Other") == Require(app=True)


async def test_keys_are_fetched_while_the_server_runs() -> None:
    """By `lifespan`, or at the first call."""
    with async_validator("normal") as validator:
        async with EntraIDInterceptor(validator=validator).lifespan():
            for _ in range(1000):
                if validator.ready:
                    break
                await asyncio.sleep(0.01)
            assert validator.ready


@pytest.mark.parametrize(
    ("methods", "kind"),
    [
        ({"/a.A/B": "reader"}, TypeError),
        ({"a.A/B": Require(app=True)}, ValueError),
        ({"/*": Require(app=True)}, ValueError),
    ],
)
def test_wiring_mistakes_are_found_at_once(methods: Any, kind: type[Exception]) -> None:
    """A method that is none would never be protected."""
    with pytest.raises(kind):
        EntraIDInterceptor(methods)


def test_outside_of_a_call_there_are_no_claims() -> None:
    """Not None, as if none were needed."""
    with pytest.raises(RuntimeError, match="no token was checked"):
        claims()
