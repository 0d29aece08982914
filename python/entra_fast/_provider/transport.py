"""Which HTTP client requests are made with: aiohttp's where it is installed, else the standard library's.

What belongs here: the choice. aiohttp is imported when a client is made, not before: importing it takes
longer than everything else that the library loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from entra_fast._provider.blocking_http_client import BlockingHttpClient, ThreadedHttpClient
from entra_fast._provider.http_rules import HttpLimits, TokenTransport

if TYPE_CHECKING:
    from entra_fast._settings.model import OutboundSettings  # not needed for validating tokens


def asynchronous(
    outbound: OutboundSettings | None = None, *, limits: HttpLimits | None = None
) -> TokenTransport:
    """An HTTP client for the running event loop.

    Args:
        outbound: limits, CA bundle and web proxies; by default the proxies of the process's environment.
        limits: only the limits.
    """
    try:
        from entra_fast._provider.http_client import HttpClient  # noqa: PLC0415 - see above
    except ImportError:
        return threaded(outbound, limits=limits)
    return HttpClient(limits) if outbound is None else HttpClient.from_settings(outbound)


def threaded(
    outbound: OutboundSettings | None = None, *, limits: HttpLimits | None = None
) -> ThreadedHttpClient:
    """An HTTP client for any event loop that needs the standard library only. Arguments as for
    `asynchronous`."""
    return ThreadedHttpClient(blocking(outbound, limits=limits))


def blocking(
    outbound: OutboundSettings | None = None, *, limits: HttpLimits | None = None
) -> BlockingHttpClient:
    """An HTTP client for threads. Arguments as for `asynchronous`."""
    if outbound is None:
        return BlockingHttpClient(limits)
    limits = HttpLimits(outbound.connect_timeout, outbound.read_timeout, outbound.overall_timeout)
    return BlockingHttpClient(limits, ca_bundle=outbound.ca_bundle, proxies=outbound.proxies)
