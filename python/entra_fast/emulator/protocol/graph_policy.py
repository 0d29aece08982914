"""The decision: which of Microsoft Graph's permissions does an application get?

Graph has no manifest, so the rules of policy.py cannot apply. An application has the delegated permissions
that NAIS consents to, those that a user may consent to, and those that its own manifest's annotations add.
"""

from __future__ import annotations

from entra_fast.emulator.model import graph
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import Application
from entra_fast.emulator.protocol.aadsts import EntraError
from entra_fast.emulator.protocol.policy import Decision, Reason
from entra_fast.emulator.protocol.scope import DEFAULT, Scope


def decide_graph(client: Application, scope: Scope, user: User | None = None) -> Decision:
    """Decide which permissions `client` gets: on behalf of `user`, or as itself when there is none.

    Args:
        scope: what is requested of Graph. Only what is named is granted, and `.default` names everything that
            was granted in advance.
    """
    if user is None:
        roles = client.graph_roles
        text = "roles: " + " ".join(roles) if roles else "no roles, so Graph will refuse the token"
        return Decision(True, (Reason("roles", True, text, client.location),), roles=roles)
    in_advance = tuple(dict.fromkeys((*graph.DEFAULT_SCOPES, *client.graph_scopes)))
    granted: dict[str, None] = {}
    for name in scope.permissions:
        found = graph.known_scope(name)
        if name == DEFAULT:
            granted.update(dict.fromkeys(in_advance))
        elif found is None:
            return _refused_unknown(client, name)
        elif found in in_advance or found in graph.USER_CONSENT:
            granted[found] = None
        else:
            text = f"nobody has consented to {found} of {graph.NAME} for {client.name}"
            remedy = f"add {found} to the annotation {graph.SCOPES_ANNOTATION} of {client.name}"
            error = EntraError(65001, client_id=client.client_id, client=client.name)
            return Decision(False, (Reason("scope", False, text, client.location, remedy),), error)
    scopes = tuple(granted)
    return Decision(
        True, (Reason("scopes", True, "scopes: " + " ".join(scopes), client.location),), scopes=scopes
    )


def _refused_unknown(client: Application, name: str) -> Decision:
    text = f"the local Graph has no permission {name[:100]!r}"
    remedy = "ask for one of " + ", ".join(graph.SCOPES)
    error = EntraError(650053, client=client.name, scope=name[:100], resource=graph.CLIENT_ID)
    return Decision(False, (Reason("scope", False, text, remedy=remedy),), error)
