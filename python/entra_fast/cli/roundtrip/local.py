"""Round trips against a local system: two applications that use all providers, the sidecar of one of them,
and tokens of local users.

What belongs here: the system, and what an operator would type for a real one. What must never be here: how
round trips are made.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from entra_fast._settings.load import Settings
from entra_fast.cli.manifest_sources import find_sources
from entra_fast.cli.roundtrip.steps import Inputs
from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.emulator.providers.idporten.persons import PERSONS
from entra_fast.emulator.providers.idporten.provider import AUDIENCE
from entra_fast.sidecar.process.running import start_sidecar

OWN: Final = "dev-gcp:team-a:roundtrip"
TARGET: Final = "dev-gcp:team-b:roundtrip-target"
SCOPE: Final = "nav:helse:roundtrip"
LEVEL: Final = "idporten-loa-high"
_ENTRA_ID: Final = {"application": {"enabled": True, "allowAllUsers": True}}
_CONSUMER: Final = {"application": "roundtrip", "namespace": "team-a"}
_EXPOSED: Final = {"enabled": True, "product": "helse", "name": "roundtrip", "accessibleForAll": True}
SPECS: Final[dict[str, dict[str, Any]]] = {
    OWN: {
        "ingresses": ["https://roundtrip.example"],
        "azure": _ENTRA_ID,
        "tokenx": {"enabled": True},
        "idporten": {"enabled": True, "sidecar": {"enabled": True}},
        "maskinporten": {"enabled": True, "scopes": {"consumes": [{"name": SCOPE}]}},
    },
    TARGET: {
        "azure": _ENTRA_ID,
        "tokenx": {"enabled": True},
        "maskinporten": {"enabled": True, "scopes": {"exposes": [_EXPOSED]}},
        "accessPolicy": {"inbound": {"rules": [_CONSUMER]}},
    },
}
"""The applications: `spec` of each one's manifest."""


def with_local_system(given: Inputs, run: Callable[[str, Inputs], int]) -> int:
    """Start the local system, call `run` with the address of the sidecar and what it may be asked for, and
    stop everything.

    Args:
        given: takes precedence over what the local system has.
    """
    return asyncio.run(_with_local_system(given, run))


async def _with_local_system(given: Inputs, run: Callable[[str, Inputs], int]) -> int:
    emulator = await _local().start("127.0.0.1", 0)
    environ = {**emulator.environment(OWN), "BIND_ADDRESS": "127.0.0.1:0"}
    # Neither the environment of this process nor mounted files: they may hold settings of a real tenant.
    sidecar = await start_sidecar(Settings.from_environment(environ, Path(os.devnull)))
    own = {
        field.name: value
        for field in dataclasses.fields(given)
        if (value := getattr(given, field.name)) is not None
    }
    inputs = dataclasses.replace(_inputs(emulator), **own)
    try:
        # The requests block, and the loop has to answer them.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, run, sidecar.base_url, inputs)
    finally:
        await sidecar.stop()
        await emulator.stop()


def _local() -> LocalEntraId:
    with tempfile.TemporaryDirectory() as folder:
        for name, spec in SPECS.items():
            cluster, namespace, own = name.split(":")
            document = {
                "apiVersion": "nais.io/v1alpha1",
                "kind": "Application",
                "metadata": {"name": own, "namespace": namespace},
                "spec": {"image": "image", **spec},
            }
            place = Path(folder, cluster)
            place.mkdir(exist_ok=True)
            (place / f"{own}.yaml").write_text(json.dumps(document))  # JSON is YAML
        sources, directory = find_sources([f"{cluster}={place}"])
        return LocalEntraId.from_files(sources, directory)


def _inputs(emulator: RunningEmulator) -> Inputs:
    """What the application may ask for, and tokens that it receives."""
    local = emulator.local
    tenant = local.registry.default_tenant
    employee = next(iter(tenant.directory.users.values()))
    _, token = local.mint(OWN, OWN, employee.username)
    idporten = local.providers.idporten
    client = idporten.find(OWN).client_id
    return Inputs(
        entra_id_target=TARGET,
        entra_id_user=token,
        idporten_user=idporten.token_without_login(PERSONS[0].pid, LEVEL, client, resource=AUDIENCE),
        maskinporten_scope=SCOPE,
        tokenx_target=TARGET,
    )
