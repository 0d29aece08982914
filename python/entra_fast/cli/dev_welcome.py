"""What `entra-fast dev` prints when everything runs: addresses, variables, and commands to try.

What belongs here: text. What must never be here: starting or stopping anything.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from entra_fast._providers import ENTRA_ID
from entra_fast.cli.dev_system import LocalSystem, SidecarOf, is_generator
from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.model.workloads import tokenx_generator
from entra_fast.emulator.providers.idporten.persons import PERSONS
from entra_fast.emulator.providers.idporten.provider import AUDIENCE

MAX_TRIED: Final = 100
"""Maximum number of applications among which an example is sought."""
MAX_USERS_TRIED: Final = 20

# jq may not be installed. The form of the answer is fixed, so sed is enough.
_EXTRACT: Final = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""

Command = tuple[str, str]
"""Title, and a command on one line for a POSIX shell."""


def describe(system: LocalSystem) -> str:
    """Addresses, variables, and commands to paste into another terminal."""
    rows = list(_rows(system))
    width = max(len(url) for _, url, _ in rows)
    lines = ["The local system is running, for development only: anyone can sign in as any user.", ""]
    lines += [f"  {what:<16} {url:<{width}}  {note}".rstrip() for what, url, note in rows]
    first = system.sidecars[0]
    lines += ["", f"Variables that NAIS sets for {first.application.name}:", ""]
    lines += [
        f"  export {name}={shlex.quote(url)}" for name, url in endpoints(first.running.base_url).items()
    ]
    for heading, listed in commands(system):
        lines += ["", heading]
        for title, command in listed:
            lines += ["", f"  # {title}", f"  {command}"]
    if system.tls is not None:
        lines += ["", *system.tls.instructions().splitlines()]
    lines += ["", "Ctrl-C stops everything."]
    return "\n".join(lines)


def _rows(system: LocalSystem) -> Iterator[tuple[str, str, str]]:
    """(what, address, what it is for) of each part."""
    yield (
        "local Entra ID",
        system.emulator.base_url,
        "open it in a browser: access policies, and why a request was refused",
    )
    yield "token generator", system.generator.base_url, "open it in a browser: get a token for an API"
    if system.tokenx_generator is not None:
        note = "open it in a browser: log in at ID-porten, and get a token for an API"
        yield "- for TokenX", system.tokenx_generator.base_url, note
    for sidecar in system.sidecars:
        probes = f"probes at {sidecar.running.probe_url}/readyz"
        yield "sidecar", sidecar.running.base_url, f"for {sidecar.application.name}, {probes}"
        titles = [provider.kind.title for provider in sidecar.running.service.settings.providers]
        if titles != [ENTRA_ID.title]:
            yield "", "", f"serves {', '.join(titles)}"


def addresses(system: LocalSystem) -> dict[str, Any]:
    """Where everything is, for programs."""
    for_tokenx = system.tokenx_generator
    return {
        "emulator": system.emulator.base_url,
        "issuers": system.emulator.issuers,
        "token_generator": system.generator.base_url,
        "tokenx_token_generator": None if for_tokenx is None else for_tokenx.base_url,
        "sidecars": [
            {
                "application": sidecar.application.name,
                "providers": [provider.name for provider in sidecar.running.service.settings.providers],
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


def commands(system: LocalSystem) -> Iterator[tuple[str, list[Command]]]:
    """For the providers of the first sidecar, a heading and commands each.

    Commands after one that sets a variable belong to the same call by a user: they run in one shell.
    """
    first = system.sidecars[0]
    if first.identity is not None:
        yield "Commands to try in another terminal:", list(_entra_id(system, first.identity))
    for heading, found in (
        ("With TokenX, on behalf of a citizen:", list(_tokenx(system, first))),
        ("With Maskinporten, to call another organization:", list(_maskinporten(system, first))),
        ("With ID-porten, where citizens log in:", list(_idporten(system, first))),
    ):
        if found:
            yield heading, found


def _entra_id(system: LocalSystem, identity: Application) -> Iterator[Command]:
    first, local = system.sidecars[0], system.emulator.local
    own = identity.name
    granted, refused = _targets(local, identity)
    yield f"get a token for {granted}", _token(first, "entra_id", granted)
    yield (
        f"get a token for {own} itself, and introspect it",
        _introspect(first, "entra_id", f"$({_token(first, 'entra_id', own)} | {_EXTRACT})"),
    )
    called = _user_s_call(local, identity)
    if called is not None:
        caller, user, target = called
        body = shlex.quote(json.dumps({"consumer": caller, "target": own, "user": user}))
        url = f"{system.emulator.base_url}/admin/api/tokens"
        mint = f"curl -s{_trust(system)} {url} -H 'Accept: text/plain' -d {body}"
        yield f"{user} calls {own}: get the token that {own} receives", f"USER_TOKEN=$({mint})"
        yield f"{own} introspects it", _introspect(first, "entra_id", "$USER_TOKEN")
        yield (
            f"{own} exchanges it, to call {target} on behalf of {user}",
            _exchange(first, "entra_id", target, "$USER_TOKEN"),
        )
    yield (
        f"get refused by an access policy: {refused} does not allow {own}",
        _token(first, "entra_id", refused),
    )


def _tokenx(system: LocalSystem, first: SidecarOf) -> Iterator[Command]:
    local, generator = system.emulator.local, system.tokenx_generator
    if not first.application.tokenx or generator is None:
        return
    own, person = first.application.name, PERSONS[0]
    if tokenx_generator(local.generator_cluster) not in first.application.admitted:
        return
    yield (
        f"{person.name} calls {own}: get the token that {own} receives",
        f"CITIZEN_TOKEN=$(curl -s {generator.base_url}/api/public/obo "
        f"-d aud={shlex.quote(own)} -d pid={person.pid})",
    )
    yield f"{own} introspects it", _introspect(first, "tokenx", "$CITIZEN_TOKEN")
    names = [name for name in local.registry.workloads.by_name if name != own][:MAX_TRIED]
    target = next((name for name in names if local.providers.explain("tokenx", own, name).granted), None)
    if target is not None:
        yield (
            f"{own} exchanges it, to call {target} on behalf of {person.name}",
            _exchange(first, "tokenx", target, "$CITIZEN_TOKEN"),
        )


def _maskinporten(system: LocalSystem, first: SidecarOf) -> Iterator[Command]:
    client = first.application.maskinporten
    explain = system.emulator.local.providers.explain
    for scope in () if client is None else client.consumes:
        if explain("maskinporten", first.application.name, scope).granted:
            yield (
                f"get a token with the scope {scope}, and introspect it",
                _introspect(first, "maskinporten", f"$({_token(first, 'maskinporten', scope)} | {_EXTRACT})"),
            )
            return


def _idporten(system: LocalSystem, first: SidecarOf) -> Iterator[Command]:
    if not first.application.idporten:
        return
    own, person, idporten = first.application.name, PERSONS[0], system.emulator.local.providers.idporten
    query = {"pid": person.pid, "client_id": idporten.find(own).client_id, "resource": AUDIENCE}
    login = shlex.quote(f"{idporten.issuer}/fake?{urlencode(query)}")
    yield (
        f"{person.name} logs in to {own}: get the token that {own} receives, and introspect it",
        _introspect(first, "idporten", f"$(curl -s{_trust(system)} {login})"),
    )


def _token(sidecar: SidecarOf, provider: str, target: str) -> str:
    url, _, _ = endpoints(sidecar.running.base_url).values()
    return f"curl -s {url} -d identity_provider={provider} -d target={shlex.quote(target)}"


def _exchange(sidecar: SidecarOf, provider: str, target: str, token: str) -> str:
    _, url, _ = endpoints(sidecar.running.base_url).values()
    fields = f"-d identity_provider={provider} -d target={shlex.quote(target)}"
    return f'curl -s {url} {fields} -d user_token="{token}"'


def _introspect(sidecar: SidecarOf, provider: str, token: str) -> str:
    _, _, url = endpoints(sidecar.running.base_url).values()
    return f'curl -s {url} -d identity_provider={provider} -d token="{token}"'


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
    callers = sorted(names, key=lambda name: not is_generator(name))
    users = [user.username for user in tenant.directory.users.values()][:MAX_USERS_TRIED]
    targets = [name for name in names if name != own.name and not is_generator(name)]
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
        if application.name != consumer.name and not is_generator(application.name)
    ]
    outcome = {name: local.explain(consumer.name, name).granted for name in names}
    granted = next((name for name, yes in outcome.items() if yes), consumer.name)
    refused = next((name for name, yes in outcome.items() if not yes), f"{consumer.name}-that-does-not-exist")
    return granted, refused
