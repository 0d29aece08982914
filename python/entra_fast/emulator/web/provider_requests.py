"""What the endpoints of the other local providers share: forms in, refusals out, faults. No routes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from entra_fast import _native
from entra_fast._native import unverified_claims
from entra_fast.emulator.protocol.faults import KINDS_OF_FAULT, TOKEN_FAULTS, Fault
from entra_fast.emulator.protocol.provider_keys import SigningKeys
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.refusals import Refusal
from entra_fast.emulator.web.endpoints import apply_faults
from entra_fast.emulator.web.handling import LOCAL, NO_STORE, json_response
from entra_fast.errors import EntraFastError, InvalidToken


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of one provider.

    Attributes:
        provider: its name.
        keys: what it signs with.
        body: the JSON object of a refusal.
    """

    provider: str
    keys: SigningKeys
    body: Callable[[Refusal], Mapping[str, str]]

    async def discovery(
        self, request: web.Request, document: Callable[[], Mapping[str, Any]]
    ) -> web.Response:
        """Respond with the discovery document."""
        broken = await self._broken(request, "/discovery")
        return broken if broken is not None else json_response(document(), 200, {})

    async def key_set(self, request: web.Request, document: Callable[[], Mapping[str, Any]]) -> web.Response:
        """Respond with the key set document."""
        broken = await self._broken(request, "/keys")
        return broken if broken is not None else json_response(await asyncio.to_thread(document), 200, {})

    async def token(
        self,
        request: web.Request,
        client_of: Callable[[Mapping[str, str]], str | None],
        answer: Callable[[Mapping[str, str], tuple[Fault, ...]], Awaitable[Mapping[str, Any]]],
    ) -> web.Response:
        """Respond to a token request.

        Args:
            client_of: the name of the application that a form seems to come from, for planned faults.
            answer: the JSON object of a successful response; raises Refusal.
        """
        local = request.app[LOCAL]
        try:
            form = await self._form(request)
            client = client_of(form)
            faults = local.faults.take(self.provider, client)
            for_token = tuple(fault for fault in faults if fault.kind in TOKEN_FAULTS)
            transport = tuple(fault for fault in faults if fault not in for_token)
            broken = await self.carry_out(request, client or "", transport)
            if broken is not None:
                return broken
            if not self.keys.ready:  # generating them takes a while, in which others are served
                await asyncio.to_thread(lambda: self.keys.active)
            return json_response(await answer(form, for_token))
        except Refusal as refusal:
            return json_response(self.body(refusal), refusal.status)

    async def _form(self, request: web.Request) -> dict[str, str]:
        problem = "the body must be application/x-www-form-urlencoded"
        if request.content_type == "application/x-www-form-urlencoded":
            try:
                # RFC 6749, section 3.2: no parameter may be repeated.
                return dict(_native.parse_form(await request.read()))
            except EntraFastError as error:
                problem = error.message
        refusal = Refusal(400, "invalid_request", problem, check="request")
        local = request.app[LOCAL]
        Recording(self.provider, "unreadable request").finish(local.journal, local.now(), refusal)
        raise refusal

    async def carry_out(
        self, request: web.Request, client: str, faults: tuple[Fault, ...]
    ) -> web.Response | None:
        """Record and carry out faults of the transport at the token endpoint; after None, the request
        continues. `client`: name of the application, if it is known."""
        local = request.app[LOCAL]
        for fault in faults:
            if fault.kind != "delay":  # the response follows, and is recorded itself
                text = f"{fault.kind}: " + KINDS_OF_FAULT[fault.kind].replace("'value'", f"{fault.value:g}")
                remedy = "remove it on the page of faults, or wait until it is over"
                refusal = Refusal(503, "planned_fault", text, check="fault", remedy=remedy)
                record = Recording(self.provider, "planned fault", client)
                record.finish(local.journal, local.now(), refusal)
        return await self._apply(request, faults)

    async def _broken(self, request: web.Request, path: str) -> web.Response | None:
        return await self._apply(request, request.app[LOCAL].faults.take(f"{self.provider}{path}"))

    async def _apply(self, request: web.Request, faults: tuple[Fault, ...]) -> web.Response | None:
        throttle = next((fault for fault in faults if fault.kind == "throttle"), None)
        others = tuple(fault for fault in faults if fault is not throttle)
        if (broken := await apply_faults(request, others)) is not None:
            return broken
        if throttle is None:
            return None
        text = f"planned fault {throttle.id}"
        headers = {**NO_STORE, "Retry-After": str(int(throttle.value))}
        return json_response({"error": "temporarily_unavailable", "error_description": text}, 429, headers)


def claim_of(token: str, name: str) -> str | None:
    """A claim of a token that nobody has verified, for choosing planned faults only."""
    try:
        found = unverified_claims(token).get(name)
    except InvalidToken:
        return None
    return found if isinstance(found, str) else None


def add_end_of(routes: web.UrlDispatcher, path: str) -> None:
    """Nothing else is at an address under `path`, also where a tenant's path would fit it. To be called after
    the provider's own routes are added."""
    routes.add_route("*", f"{path}/{{path:.*}}", _nothing)


async def _nothing(request: web.Request) -> web.Response:
    """405 where a route that was added before is for other methods, else 404."""
    allowed = set[str]()
    for resource in request.app.router.resources():
        if resource is request.match_info.route.resource:
            break
        allowed |= (await resource.resolve(request))[1]
    raise web.HTTPMethodNotAllowed(request.method, allowed) if allowed else web.HTTPNotFound
