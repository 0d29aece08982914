"""The decision of TokenX: may this application exchange a user's token for one for that API?

The inbound rules of the API decide, and nothing else: also the API itself needs a rule, `*` is a name like
any other, and `permissions` mean nothing. The token endpoint and `explain` ask the same functions.
"""

from __future__ import annotations

from entra_fast.emulator.model.workloads import Workload, Workloads
from entra_fast.emulator.protocol.policy import add_rule
from entra_fast.emulator.providers.explanation import ProviderExplanation
from entra_fast.emulator.providers.recording import Recording
from entra_fast.emulator.providers.refusals import Refusal

_ENABLE = "set spec.tokenx.enabled to true in its manifest"


def known_client(workloads: Workloads, client_id: str, record: Recording) -> Workload:
    """The client with an id. Raises Refusal."""
    client = workloads.tokenx_client(client_id)
    if client is None:
        text = f"invalid client authentication for client_id={client_id}, client not registered."
        raise _not_registered(workloads, client_id, 401, "invalid_client", text, check="client")
    record.client = client.name
    record.passed("client", f"{client.name} is registered in TokenX", client.location)
    return client


def admit(workloads: Workloads, client: Workload, audience: str, record: Recording) -> Workload:
    """The API that a client asks for, if its rules admit the client. Raises Refusal."""
    target = workloads.tokenx_client(audience)
    if target is None:
        text = f"token exchange audience {audience} is invalid"
        raise _not_registered(workloads, audience, 400, "invalid_request", text, check="target")
    record.target = target.name
    record.passed("target", f"{target.name} is registered in TokenX", target.location)
    location = target.admitted.get(client.name)
    if location is None:
        own = " (TokenX does not admit the API itself either)" if client is target else ""
        raise Refusal(
            400,
            "invalid_request",
            f"client '{client.name}' is not authorized to get token with aud={target.name}",
            check="rule",
            location=target.policy_location,
            remedy=add_rule(client.name, target.name) + own,
        )
    record.passed("rule", f"{target.name} admits {client.name}", location)
    return target


def explain(workloads: Workloads, consumer: str, target: str) -> ProviderExplanation:
    """Whether `consumer` may exchange a user's token for one for `target`, and what to change if not."""
    record, refused = Recording("tokenx", "explain", consumer, target), None
    try:
        admit(workloads, known_client(workloads, consumer, record), target, record)
    except Refusal as refusal:
        refused = refusal
    return ProviderExplanation("tokenx", record.client, record.target, record.outcome(refused), refused)


def _not_registered(
    workloads: Workloads, name: str, status: int, error: str, text: str, *, check: str
) -> Refusal:
    """The refusal where an application is not in TokenX; it names the manifest, if there is one."""
    other = workloads.by_name.get(name)
    location, remedy = ("", "") if other is None else (other.location, _ENABLE)
    return Refusal(status, error, text, check=check, location=location, remedy=remedy)
