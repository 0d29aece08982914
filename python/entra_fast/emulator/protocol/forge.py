"""Forging: any token that a test asks for, valid or not, for testing what verifies tokens.

No access policy is checked, and nothing about a token has to be right. Only an issuer on a host of a real
provider is refused. Each forged token is an entry of the journal that says so (local.py).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from entra_fast._native import ALGORITHMS
from entra_fast.emulator.model import graph, ids
from entra_fast.emulator.model.directory import User
from entra_fast.emulator.model.registry import DEFAULT_ROLE, DEFAULT_SCOPE, Application, Registry, Tenant
from entra_fast.emulator.protocol import claims as token_claims
from entra_fast.emulator.protocol.base_url import check_issuer
from entra_fast.emulator.protocol.claims import Issuer
from entra_fast.emulator.protocol.keyring import Keyring
from entra_fast.emulator.protocol.policy import Decision, decide
from entra_fast.emulator.protocol.private_key import PrivateKey, base64url
from entra_fast.errors import ConfigurationError

KeyChoice = Literal["active", "unknown", "wrong", "none"]
KEYS: Final[Mapping[KeyChoice, str]] = {
    "active": "the key that signs now",
    "unknown": "a key that is published nowhere",
    "wrong": "a key that is published nowhere, under the kid of the active one",
    "none": "no key: neither a signature nor a kid",
}

AgentKind = Literal["identity", "user"]
AGENTS: Final[Mapping[AgentKind, str]] = {
    "identity": "an agent identity, acting for itself or for the user",
    "user": "an agent identity whose user is the agent's own account",
}

HMAC_ALGORITHMS: Final = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
"""Signed with the text of the public key as if it were a shared secret (RFC 8725, section 2.1)."""

FORGED_ALGORITHMS: Final = (*ALGORITHMS, "none", *HMAC_ALGORITHMS)

MAX_GROUPS: Final = 10_000
MAX_SECONDS: Final = 10 * 365 * 86_400
FIRST_MOMENT: Final = 1_000_000_000
"""From here on, `not_before` is a moment (seconds since the epoch); below `MAX_SECONDS`, seconds from now."""
MAX_ISSUER_LENGTH: Final = 2048
MAX_DEPTH: Final = 100
"""Of nested claims. More than any reader of tokens should accept, less than a writer of JSON can take."""

_DEFAULT_VALIDITY: Final = 3600


@dataclass(frozen=True, slots=True)
class ForgeRequest:
    """What is wanted. Whatever is left out is as in a token that this provider issues.

    Attributes:
        application: the client that the token says it was issued to: `<cluster>:<namespace>:<name>`, client
            id or App ID URI; by default the audience.
        user: on whose behalf; None for the application itself.
        audience: the API: an application, Microsoft Graph, or any text for `aud`; by default the client.
        version: 1 or 2.
        claims: further claims, or others in place of those; None leaves one out.
        lifetime: seconds from the start of its validity, or from now, until it expires; negative for a
            token that has expired.
        not_before: seconds from now until it becomes valid, or such a moment in seconds since the epoch.
        algorithm: `alg`; the signature fits it, unless the key is of another type.
        key: one of `KEYS`.
        issuer: `iss`: any text that names no host of a real provider.
        groups: number of group ids in `groups`, however many those are.
        agent: one of `AGENTS`: the claims of an agent identity (Microsoft Entra Agent ID).
    """

    application: str | None = None
    user: str | None = None
    audience: str | None = None
    version: int | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    lifetime: float | None = None
    not_before: float | None = None
    algorithm: str | None = None
    key: KeyChoice = "active"
    issuer: str | None = None
    groups: int | None = None
    agent: AgentKind | None = None


@dataclass(frozen=True, slots=True)
class ForgedToken:
    """A token that was made to order.

    Attributes:
        token: the compact form. It has an empty signature where that was ordered.
        header: its header.
        claims: its claims.
        forged: what about it was ordered, in words.
        client: name of the application that it names as its client.
        target: name of the API, or the audience.
        user: sign-in name of the user; empty for an application's own token.
        tenant: name of the tenant.
    """

    token: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    forged: tuple[str, ...]
    client: str
    target: str
    user: str
    tenant: str


@dataclass(frozen=True, slots=True)
class Forge:
    """Makes tokens to order.

    Attributes:
        clock: seconds since the epoch.
        stray_key: makes the key that is published nowhere.
    """

    base_url: str
    registry: Registry
    keyring: Keyring
    clock: Callable[[], float]
    stray_key: Callable[[], PrivateKey]

    def make(self, wanted: ForgeRequest) -> ForgedToken:
        """A token.

        Raises:
            ConfigurationError: a field cannot be used; the message names it (code `forge_invalid`,
                `issuer_is_real`, or that of a name that does not exist).
        """
        _check(wanted)
        client = self._client(wanted)
        tenant = self.registry.tenant(client.tenant_id) or self.registry.default_tenant
        user = _user(tenant, wanted.user)
        target = client if wanted.audience is None else self._application(wanted.audience)
        claims = self._claims(wanted, tenant, client, target, user)
        for name, value in wanted.claims.items():
            if value is None:
                claims.pop(name, None)
            else:
                claims[name] = value
        for issuer in _texts(claims.get("iss")):
            check_issuer(issuer)
        header, token = self._signed(wanted, claims)
        return ForgedToken(
            token=token,
            header=header,
            claims=claims,
            forged=_described(wanted),
            client=client.name,
            target=target.name if target is not None else str(claims.get("aud", ""))[:200],
            user=user.username if user is not None else "",
            tenant=tenant.name,
        )

    def _application(self, name: str) -> Application | None:
        return next(filter(None, (tenant.resource(name) for tenant in self.registry.tenants)), None)

    def _client(self, wanted: ForgeRequest) -> Application:
        if wanted.application is not None:
            return self.registry.find(wanted.application)
        if wanted.audience is None:
            raise _wrong("application", "required, unless 'audience' is an application")
        client = self._application(wanted.audience)
        if client is None:
            raise _wrong("application", f"required: the audience {wanted.audience[:100]!r} is no application")
        return client

    def _claims(
        self,
        wanted: ForgeRequest,
        tenant: Tenant,
        client: Application,
        target: Application | None,
        user: User | None,
    ) -> dict[str, Any]:
        issuer, now = Issuer(self.base_url, tenant), int(self.clock())
        lifetime = token_claims.lifetime_for(target or client)
        common: dict[str, Any] = {"azpacr": "2", "now": now, "lifetime": lifetime}
        if wanted.audience is not None and target is None and graph.is_graph(wanted.audience, self.base_url):
            scopes = graph.DEFAULT_SCOPES
            claims = token_claims.graph_token(
                issuer, client, user, scopes=scopes, roles=(), audience=wanted.audience, **common
            )
            if wanted.version == 2:
                claims |= {"iss": issuer.v2, "ver": "2.0"}
        else:
            resource = target or client
            claims = token_claims.access_token(
                issuer,
                client,
                resource,
                user,
                _permissions(tenant, client, resource, user),
                version=wanted.version or resource.token_version,
                audience=wanted.audience if target is not None and ":" in (wanted.audience or "") else None,
                **common,
            )
            if target is None:
                claims["aud"] = wanted.audience
        claims |= _times(wanted, now, int(claims["exp"]))
        if wanted.issuer is not None:
            claims["iss"] = wanted.issuer
        if wanted.groups is not None:
            for name in ("_claim_names", "_claim_sources"):
                claims.pop(name, None)
            claims["groups"] = _group_ids(tenant, user, wanted.groups)
        if wanted.agent is not None:
            claims |= _agent_claims(wanted.agent, tenant, client, user)
        return claims

    def _signed(self, wanted: ForgeRequest, claims: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        active = self.keyring.active
        key = active if wanted.key == "active" else self.stray_key()
        algorithm = wanted.algorithm or active.algorithm
        header: dict[str, Any] = {"typ": "JWT", "alg": algorithm}
        if wanted.key != "none":
            named = key if wanted.key == "unknown" else active
            if claims.get("ver") == "1.0" and named.x5t is not None:
                header["x5t"] = named.x5t
            header["kid"] = named.kid
        try:
            head, payload = _json(header), _json(claims)
        except (TypeError, ValueError):
            raise _wrong("claims", "must be values that JSON has") from None
        signing_input = f"{base64url(head)}.{base64url(payload)}"
        if wanted.key == "none" or algorithm.lower() == "none":
            return header, f"{signing_input}."
        if algorithm in HMAC_ALGORITHMS:
            digest = hmac.digest(_pem(key), signing_input.encode(), HMAC_ALGORITHMS[algorithm])
            return header, f"{signing_input}.{base64url(digest)}"
        return header, _with_algorithm(key, algorithm).sign(head, payload)


def _check(wanted: ForgeRequest) -> None:
    if _is_deeper(wanted.claims, MAX_DEPTH):
        raise _wrong("claims", f"nested more than {MAX_DEPTH} levels deep")
    if wanted.version not in (None, 1, 2):
        raise _wrong("version", "must be 1 or 2")
    if wanted.key not in KEYS:
        raise _wrong("key", f"{str(wanted.key)[:50]!r} is none of: {', '.join(KEYS)}")
    if wanted.agent is not None and wanted.agent not in AGENTS:
        raise _wrong("agent", f"{str(wanted.agent)[:50]!r} is none of: {', '.join(AGENTS)}")
    if wanted.agent == "user" and wanted.user is None:
        raise _wrong("agent", "'user' needs a user: the agent's own account")
    algorithm = wanted.algorithm
    # "None" and "nOnE" have passed checks that compare with "none" (RFC 8725, section 3.2).
    if algorithm is not None and algorithm not in FORGED_ALGORITHMS and algorithm.lower() != "none":
        raise _wrong("algorithm", f"{algorithm[:50]!r} is none of: {', '.join(FORGED_ALGORITHMS)}")
    if wanted.groups is not None and not 0 <= wanted.groups <= MAX_GROUPS:
        raise _wrong("groups", f"must be a number from 0 to {MAX_GROUPS}")
    if wanted.issuer is not None and len(wanted.issuer) > MAX_ISSUER_LENGTH:
        raise _wrong("issuer", f"at most {MAX_ISSUER_LENGTH} characters")
    if wanted.lifetime is not None and not abs(wanted.lifetime) <= MAX_SECONDS:
        raise _wrong("lifetime", f"must be seconds, at most {MAX_SECONDS} either way")
    start = wanted.not_before
    if start is not None and not (abs(start) <= MAX_SECONDS or FIRST_MOMENT <= start < FIRST_MOMENT * 10):
        raise _wrong(
            "not_before",
            f"must be seconds from now, at most {MAX_SECONDS} either way, or seconds since the epoch",
        )


def _user(tenant: Tenant, name: str | None) -> User | None:
    if not name:
        return None
    user = tenant.directory.find_user(name)
    if user is None:
        raise ConfigurationError("user_unknown", f"there is no user {name!r} in {tenant.name}", name)
    return user


def _permissions(tenant: Tenant, client: Application, target: Application, user: User | None) -> Decision:
    """What the policies would give, or the permissions that every consumer gets."""
    decision = decide(tenant, client, target, user)
    if decision.granted:
        return decision
    groups = () if user is None else target.groups_in_tokens(user)
    return Decision(True, (), roles=(DEFAULT_ROLE,), scopes=(DEFAULT_SCOPE,), groups=groups)


def _times(wanted: ForgeRequest, now: int, expiry: int) -> dict[str, int]:
    start, lifetime = wanted.not_before, wanted.lifetime
    if start is None and lifetime is None:
        return {}
    if start is not None:
        moment = math.floor(start if start >= FIRST_MOMENT else now + start)
        # It is valid for its whole lifetime once it is valid, so that it is wrong in one way only.
        begin = max(now, moment)
        end = expiry - now if lifetime is None else math.floor(lifetime)
        return {"iat": min(now, moment), "nbf": moment, "exp": begin + end}
    expiry = now + math.floor(lifetime or 0)
    issued = min(now - token_claims.BACKDATING, expiry - _DEFAULT_VALIDITY if expiry <= now else now)
    return {"iat": issued, "nbf": issued, "exp": expiry}


def _group_ids(tenant: Tenant, user: User | None, number: int) -> list[str]:
    """The user's own groups first, then ids of groups that do not exist."""
    own = () if user is None else user.groups
    others = (ids.group_id(tenant.name, f"forged-{place}") for place in range(number))
    return list(dict.fromkeys((*own, *others)))[:number]


def _agent_claims(agent: AgentKind, tenant: Tenant, client: Application, user: User | None) -> dict[str, str]:
    """Microsoft, "Token claims reference for agents": 11 is an agent identity, 13 an agent's user, 1 a
    person."""
    if user is None:
        kinds = {"xms_act_fct": "3 9 11", "xms_sub_fct": "9 3 11"}
    else:
        kinds = {"xms_act_fct": "11", "xms_sub_fct": "13" if agent == "user" else "1"}
    return {**kinds, "xms_par_app_azp": ids.client_id(tenant.name, f"{client.name} (blueprint)")}


def _with_algorithm(key: PrivateKey, algorithm: str) -> PrivateKey:
    """A key that signs with an algorithm: the same one where its type allows that, else a new one under the
    same kid."""
    if key.algorithm == algorithm:
        return key
    jwk = key.private_jwk()
    if algorithm[:2] in ("RS", "PS"):
        if jwk["kty"] != "RSA":
            jwk = PrivateKey.generate().private_jwk()
    else:
        jwk = _foreign_jwk(algorithm)
    return PrivateKey({**jwk, "alg": algorithm, "kid": key.kid})


def _foreign_jwk(algorithm: str) -> dict[str, str]:
    """A new private key for ES256, ES384, Ed25519 or ML-DSA (RFC 7518, section 6.2; RFC 8037, section 2)."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - as in private_key.py

    if algorithm.startswith("ML-DSA"):
        return PrivateKey.generate(algorithm).private_jwk()
    if algorithm in ("EdDSA", "Ed25519"):
        edwards = ed25519.Ed25519PrivateKey.generate()
        public, private = edwards.public_key().public_bytes_raw(), edwards.private_bytes_raw()
        return {"kty": "OKP", "crv": "Ed25519", "x": base64url(public), "d": base64url(private)}
    curve, name, size = (
        (ec.SECP256R1(), "P-256", 32) if algorithm == "ES256" else (ec.SECP384R1(), "P-384", 48)
    )
    numbers = ec.generate_private_key(curve).private_numbers()
    integers = {"x": numbers.public_numbers.x, "y": numbers.public_numbers.y, "d": numbers.private_value}
    return {"kty": "EC", "crv": name} | {
        member: base64url(value.to_bytes(size)) for member, value in integers.items()
    }


def _pem(key: PrivateKey) -> bytes:
    """The public key as PEM, as programs keep it in a file."""
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - as in private_key.py
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - the same

    jwk = key.public_jwk()
    if jwk["kty"] != "RSA":
        raise _wrong("algorithm", "HS256, HS384 and HS512 need a provider that signs with RS256")
    n, e = (int.from_bytes(base64.urlsafe_b64decode(jwk[name] + "==")) for name in ("n", "e"))
    public = rsa.RSAPublicNumbers(e, n).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _described(wanted: ForgeRequest) -> tuple[str, ...]:
    """What was ordered beside the parties of the token, in words."""
    said = [f"version {wanted.version}.0"] if wanted.version is not None else []
    if wanted.claims:
        said.append(f"claims {', '.join(name[:50] for name in list(wanted.claims)[:20])}")
    if wanted.lifetime is not None:
        said.append(f"lifetime {wanted.lifetime:g} s")
    if wanted.not_before is not None:
        said.append(f"not before {wanted.not_before:.15g}")
    if wanted.algorithm is not None:
        said.append(f"algorithm {wanted.algorithm}")
    if wanted.key != "active":
        said.append(f"key: {KEYS[wanted.key]}")
    if wanted.issuer is not None:
        said.append(f"issuer {wanted.issuer[:100]}")
    if wanted.groups is not None:
        said.append(f"{wanted.groups} groups")
    if wanted.agent is not None:
        said.append(AGENTS[wanted.agent])
    return tuple(said)


def _texts(value: object) -> list[str]:
    """Every text in a value."""
    found, pending = [], [value]
    while pending:
        match pending.pop():
            case str(text):
                found.append(text)
            case list(items) | tuple(items):
                pending.extend(items)
            case dict(members):
                pending.extend([*members, *members.values()])
    return found


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and mappings are nested in each other more than so many levels."""
    if not isinstance(value, Mapping | list | tuple):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _wrong(field_name: str, text: str) -> ConfigurationError:
    return ConfigurationError("forge_invalid", f"{field_name}: {text}", field_name)
