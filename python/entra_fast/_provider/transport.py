"""Which HTTP client requests are made with: aiohttp's where it is installed, else the standard library's.

What belongs here: the choice. Both are imported when a client is made, not before: validators with fixed keys
make no requests, and importing aiohttp takes longer than everything else that the library loads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from entra_fast._late_imports import importing
from entra_fast._provider.http_options import HttpOptions

if TYPE_CHECKING:
    from entra_fast._provider.blocking_http_client import BlockingHttpClient, ThreadedHttpClient
    from entra_fast._provider.http_rules import TokenTransport
    from entra_fast._settings.model import OutboundSettings


def asynchronous(options: HttpOptions | OutboundSettings) -> TokenTransport:
    """An HTTP client for the running event loop."""
    try:
        with importing:
            from entra_fast._provider.http_client import HttpClient  # noqa: PLC0415 - see above
    except ImportError:
        return threaded(options)
    if isinstance(options, HttpOptions):
        return HttpClient.from_options(options)
    return HttpClient.from_settings(options)


def threaded(options: HttpOptions | OutboundSettings) -> ThreadedHttpClient:
    """An HTTP client for any event loop that needs the standard library only."""
    with importing:
        from entra_fast._provider.blocking_http_client import ThreadedHttpClient  # noqa: PLC0415 - see above

    return ThreadedHttpClient(blocking(options))


def blocking(options: HttpOptions | OutboundSettings) -> BlockingHttpClient:
    """An HTTP client for threads."""
    with importing:
        from entra_fast._provider.blocking_http_client import BlockingHttpClient  # noqa: PLC0415 - see above

    if isinstance(options, HttpOptions):
        return BlockingHttpClient.from_options(options)
    return BlockingHttpClient.from_settings(options)
