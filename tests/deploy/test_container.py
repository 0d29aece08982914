"""The sidecar as Kubernetes runs it: as a user without rights, with a root that is read-only everywhere, and
within a memory limit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.cgroup import memory_group
from support.containerfile import image
from support.containers import Container, Machine, Pod, until

LIMIT = 256 << 20
"""The memory limit of deploy/kubernetes/sidecar/sidecar.yaml; with workers twice as much."""
API = "http://127.0.0.1:7164/api/v1"
TARGET = "dev-gcp:team-b:app-b"


@pytest.fixture
def settings(machine: Machine, environment: Path) -> dict[str, str]:
    """The variables of an application, whose local Entra ID runs in a container of its own."""
    emulator = machine.pod("emulator")
    token = "a-token-for-the-admin-api"
    container = emulator.run(
        image("emulator", environment), ["--public-url=http://emulator:8080", f"--admin-token={token}"]
    )
    url = "http://emulator:8080/admin/api/applications/dev-gcp:team-a:app-a/environment"
    credential = {"Authorization": f"Bearer {token}"}
    until(lambda: _runs(container) and emulator.request(url, None, credential)[0] == 200)
    found: dict[str, str] = json.loads(emulator.request(url, None, credential)[1])
    return {
        **found,
        "BIND_ADDRESS": "127.0.0.1:7164",
        "PROBE_BIND_ADDRESS": "0.0.0.0:7165",
        "ENTRA_FAST_INSECURE_PROVIDER_HOSTS": "emulator",
    }


def _runs(container: Container) -> bool:
    assert container.process.poll() is None, container.output
    return True


def started(
    pod: Pod, environment: Path, settings: dict[str, str], folder: Path, limit: int, group: Path
) -> Container:
    """A sidecar that is ready. It finds its limit where a container does: cgroup v2."""
    cgroup = folder / "cgroup"
    cgroup.mkdir()
    (cgroup / "memory.max").write_text(f"{limit}\n")
    container = pod.run(
        image("sidecar", environment),
        variables=settings,
        volumes=[(cgroup, "/sys/fs/cgroup", "ro")],
        group=group,
    )
    until(lambda: _runs(container) and pod.request("http://127.0.0.1:7165/readyz")[0] == 200)
    return container


@pytest.mark.parametrize("workers", [1, 2])
def test_it_works_without_any_right(
    machine: Machine, environment: Path, settings: dict[str, str], tmp_path: Path, workers: int
) -> None:
    """It starts, serves tokens and introspections within its memory limit, and drains on SIGTERM."""
    pod, limit = machine.pod("application"), LIMIT * workers
    with memory_group(limit) as group:
        container = started(
            pod,
            environment,
            {**settings, "ENTRA_FAST_WORKERS": str(workers)},
            tmp_path,
            limit,
            group.processes,
        )
        try:
            assert _status(container)["Uid"].split() == ["65532"] * 4
            assert {_status(container)[name] for name in ("CapEff", "CapPrm", "CapBnd")} == {"0" * 16}
            assert _status(container)["NoNewPrivs"] == "1"
            assert _writable(container) == []
            request = {"identity_provider": "entra_id", "target": TARGET}
            status, text = pod.request(f"{API}/token", request)
            assert status == 200, text
            own = {"identity_provider": "entra_id", "target": "dev-gcp:team-a:app-a"}
            token = json.loads(pod.request(f"{API}/token", own)[1])["access_token"]
            checked = pod.request(f"{API}/introspect", {"identity_provider": "entra_id", "token": token})
            assert json.loads(checked[1])["active"] is True
            _, metrics = pod.request("http://127.0.0.1:7165/metrics")
            assert _metric(metrics, "entra_fast_memory_limit_bytes") == limit
            assert _metric(metrics, "entra_fast_workers") == workers
            assert group.usage < limit
            assert container.stop() == 0, container.output
        finally:
            container.process.kill()  # or its control group stays
            container.wait()
    lines = [json.loads(line) for line in container.output.splitlines()]
    assert lines[-1]["message"] == "stopped"
    assert not [line for line in lines if line["level"] == "error"]


def _metric(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def _status(container: Container) -> dict[str, Any]:
    lines = Path(f"/proc/{container.process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _writable(container: Container) -> list[str]:
    """The mounts of its root that are not read-only, without the devices and /proc, where its user may write
    nothing but to itself."""
    mounts = Path(f"/proc/{container.process.pid}/mounts").read_text().splitlines()
    fields = [line.split() for line in mounts]
    return [
        mount[1]
        for mount in fields
        if "ro" not in mount[3].split(",") and not mount[1].startswith(("/dev/", "/proc"))
    ]
