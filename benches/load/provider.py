"""The provider of the load runs, a process of its own: signs and publishes real keys, enforces nothing.

    echo '{"key": PRIVATE_JWK, "key_delay": SECONDS, "port": 0}' | python -m benches.load.provider

Prints one line of JSON, `{"port": ...}`, and serves until its input ends. `GET /fetches` says how often the
key set was asked for.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse
from typing import Any

import uvloop
from aiohttp import web

from benches import tokens as material
from entra_fast.emulator.protocol.private_key import PrivateKey

LIFETIME = 3600
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"


def build_app(key: PrivateKey, key_delay: float, base_url: list[str]) -> web.Application:
    """`base_url` is filled when the port is known."""
    fetches = 0
    header = json.dumps({"typ": "JWT", "alg": key.algorithm, "kid": key.kid}).encode()

    async def discovery(_: web.Request) -> web.Response:
        tenant = f"{base_url[0]}/{material.TENANT}"
        return web.json_response(
            {
                "issuer": f"{tenant}/v2.0",
                "jwks_uri": f"{tenant}/discovery/v2.0/keys",
                "token_endpoint": f"{tenant}/oauth2/v2.0/token",
            }
        )

    async def keys(_: web.Request) -> web.Response:
        nonlocal fetches
        fetches += 1
        if fetches > 1:  # the first fetch is the sidecar's start
            await asyncio.sleep(key_delay)
        return web.json_response({"keys": [key.public_jwk()]})

    async def token(request: web.Request) -> web.Response:
        form = dict(urllib.parse.parse_qsl(await request.text()))
        now = int(time.time())
        # As long for every grant, so that responses can be compared.
        claims = material.claims(fetches, now)
        signed = key.sign(header, json.dumps(claims, separators=(",", ":")).encode())
        answer = {"token_type": "Bearer", "expires_in": LIFETIME, "access_token": signed}
        if form.get("grant_type") == TOKEN_EXCHANGE:
            answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        return web.json_response(answer)

    async def count(_: web.Request) -> web.Response:
        return web.json_response(fetches)

    app = web.Application()
    app.router.add_get(f"/{material.TENANT}/v2.0/.well-known/openid-configuration", discovery)
    app.router.add_get(f"/{material.TENANT}/discovery/v2.0/keys", keys)
    app.router.add_post(f"/{material.TENANT}/oauth2/v2.0/token", token)
    app.router.add_get("/fetches", count)
    return app


async def serve(settings: dict[str, Any]) -> None:
    base_url = [""]
    key = PrivateKey(settings["key"])
    runner = web.AppRunner(build_app(key, settings.get("key_delay", 0.0), base_url), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.get("port", 0)).start()
    port = runner.addresses[0][1]
    base_url[0] = f"http://127.0.0.1:{port}"
    print(json.dumps({"port": port}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve(json.loads(sys.stdin.readline())))
