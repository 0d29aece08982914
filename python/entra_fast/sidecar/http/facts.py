"""What a request turned out to be: for the attributes of its span, and for metrics under Texas's names.

What belongs here: facts that handlers find out and the middleware reports. What must never be here: anything
secret or personal.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from entra_fast import _native
from entra_fast._metrics import NO_PROVIDER, TEXAS_REQUEST_TYPES, Metrics
from entra_fast._provider.oauth import ANSWERED
from entra_fast.errors import EntraFastError, ProviderError
from entra_fast.sidecar.tracing import CACHE_HIT, IDENTITY_PROVIDER, MAX_TARGET, TARGET

CLIENT_CLOSED: Final = 499
"""In metrics and the access log: the client disconnected before its request was answered. It is not a status
of HTTP, and no client sees it; several servers count so."""

_KINDS: Final = {
    "provider_answer_malformed": "Json",
    "credential_unusable": "Sign",
    "subject_token_expired": "Upstream",  # there, the provider says so
} | dict.fromkeys(ANSWERED, "Upstream")


class Facts:
    """What a request turned out to be.

    Attributes:
        identity_provider: its name; empty until it is known.
        target: as the request has it.
        cache_hit: whether a cached token answered; None if none was asked for.
        error_kind: Texas's name for the kind of error that answered; empty if none did.
    """

    __slots__ = ("cache_hit", "error_kind", "identity_provider", "target")

    def __init__(self) -> None:
        self.identity_provider = ""
        self.target = ""
        self.cache_hit: bool | None = None
        self.error_kind = ""

    def failed(self, error: EntraFastError) -> None:
        """No token could be had."""
        if isinstance(error, ProviderError):
            self.error_kind = _KINDS.get(error.code, "UpstreamRequest")
        else:  # the request itself is wrong
            self.error_kind = "UnprocessableContent"

    def refused(self, provider: tuple[str, bool] | None, endpoint: str) -> None:
        """The contract refused the request.

        Args:
            provider: because of which it did so, and whether that is enabled; None for any other reason.
        """
        if provider is not None:
            self.identity_provider, is_enabled = provider
            unsupported = "TokenExchangeUnsupported" if endpoint == "exchange" else "TokenRequestUnsupported"
            self.error_kind = unsupported if is_enabled else "IdentityProviderNotEnabled"

    @property
    def served(self) -> str:
        """The enabled provider that the request is for, as metrics name it."""
        if self.error_kind == "IdentityProviderNotEnabled":
            return NO_PROVIDER
        return self.identity_provider or NO_PROVIDER

    def attributes(self) -> dict[str, str | bool]:
        """Those of a span."""
        found: dict[str, str | bool] = {}
        if self.identity_provider:
            found[IDENTITY_PROVIDER] = self.identity_provider
        if self.target:
            found[TARGET] = self.target[:MAX_TARGET]
        if self.cache_hit is not None:
            found[CACHE_HIT] = self.cache_hit
        return found

    def count(self, metrics: Metrics, endpoint: str, status: int, seconds: float) -> None:
        """Count the request under Texas's names."""
        path = _native.ENDPOINT_PATHS[endpoint]
        if status != CLIENT_CLOSED:
            metrics.texas_response_seconds.observe(seconds, str(status), path)
        if self.identity_provider:
            provider = self.identity_provider
            metrics.texas_requests.add(path, provider, TEXAS_REQUEST_TYPES[endpoint])
            if self.cache_hit:
                metrics.texas_cache_hits.add(path, provider)
            if self.error_kind:
                metrics.texas_errors.add(path, provider, self.error_kind)


FACTS = web.RequestKey("facts", Facts)
"""Where the facts are in a request."""
