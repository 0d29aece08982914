"""The container's memory limit, and the sizes of the caches that follow from it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from entra_fast import _arguments, _memory
from entra_fast._arguments import Options
from entra_fast._memory import NO_LIMIT, memory_limit
from entra_fast._settings.cache_sizes import IDLE_BYTES, NEXT_IDLE_BYTES
from entra_fast._settings.load import Settings
from entra_fast._settings.model import CacheSettings
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.process.worker_settings import for_worker, settings_from, share_of_each
from entra_fast.validate import Validator
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer

DOCS = Path(__file__).parents[2] / "docs"
MIB = 1 << 20


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """A directory with `proc` and `sys` of a machine."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


def limited(root: Path, limit: int | str) -> Path:
    """A container with this limit."""
    return machine(root, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{limit}\n"})


V1 = "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("cgroup", "files", "limit"),
    [
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "268435456\n"}, 268435456, id="v2 container"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "max\n"}, None, id="v2 without a limit"),
        pytest.param(
            "0::/system.slice/app.service\n",
            {"sys/fs/cgroup/system.slice/app.service/memory.max": "1000\n"},
            1000,
            id="v2 own group",
        ),
        pytest.param(
            "0::/pods/pod/container\n",
            {
                "sys/fs/cgroup/pods/pod/container/memory.max": "max\n",
                "sys/fs/cgroup/pods/pod/memory.max": "2000\n",
                "sys/fs/cgroup/pods/memory.max": "3000\n",
            },
            2000,
            id="v2 the smallest of the groups above",
        ),
        pytest.param(
            "0::/pods/pod/container\n",
            {
                "sys/fs/cgroup/pods/pod/container/memory.max": "2000\n",
                "sys/fs/cgroup/pods/memory.max": "10\n",
            },
            10,
            id="v2 a group above is tighter",
        ),
        pytest.param(
            "0::/kubepods/pod/container\n",
            {"sys/fs/cgroup/memory.max": "4000\n"},
            4000,
            id="v2 the group's directory is what is mounted",
        ),
        pytest.param("0::/../sibling\n", {"sys/fs/cgroup/memory.max": "5000\n"}, 5000, id="v2 outside"),
        pytest.param(
            "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n",
            {
                f"{V1}docker/abc/memory.limit_in_bytes": "6000\n",
                f"{V1}memory.limit_in_bytes": f"{2**63 - 4096}",
            },
            6000,
            id="v1",
        ),
        pytest.param(
            "4:memory:/docker/abc\n", {f"{V1}memory.limit_in_bytes": "7000\n"}, 7000, id="v1 container"
        ),
        pytest.param(
            "4:memory:/a/b\n",
            {f"{V1}a/b/memory.limit_in_bytes": "9000\n", f"{V1}a/memory.limit_in_bytes": "8000\n"},
            8000,
            id="v1 the group above is tighter",
        ),
        pytest.param(
            "4:memory:/\n",
            {f"{V1}memory.limit_in_bytes": "9223372036854771712\n"},
            None,
            id="v1 without a limit",
        ),
        pytest.param(
            "4:cpu,memory:/a\n0::/b\n",
            {f"{V1}a/memory.limit_in_bytes": "900\n", "sys/fs/cgroup/unified/b/memory.max": "800\n"},
            800,
            id="both versions",
        ),
        pytest.param("4:hugetlb:/\n", {f"{V1}memory.limit_in_bytes": "1\n"}, None, id="another controller"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "lots\n"}, None, id="no number"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "0\n"}, None, id="nothing at all"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "-1\n"}, None, id="negative"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max": "²\n"}, None, id="not ASCII"),
        pytest.param("0::/\n", {"sys/fs/cgroup/memory.max/is": "a directory"}, None, id="a directory"),
        pytest.param("nonsense\n0:\n", {"sys/fs/cgroup/memory.max": "1\n"}, None, id="malformed"),
        pytest.param("", {}, None, id="empty"),
    ],
)
def test_the_smallest_limit_up_to_the_root_counts(
    tmp_path: Path, cgroup: str, files: dict[str, str], limit: int | None
) -> None:
    """In both versions of control groups, inside and outside of a container. What cannot be read is no
    limit."""
    assert memory_limit(machine(tmp_path, {"proc/self/cgroup": cgroup, **files})) == limit


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    """As other systems than Linux."""
    assert memory_limit(tmp_path) is None
    assert NO_LIMIT > 1 << 50


def caches(root: Path, **environ: str) -> CacheSettings:
    ours = {f"ENTRA_FAST_{name}": value for name, value in environ.items()}
    return Settings.from_environment({"AZURE_ENABLED": "false", **ours}, root=root).caches


def test_without_a_limit_the_defaults_are_those_of_the_catalogue(tmp_path: Path) -> None:
    """They are what they were before limits were looked at."""
    assert caches(tmp_path) == CacheSettings()
    assert (CacheSettings().max_bytes, CacheSettings().verified_bytes) == (256 * MIB, 128 * MIB)
    assert caches(tmp_path, CACHE_MAX_BYTES=str(1 << 40)).max_bytes == 1 << 40


def test_the_documented_sizes_are_those_that_are_chosen(tmp_path: Path) -> None:
    """kubernetes.md has a table of them."""
    page = (DOCS / "guides" / "kubernetes.md").read_text()
    row = r"^\| ([0-9]+) MiB(?: or more, or none)? \| ([0-9]+) MiB \| ([0-9]+) MiB \|$"
    rows = re.findall(row, page, re.MULTILINE)
    assert len(rows) == 5
    for limit, tokens, verified in (tuple(map(int, row)) for row in rows):
        chosen = caches(limited(tmp_path, limit * MIB))
        assert (chosen.max_bytes // MIB, chosen.verified_bytes // MIB) == (tokens, verified), limit
        assert chosen.memory_limit == limit * MIB


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("limit", [1, 16, 64, 100, 128, 256, 300, 512, 1024, 1 << 20])
def test_defaults_always_fit(tmp_path: Path, limit: int, workers: int) -> None:
    """Where idle processes leave room at all; with less than that, each process has a MiB for each cache."""
    chosen = caches(limited(tmp_path, limit * MIB), WORKERS=str(workers))
    processes = 1 if workers == 1 else workers + 1
    idle = IDLE_BYTES + NEXT_IDLE_BYTES * (processes - 1)
    least = 2 * processes * MIB
    assert chosen.max_bytes + chosen.verified_bytes <= max(limit * MIB - idle, least)
    assert min(chosen.max_bytes, chosen.verified_bytes) >= MIB
    assert chosen.max_bytes <= 256 * MIB
    assert chosen.verified_bytes <= 128 * MIB


@pytest.mark.parametrize(
    ("workers", "environ", "idle"),
    [
        (1, {}, 48),
        (2, {}, 48 + 2 * 32),
        (1, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}, 48 + 20),
        (1, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, 48 + 20),
        (2, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4317"}, 48 + 2 * 32 + 3 * 20),
        (1, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "True"}, 48),
        (1, {"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, 48),
        (
            1,
            {"ENTRA_FAST_REDIS_URL": "redis://redis", "ENTRA_FAST_REDIS_KEY": bytes(range(32)).hex()},
            48 + 10,
        ),
    ],
)
def test_what_is_loaded_leaves_less_for_caches(
    tmp_path: Path, workers: int, environ: dict[str, str], idle: int
) -> None:
    """Each process has its own telemetry, and one has a client of Redis."""
    chosen = Settings.from_environment(
        {"AZURE_ENABLED": "false", "ENTRA_FAST_WORKERS": str(workers), **environ},
        root=limited(tmp_path, 256 * MIB),
    ).caches
    assert chosen.idle_bytes == idle * MIB
    free = (256 - idle) * MIB * 3 // 4
    assert (chosen.max_bytes, chosen.verified_bytes) == (free * 2 // 3, free // 3)


def test_a_size_that_is_set_is_used_and_the_other_cache_gets_the_rest(tmp_path: Path) -> None:
    """Numbers of entries are limits in addition."""
    root = limited(tmp_path, 256 * MIB)
    chosen = caches(root, CACHE_MAX_BYTES=str(8 * MIB), CACHE_MAX_ENTRIES="7", VERIFIED_CACHE_ENTRIES="9")
    assert (chosen.max_bytes, chosen.verified_bytes) == (8 * MIB, 128 * MIB)
    assert (chosen.max_entries, chosen.verified_entries) == (7, 9)
    chosen = caches(root, VERIFIED_CACHE_BYTES=str(200 * MIB))
    assert (chosen.max_bytes, chosen.verified_bytes) == (6 * MIB, 200 * MIB)
    chosen = caches(root, VERIFIED_CACHE_BYTES=str(100 * MIB), CACHE_MAX_BYTES=str(108 * MIB))
    assert (chosen.max_bytes, chosen.verified_bytes) == (108 * MIB, 100 * MIB)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"CACHE_MAX_BYTES": "268435456"}, "ENTRA_FAST_CACHE_MAX_BYTES is 268435456 bytes"),
        ({"VERIFIED_CACHE_BYTES": "218103809"}, "ENTRA_FAST_VERIFIED_CACHE_BYTES is 218103809 bytes"),
        (
            {"VERIFIED_CACHE_BYTES": "118103808", "CACHE_MAX_BYTES": "100000001"},
            "ENTRA_FAST_CACHE_MAX_BYTES and ENTRA_FAST_VERIFIED_CACHE_BYTES are 218103809 bytes together",
        ),
        ({"CACHE_MAX_BYTES": "65536", "WORKERS": "8"}, "ENTRA_FAST_CACHE_MAX_BYTES is 65536 bytes"),
    ],
)
def test_sizes_that_cannot_fit_are_refused(tmp_path: Path, changes: dict[str, str], asked: str) -> None:
    """One sentence names the size and the limit."""
    with pytest.raises(ConfigurationError) as caught:
        caches(limited(tmp_path, 256 * MIB), **changes)
    room = 0 if "WORKERS" in changes else 218103808
    assert str(caught.value) == (
        f"{asked}, but the container's memory limit of 268435456 bytes leaves {room} bytes for caches: "
        "set less, leave it out, or raise the limit"
    )
    assert caught.value.code == "setting_invalid"
    assert caught.value.setting is not None
    assert asked.startswith(caught.value.setting)


def test_workers_share_the_sizes(tmp_path: Path) -> None:
    """All processes together stay within them: each of them has every token, and its own verified ones."""
    environ = {"AZURE_ENABLED": "false", "ENTRA_FAST_WORKERS": "2"}
    settings = Settings.from_environment(environ, root=limited(tmp_path, 256 * MIB))
    worker = settings_from(for_worker(settings)).caches
    provider = share_of_each(settings.caches, 2)
    assert settings.caches.max_bytes == 72 * MIB
    assert settings.caches.verified_bytes == 36 * MIB
    assert (worker.max_bytes, provider.max_bytes, worker.verified_bytes) == (24 * MIB, 24 * MIB, 18 * MIB)


def test_a_validators_cache_follows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application needs most of its memory for itself. What it passes is used as it is."""
    token = signer().token()

    def cached(limit: int | None, cache_bytes: int | None = None) -> int:
        monkeypatch.setattr(_memory, "memory_limit", lambda: limit)
        _arguments._default_cache_bytes.cache_clear()
        options: Options = {"jwks": jwks(signer()), "clock": lambda: NOW}
        if cache_bytes is not None:
            options["cache_bytes"] = cache_bytes
        one = Validator(ISSUER, AUDIENCE, **options)
        one.validate(token)
        return one.stats()["cache_entries"]

    try:
        assert cached(None) == 1
        assert cached(256 * MIB) == 1
        assert cached(8 * 100) == 0  # no entry fits into 100 bytes
        assert cached(8 * 100, cache_bytes=MIB) == 1
    finally:
        _arguments._default_cache_bytes.cache_clear()
