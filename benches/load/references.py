"""What the sidecar is measured against: `python -m benches.load.references KIND`, settings on standard input.

Each does the least that a Python server can do. `bare`: a uvloop protocol that takes whatever comes for one
request and writes a fixed answer. `aiohttp`: a handler that reads the body and gives a fixed answer. `pyjwt`:
a handler as one would write it, which validates with PyJWT and answers with the claims. All run on uvloop.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any, cast

import uvloop
from aiohttp import web


class Bare(asyncio.Protocol):
    """No parsing, no framing: a bound that no server can beat."""

    answer = b""
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)


async def bare(settings: dict[str, Any]) -> int:
    Bare.answer = settings["answer"].encode("latin-1")
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return port


async def _application(handler: Any) -> int:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port: int = runner.addresses[0][1]
    return port


async def aiohttp(settings: dict[str, Any]) -> int:
    body = settings["answer"].encode("latin-1").partition(b"\r\n\r\n")[2]
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, headers=headers)

    return await _application(handler)


async def pyjwt(settings: dict[str, Any]) -> int:
    import jwt  # noqa: PLC0415 - only this one needs it

    key = jwt.PyJWK(settings["jwk"]).key
    audience, issuer = settings["audience"], settings["issuer"]

    async def handler(request: web.Request) -> web.Response:
        fields = await request.json()
        claims = jwt.decode(fields["token"], key, algorithms=["RS256"], audience=audience, issuer=issuer)
        return web.json_response({"active": True, **claims})

    return await _application(handler)


async def serve() -> None:
    kind = {"bare": bare, "aiohttp": aiohttp, "pyjwt": pyjwt}[sys.argv[1]]
    port = await kind(json.loads(sys.stdin.readline()))
    print(json.dumps({"port": port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())
