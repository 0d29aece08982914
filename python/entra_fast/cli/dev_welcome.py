"""What `entra-fast dev` prints when everything runs: addresses, variables, and commands to try.

What belongs here: text. What must never be here: starting or stopping anything.
"""

from __future__ import annotations

import shlex
from typing import Any

from entra_fast.cli.dev_system import LocalSystem, is_generator
from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.model.registry import Application


def describe(system: LocalSystem) -> str:
    """Addresses, variables, and commands to paste into another terminal."""
    rows = [
        (
            "local Entra ID",
            system.emulator.base_url,
            "open it in a browser: access policies, and why a request was refused",
        ),
        ("token generator", system.generator.base_url, "open it in a browser: get a token for an API"),
    ]
    rows += [
        (
            "sidecar",
            sidecar.running.base_url,
            f"for {sidecar.application.name}, probes at {sidecar.running.probe_url}/readyz",
        )
        for sidecar in system.sidecars
    ]
    width = max(len(url) for _, url, _ in rows)
    lines = ["The local system is running, for development only: anyone can sign in as any user.", ""]
    lines += [f"  {what:<16} {url:<{width}}  {note}".rstrip() for what, url, note in rows]
    first = system.sidecars[0]
    lines += ["", f"Variables that NAIS sets for {first.application.name}:", ""]
    lines += [
        f"  export {name}={shlex.quote(url)}" for name, url in endpoints(first.running.base_url).items()
    ]
    lines += ["", "Commands to try in another terminal:"]
    for title, command in commands(system):
        lines += ["", f"  # {title}", f"  {command}"]
    if system.tls is not None:
        lines += ["", *system.tls.instructions().splitlines()]
    lines += ["", "Ctrl-C stops everything."]
    return "\n".join(lines)


def addresses(system: LocalSystem) -> dict[str, Any]:
    """Where everything is, for programs."""
    return {
        "emulator": system.emulator.base_url,
        "token_generator": system.generator.base_url,
        "sidecars": [
            {
                "application": sidecar.application.name,
                "url": sidecar.running.base_url,
                "probe_url": sidecar.running.probe_url,
                "environment": endpoints(sidecar.running.base_url),
            }
            for sidecar in system.sidecars
        ],
    }


def endpoints(url: str) -> dict[str, str]:
    """The variables by which an application finds its sidecar."""
    return {
        "NAIS_TOKEN_ENDPOINT": f"{url}/api/v1/token",
        "NAIS_TOKEN_EXCHANGE_ENDPOINT": f"{url}/api/v1/token/exchange",
        "NAIS_TOKEN_INTROSPECTION_ENDPOINT": f"{url}/api/v1/introspect",
    }


def commands(system: LocalSystem) -> list[tuple[str, str]]:
    """(title, command on one line for a POSIX shell) for the first sidecar."""
    first = system.sidecars[0]
    own = first.application.name
    granted, refused = _targets(system.emulator.local, first.application)
    token, _, introspect = endpoints(first.running.base_url).values()

    def ask(target: str) -> str:
        return f"curl -s {token} -d identity_provider=entra_id -d target={shlex.quote(target)}"

    # jq may not be installed. The form of the answer is fixed, so sed is enough.
    extract = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""
    return [
        (f"get a token for {granted}", ask(granted)),
        (
            f"get a token for {own} itself, and introspect it",
            f'curl -s {introspect} -d identity_provider=entra_id -d token="$({ask(own)} | {extract})"',
        ),
        (f"get refused by an access policy: {refused} does not allow {own}", ask(refused)),
    ]


def _targets(local: LocalEntraId, consumer: Application) -> tuple[str, str]:
    """A target that the application gets a token for, and one that it does not."""
    tenant = local.registry.tenant(consumer.tenant_id)
    names = [
        application.name
        for application in (tenant.applications.values() if tenant is not None else ())
        if application.name != consumer.name and not is_generator(application)
    ]
    outcome = {name: local.explain(consumer.name, name).granted for name in names}
    granted = next((name for name, yes in outcome.items() if yes), consumer.name)
    refused = next((name for name, yes in outcome.items() if not yes), f"{consumer.name}-that-does-not-exist")
    return granted, refused
