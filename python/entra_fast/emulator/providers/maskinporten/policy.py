"""The decision of Maskinporten: may this client have a token with these scopes?

The client must be registered with each scope (`consumes`), and the organization that owns the scope must have
granted it to the client's (`consumers`, `accessibleForAll`); or, if the client acts for a customer, to that
customer, who must have delegated it. The token endpoint and `explain` ask the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from entra_fast.emulator.model.directory import Delegation
from entra_fast.emulator.model.workloads import MaskinportenClient, Scope, Workload, Workloads
from entra_fast.emulator.providers.explanation import ProviderExplanation
from entra_fast.emulator.providers.maskinporten import errors
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.refusals import Refusal


def scopes_for(
    workloads: Workloads,
    workload: Workload,
    client: MaskinportenClient,
    names: Sequence[str],
    customer: str | None,
    record: Recording,
) -> tuple[Scope, ...]:
    """The scopes that a client asks for, if it may have them all. Raises Refusal.

    Args:
        customer: number of the organization that the client acts for; None if it acts for its own.
    """
    unknown = [name for name in names if name not in client.consumes]
    if unknown:
        raise errors.refusal(
            errors.INVALID_SCOPES,
            scope=" ".join(unknown),
            location=workload.location,
            remedy=f"add to spec.maskinporten.scopes.consumes of {workload.name}: - {{name: {unknown[0]!r}}}",
        )
    return tuple(_granted(workloads, client, name, customer, record) for name in names)


def _granted(
    workloads: Workloads, client: MaskinportenClient, name: str, customer: str | None, record: Recording
) -> Scope:
    record.passed("scope", f"the client is registered with {name}", client.consumes[name])
    scope, organization = workloads.scopes.get(name), customer or client.organization
    if scope is None or not scope.admits(organization):
        raise errors.refusal(
            errors.NOT_GRANTED,
            scope=name,
            location="" if scope is None else scope.location,
            remedy=_grant(scope, name, organization),
        )
    record.passed("scope", f"{name} is granted to the organization {organization}", scope.location)
    if customer is not None:
        _check_delegation(workloads, scope, customer, client.organization, record)
    return scope


def _grant(scope: Scope | None, name: str, organization: str) -> str:
    """What would grant a scope to an organization."""
    if scope is None:
        return (
            f"expose {name} in the manifest of an application, or name it in `scopes` of the directory file "
            "if it belongs to an organization outside"
        )
    whose = f"its entry of spec.maskinporten.scopes.exposes of {scope.owner}" if scope.owner else "its entry"
    entry = f"{{orgno: '{organization}'}}" if scope.owner else f"'{organization}'"
    return f"add to `consumers` of {whose}: - {entry}"


def _check_delegation(
    workloads: Workloads, scope: Scope, customer: str, supplier: str, record: Recording
) -> None:
    delegated = Delegation(scope.name, customer, supplier) in workloads.delegations
    if scope.delegation_source is None or not delegated:
        entry = f"{{scope: '{scope.name}', consumer: '{customer}', supplier: '{supplier}'}}"
        raise errors.refusal(
            errors.NOT_DELEGATED,
            scope=scope.name,
            consumer=customer,
            supplier=supplier,
            location=scope.location,
            remedy="set delegationSource of the scope: without it, no one can delegate it"
            if scope.delegation_source is None
            else f"add to `delegations` of the directory file: - {entry}",
        )
    record.passed("scope", f"{customer} has delegated {scope.name} to {supplier}", scope.location)


def registration(workload: Workload | None, record: Recording) -> tuple[Workload, MaskinportenClient]:
    """A client's registration. Raises Refusal."""
    if workload is None or workload.maskinporten is None:
        raise errors.refusal(
            errors.UNKNOWN_CLIENT,
            location="" if workload is None else workload.location,
            remedy="" if workload is None else "set spec.maskinporten.enabled to true in its manifest",
        )
    client = workload.maskinporten
    record.client = workload.name
    text = f"{workload.name} is registered in Maskinporten, for the organization {client.organization}"
    record.passed("client", text, workload.location)
    return workload, client


def explain(
    workloads: Workloads, consumer: Workload, scopes: Sequence[str], customer: str | None
) -> ProviderExplanation:
    """Whether `consumer` would get a token with some scopes, and what to change if not."""
    record, refused = Recording("maskinporten", "explain", consumer.name, " ".join(scopes)), None
    try:
        workload, client = registration(consumer, record)
        scopes_for(workloads, workload, client, scopes, customer, record)
    except Refusal as refusal:
        refused = refusal
    return ProviderExplanation("maskinporten", record.client, record.target, record.outcome(refused), refused)
