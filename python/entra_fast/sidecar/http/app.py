"""The sidecar's HTTP interface as an aiohttp application: routes, handlers, responses.

What belongs here: turning requests into calls of the service and results into responses, exactly as
docs/reference/endpoints.md says. What must never be here: rules about tokens, and sockets.

Every response has the same few headers, made in one place, because the fast path must send the same bytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import orjson
from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDictProxy

from entra_fast import _native
from entra_fast._http import refusals
from entra_fast._http.refusals import RequestTimedOut
from entra_fast._http.responses import JsonResponse, closing_if_unread, error_body, error_response
from entra_fast._metrics import CONTENT_TYPE as METRICS_CONTENT_TYPE
from entra_fast._validation import inactive
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.sidecar.http import openapi
from entra_fast.sidecar.http.facts import CLIENT_CLOSED, FACTS, Facts
from entra_fast.sidecar.http.requests import (
    MAX_BODY_BYTES,
    BadRequest,
    introspected_token,
    is_form,
    token_request,
)
from entra_fast.sidecar.interfaces import Observed
from entra_fast.sidecar.logs import logger
from entra_fast.sidecar.rejections import INVALID_REQUEST
from entra_fast.sidecar.service import Service

ENDPOINT_NAMES = {path: name for name, path in _native.ENDPOINT_PATHS.items()}
PROBE_PATHS = ("/healthz", "/readyz", "/metrics", "/openapi.json")
PLAIN_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
UNCHECKED_PATHS = ("/", "/healthz")
"""On the API's listener. The kubelet requests these by the address of the pod."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(service: Service, *, probes: bool = True) -> web.Application:
    """The API as an application.

    Args:
        service: answers the requests. The caller starts and closes it.
        probes: whether probes and metrics are served here; otherwise they have a listener of their own.
    """
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    api = _Api(service)
    app.middlewares.append(_Around(service, service.settings.server.allowed_hosts).middleware)
    for name, handler in (("token", api.token), ("exchange", api.exchange), ("introspect", api.introspect)):
        app.router.add_post(_native.ENDPOINT_PATHS[name], handler, expect_handler=_expect)
    if probes:
        _add_probes(app, service)
    return app


def build_probe_app(observed: Observed) -> web.Application:
    """Probes and metrics only, for a listener of their own."""
    around = _Around(observed, frozenset(), probe=True)
    app = web.Application(middlewares=[around.middleware], client_max_size=1024)
    _add_probes(app, observed, root=True)
    return app


class _Around:
    """Handles what every request needs: the caller check, errors, metrics, the access log, spans."""

    def __init__(self, observed: Observed, allowed_hosts: frozenset[str], *, probe: bool = False) -> None:
        self._observed = observed
        self._callers = _native.CallerCheck(allowed_hosts)
        self._probe = probe

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        # Named by the matched route, not by the path as sent, so that no spelling bypasses the checks.
        resource = request.match_info.route.resource
        route = "other" if resource is None else resource.canonical
        endpoint = ENDPOINT_NAMES.get(route, "other")
        tracing = self._observed.tracing
        facts = request[FACTS] = Facts()
        try:
            if tracing is None or endpoint == "other":
                response = await self._answer(request, handler)
            else:
                with tracing.server_span(request, route) as span:
                    response = await self._answer(request, handler)
                    span.describe(facts.attributes())
                    span.answered(response.status)
        except ConnectionError:
            self._record(request, endpoint, CLIENT_CLOSED, started)
            raise
        if self._observed.draining:
            response.force_close()  # the client opens its next connection to another process
        self._record(request, endpoint, response.status, started)
        return response

    def _record(self, request: web.Request, endpoint: str, status: int, started: float) -> None:
        seconds = time.perf_counter() - started
        metrics = self._observed.metrics
        facts = request[FACTS]
        metrics.requests.add(endpoint, str(status), facts.served)
        metrics.request_seconds.observe(seconds, endpoint)
        if facts.cache_hit:
            metrics.tokens_from_cache.add(endpoint, facts.served)
        if metrics.texas and endpoint != "other":
            facts.count(metrics, endpoint, status, seconds)
        known = request.path in ENDPOINT_NAMES or request.path in PROBE_PATHS
        self._observed.access_log.log(request.method, request.path if known else "other", status, seconds)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if self._probe or request.path not in UNCHECKED_PATHS:
                reason = self._refusal(request.headers)
                if reason is not None:
                    return error_response(403, reason)
            if _expectation(request) not in ("", "100-continue"):
                status, sentence = refusals.EXPECTATION
                raise BadRequest(sentence, status)
            return await handler(request)
        except BadRequest as exc:
            return closing_if_unread(request, error_response(exc.status, exc.message))
        except web.HTTPMethodNotAllowed as exc:
            allow = ", ".join(sorted(exc.allowed_methods))
            body = error_body("invalid_request", f"method not allowed: expected {allow}")
            return closing_if_unread(request, JsonResponse(405, body, {"Allow": allow}))
        except web.HTTPNotFound:  # perhaps a request for the other listener
            known = ", ".join(resource.canonical for resource in request.app.router.resources())
            return closing_if_unread(request, error_response(404, f"no such path; expected one of {known}"))
        except RequestTimedOut:
            return closing_if_unread(request, error_response(*refusals.NOT_IN_TIME))
        except web.RequestPayloadError:  # also at introspection, where malformed contents are 200
            return closing_if_unread(request, error_response(*refusals.NOT_FRAMED))
        except ConnectionError:
            raise  # the client is gone
        except Exception:
            logger.exception("unexpected error while answering a request")
            return error_response(500, "unexpected error", error="server_error")

    def _refusal(self, headers: CIMultiDictProxy[str]) -> str | None:
        """Why a request is refused with 403, or None."""
        return self._callers.refusal(
            hosts=headers.getall(hdrs.HOST, []),
            has_origin=hdrs.ORIGIN in headers,
            fetch_sites=headers.getall("Sec-Fetch-Site", []),
            is_forwarded=hdrs.X_FORWARDED_FOR in headers,
            probe=self._probe,
        )


class _Api:
    """The handlers of the three endpoints."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def token(self, request: web.Request) -> web.Response:
        return await self._issue(request, exchange=False)

    async def exchange(self, request: web.Request) -> web.Response:
        return await self._issue(request, exchange=True)

    async def introspect(self, request: web.Request) -> web.Response:
        """Always 200, so that callers handle only one form of "not valid"."""
        facts = request[FACTS]
        try:
            body, form = await self._body(request)
            try:
                provider, token = introspected_token(self._service.contract, body, form=form)
            except BadRequest:
                self._note_refusal(facts, body, form, "introspect")
                raise
            facts.identity_provider = self._service.served[provider].settings.name
            answer = await self._service.introspect(provider, token)
        except BadRequest as exc:
            if exc.status == 415:
                raise
            self._service.rejections.add_code(INVALID_REQUEST, facts.served)
            return closing_if_unread(request, JsonResponse(200, inactive(exc.message)))
        return JsonResponse(200, answer)

    async def _issue(self, request: web.Request, *, exchange: bool) -> web.Response:
        body, form = await self._body(request)
        facts = request[FACTS]
        try:
            wanted = token_request(self._service.contract, body, form=form, exchange=exchange)
        except BadRequest:
            self._note_refusal(facts, body, form, "exchange" if exchange else "token")
            raise
        served = self._service.served[wanted.provider]
        facts.identity_provider, facts.target, facts.cache_hit = served.settings.name, wanted.target, False
        tokens = served.tokens
        assert tokens is not None  # noqa: S101 - the contract refuses a provider that issues no tokens
        try:
            if wanted.user_token is not None:
                token = await tokens.exchange(
                    wanted.target, wanted.user_token, skip_cache=wanted.skip_cache, claims=wanted.claims
                )
            else:
                token = await tokens.acquire(
                    wanted.target,
                    skip_cache=wanted.skip_cache,
                    claims=wanted.claims,
                    resources=wanted.resources,
                    authorization_details=wanted.authorization_details,
                )
            facts.cache_hit = token.cached
        except ProviderError as exc:
            facts.failed(exc)
            if logger.isEnabledFor(logging.DEBUG):
                logger.debug("no token", extra={"fields": {"code": exc.code, "status": exc.status}})
            headers = {} if exc.retry_after is None else {"Retry-After": str(exc.retry_after)}
            return JsonResponse(exc.status, error_body(exc.error, exc.message, exc.details), headers)
        except EntraFastError as exc:  # the request itself is wrong: the message names the field
            facts.failed(exc)
            raise BadRequest(exc.message) from None
        return JsonResponse(
            200,
            orjson.dumps(
                {
                    "access_token": token.access_token,
                    "expires_in": token.expires_in,
                    "token_type": token.token_type,
                }
            ),
        )

    def _note_refusal(self, facts: Facts, body: bytes, form: bool, endpoint: str) -> None:
        """Note the provider because of which a request is refused, if it is."""
        contract = self._service.contract
        facts.refused(contract.refused_provider(body, form=form, endpoint=endpoint), endpoint)

    async def _body(self, request: web.Request) -> tuple[bytes, bool]:
        """The body, and whether it is a form."""
        if refusals.is_compressed(request):
            status, sentence = refusals.COMPRESSED
            raise BadRequest(sentence, status)
        form = is_form(request.headers.getall(hdrs.CONTENT_TYPE, []))
        return await _read(request), form


async def _read(request: web.Request) -> bytes:
    status, sentence = refusals.too_large(MAX_BODY_BYTES)
    too_large = BadRequest(sentence, status)
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise too_large from None


async def _expect(request: web.Request) -> None:
    """`Expect: 100-continue` (RFC 9110, section 10.1.1). The handler refuses any other expectation."""
    if _expectation(request) == "100-continue" and (request.content_length or 0) <= MAX_BODY_BYTES:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _expectation(request: web.Request) -> str:
    """What the client expects. An HTTP/1.0 client would take an interim response for the final one."""
    return request.headers.get(hdrs.EXPECT, "").lower() if request.version >= HttpVersion11 else ""


# --- probes ---


def _add_probes(app: web.Application, observed: Observed, *, root: bool = False) -> None:
    """`root`: whether `/` is another name of `/healthz`, as in Texas."""
    description = orjson.dumps(openapi.document())

    async def healthz(_: web.Request) -> web.Response:
        started = observed.has_started()
        return JsonResponse(200 if started else 503, b"ok" if started else b"starting", PLAIN_TEXT)

    async def readyz(_: web.Request) -> web.Response:
        readiness = await observed.readiness()
        return JsonResponse(200 if readiness.ready else 503, orjson.dumps(readiness.document()))

    async def metrics(_: web.Request) -> web.Response:
        return JsonResponse(200, await observed.exposition(), {"Content-Type": METRICS_CONTENT_TYPE})

    async def description_of_api(_: web.Request) -> web.Response:
        return JsonResponse(200, description)

    if root:
        app.router.add_get("/", healthz, expect_handler=_expect)
    for path, handler in zip(PROBE_PATHS, (healthz, readyz, metrics, description_of_api), strict=True):
        app.router.add_get(path, handler, expect_handler=_expect)
