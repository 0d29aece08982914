"""The shared cache: whether its server answers in time, where one is configured.

What belongs here: one read, of an entry that cannot exist. What must never be here: writing.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final

from entra_fast._metrics import SHARED_FAILURES, Metrics
from entra_fast._settings.load import Settings
from entra_fast._settings.model import SharedCacheSettings
from entra_fast.cli.doctor.results import Examination, Outcome, Result

DOCS = "docs/guides/shared-cache.md"

_OPTIONAL = "; until then, tokens are fetched from the provider instead"
_FAILURES: Final = {
    "timed_out": Outcome(
        "warn",
        "the server does not answer in time",
        "an answer within ENTRA_FAST_REDIS_TIMEOUT_MILLIS",
        f"check the host, and that nothing forbids or delays the connection{_OPTIONAL}",
    ),
    "connect_failed": Outcome(
        "warn",
        "no connection to the server",
        "a connection",
        f"check host, port and scheme in ENTRA_FAST_REDIS_URL, and network policies{_OPTIONAL}",
    ),
    "tls_failed": Outcome(
        "fail",
        "no TLS connection to the server",
        "a certificate that is valid, for this host, and trusted",
        "use rediss:// only if the server speaks TLS; name its authority in ENTRA_FAST_CA_BUNDLE",
    ),
    "auth_failed": Outcome(
        "fail",
        "the server rejects user name or password",
        "a user that may read and write",
        "set ENTRA_FAST_REDIS_USERNAME and ENTRA_FAST_REDIS_PASSWORD, or correct them",
    ),
    "malformed": Outcome(
        "fail",
        "the server does not speak the protocol of Redis",
        "Redis or Valkey",
        "check ENTRA_FAST_REDIS_URL",
    ),
    "refused": Outcome(
        "fail",
        "the server refuses to read an entry",
        "a user that may read and write",
        "give the user the permissions in docs/guides/shared-cache.md",
    ),
}
"""By the outcomes that `entra_fast_shared_cache_requests_total` counts."""


async def check_shared_cache(examination: Examination, settings: Settings, wrong: Result | None) -> None:
    """Whether the server answers. Nothing where none is configured."""
    shared = settings.shared_cache

    async def ask() -> Outcome:
        assert shared is not None  # noqa: S101 - else a setting is wrong, and this is not called
        return await _read(shared, settings.outbound.ca_bundle)

    if shared is not None or (wrong is not None and "REDIS" in wrong.found):
        late = _FAILURES["timed_out"]
        await examination.check("shared_cache", ask, docs=DOCS, needs=(wrong,), late=late)


async def _read(shared: SharedCacheSettings, ca_bundle: str | None) -> Outcome:
    from entra_fast._provider.redis_cache import SharedCache  # noqa: PLC0415 - needs the [redis] extra

    metrics = Metrics()
    cache = SharedCache(shared, ca_bundle=ca_bundle, metrics=metrics)
    location = shared.location()
    try:
        while True:
            await cache.get(os.urandom(32))
            outcomes = {
                outcome: count for (_, outcome), (count,) in metrics.shared.figures().items() if count
            }
            if "miss" in outcomes:
                return Outcome("ok", f"{location.host}:{location.port} answers")
            # The first answers may be late, because the connection has to be opened first.
            if "paused" in outcomes or not set(outcomes) <= {"timed_out"}:
                return _FAILURES[
                    next(name for name in (*SHARED_FAILURES[1:], "refused", "timed_out") if name in outcomes)
                ]
            await asyncio.sleep(shared.timeout)
    finally:
        await cache.aclose()
