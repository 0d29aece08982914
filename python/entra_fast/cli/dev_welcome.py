"""What `entra-fast dev` prints when everything runs: addresses, variables, and commands to try.

What belongs here: text. What must never be here: starting or stopping anything.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, Final

from entra_fast.cli.dev_system import LocalSystem, is_generator
from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.model.registry import Application

MAX_TRIED: Final = 100
"""Maximum number of applications among which an example is sought."""
MAX_USERS_TRIED: Final = 20


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
    """(title, command on one line for a POSIX shell) for the first sidecar.

    The commands after the first two belong to one call by a user: they run in order in one shell.
    """
    first, local = system.sidecars[0], system.emulator.local
    own = first.application.name
    granted, refused = _targets(local, first.application)
    token, exchange, introspect = endpoints(first.running.base_url).values()

    def ask(target: str) -> str:
        return f"curl -s {token} -d identity_provider=entra_id -d target={shlex.quote(target)}"

    # jq may not be installed. The form of the answer is fixed, so sed is enough.
    extract = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""
    listed = [
        (f"get a token for {granted}", ask(granted)),
        (
            f"get a token for {own} itself, and introspect it",
            f'curl -s {introspect} -d identity_provider=entra_id -d token="$({ask(own)} | {extract})"',
        ),
    ]
    called = _user_s_call(local, first.application)
    if called is not None:
        caller, user, target = called
        body = shlex.quote(json.dumps({"consumer": caller, "target": own, "user": user}))
        mint = f"curl -s{_trust(system)} {system.emulator.base_url}/admin/api/tokens -d {body}"
        listed += [
            (f"{user} calls {own}: get the token that {own} receives", f"USER_TOKEN=$({mint} | {extract})"),
            (
                f"{own} introspects it",
                f'curl -s {introspect} -d identity_provider=entra_id -d token="$USER_TOKEN"',
            ),
            (
                f"{own} exchanges it, to call {target} on behalf of {user}",
                f"curl -s {exchange} -d identity_provider=entra_id -d target={shlex.quote(target)} "
                '-d user_token="$USER_TOKEN"',
            ),
        ]
    refusal = (f"get refused by an access policy: {refused} does not allow {own}", ask(refused))
    return [*listed, refusal]


def _trust(system: LocalSystem) -> str:
    """curl's option for the local certificate authority, if there is one."""
    return "" if system.tls is None else f" --cacert {shlex.quote(str(system.tls.authority))}"


def _user_s_call(local: LocalEntraId, own: Application) -> tuple[str, str, str] | None:
    """A caller and a user whose token an application gets, and a target that it may exchange it for."""
    tenant = local.registry.tenant(own.tenant_id)
    if tenant is None:
        return None
    names = list(tenant.applications)[:MAX_TRIED]
    # The token generator is how developers get such a token.
    callers = sorted(names, key=lambda name: not is_generator(tenant.applications[name]))
    users = [user.username for user in tenant.directory.users.values()][:MAX_USERS_TRIED]
    targets = [name for name in names if name != own.name and not is_generator(tenant.applications[name])]
    for user in users:
        caller = next((name for name in callers if local.explain(name, own.name, user).granted), None)
        target = next((name for name in targets if local.explain(own.name, name, user).granted), None)
        if caller is not None and target is not None:
            return caller, user, target
    return None


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
