"""The sizes of the caches within the memory limit of the container.

What belongs here: how large the caches are where no size is set, and which sizes cannot fit. What must never
be here: how the limit is found (_memory.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from entra_fast._settings import catalogue
from entra_fast._settings.model import CacheSettings
from entra_fast._settings.reader import Reader
from entra_fast.errors import ConfigurationError

IDLE_BYTES = 48 << 20
"""What one process takes without anything in its caches."""
NEXT_IDLE_BYTES = 32 << 20
"""What each further one takes; the rest is shared. With N workers there are N + 1 processes."""
TELEMETRY_BYTES = 20 << 20
"""What OpenTelemetry takes in addition, in each process."""
SHARED_CACHE_BYTES = 10 << 20
"""What the client of Redis takes in addition, in the process that talks to the provider."""
TELEMETRY = tuple(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT" for signal in ("", "TRACES_", "METRICS_"))
"""Any of these variables turns telemetry on."""
LEAST_BYTES = 1 << 20
"""The least size of a cache in one process. With less memory than for this, nothing can be promised."""


def cache_settings(read: Reader, workers: int, memory_limit: int | None) -> CacheSettings:
    """The limits of the caches.

    Sizes that are set are used as they are. Where one is not set and there is a memory limit, the cache gets
    a part of what idle processes leave: three quarters for both caches, because requests need memory too.

    Raises:
        ConfigurationError: a value is wrong, or the sizes that are set do not fit into the memory limit.
    """
    tokens, verified = catalogue.CACHE_MAX_BYTES, catalogue.VERIFIED_CACHE_BYTES
    token_bytes, verified_bytes = read.explicit(tokens), read.explicit(verified)
    has_redis = read.secret(catalogue.REDIS_URL) is not None
    idle = idle_bytes(workers, telemetry=has_telemetry(read.environ), shared_cache=has_redis)
    if memory_limit is not None:
        room = max(0, memory_limit - idle)
        with read.reporting():
            _check_fit({tokens.name: token_bytes, verified.name: verified_bytes}, room, memory_limit)
        free = (room - (token_bytes or 0) - (verified_bytes or 0)) * 3 // 4
        # In the proportion of the defaults, unless the other one has its size already.
        for_tokens = free if verified_bytes is not None else free * 2 // 3
        for_verified = free if token_bytes is not None else free // 3
    else:
        for_tokens, for_verified = tokens.default, verified.default
    if token_bytes is None:
        token_bytes = min(tokens.default, max(for_tokens, LEAST_BYTES * processes(workers)))
    if verified_bytes is None:
        verified_bytes = min(verified.default, max(for_verified, LEAST_BYTES * workers))
    return CacheSettings(
        max_entries=read.get(catalogue.CACHE_MAX_ENTRIES),
        max_bytes=token_bytes,
        verified_entries=read.get(catalogue.VERIFIED_CACHE_ENTRIES),
        verified_bytes=verified_bytes,
        memory_limit=memory_limit,
        idle_bytes=idle,
    )


def processes(workers: int) -> int:
    """The number of processes of a sidecar."""
    return 1 if workers == 1 else workers + 1


def idle_bytes(workers: int, *, telemetry: bool = False, shared_cache: bool = False) -> int:
    """What a sidecar takes without anything in its caches (docs/explanation/performance.md)."""
    more = processes(workers) - 1
    optional = TELEMETRY_BYTES * (1 + more) * telemetry + SHARED_CACHE_BYTES * shared_cache
    return IDLE_BYTES + NEXT_IDLE_BYTES * more + optional


def has_telemetry(environ: Mapping[str, str]) -> bool:
    """Whether an environment has an address for telemetry."""
    is_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not is_off and any(environ.get(name, "").strip() for name in TELEMETRY)


def _check_fit(sizes: dict[str, int | None], room: int, memory_limit: int) -> None:
    explicit = {name: size for name, size in sizes.items() if size is not None}
    total = sum(explicit.values())
    if total <= room:
        return
    names = " and ".join(explicit)
    asked = f"{names} is {total} bytes" if len(explicit) == 1 else f"{names} are {total} bytes together"
    raise ConfigurationError(
        "setting_invalid",
        f"{asked}, but the container's memory limit of {memory_limit} bytes leaves {room} bytes for caches: "
        "set less, leave it out, or raise the limit",
        next(iter(explicit)),
    )
