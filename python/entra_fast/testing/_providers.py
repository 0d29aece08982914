"""The providers beside Entra ID for one test: their tokens, and validators with their keys.

What belongs here: what a token of each says, and what a test asks for. What must never be here: the checks
that a provider makes before it issues a token. The local providers of `entra-fast dev` make them.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, ParamSpec, Unpack

import orjson

from entra_fast._arguments import Options
from entra_fast._issuers import ANY_AUDIENCE, AnyAudience, Issuer
from entra_fast._native import SigningKey
from entra_fast.testing import _bad, _keys
from entra_fast.testing._clock import Clock
from entra_fast.validate import AsyncValidator, Validator

PERSON: Final = "17858549949"
"""A national identity number of the synthetic series: no person has it."""
CONSUMER: Final = "310000019"
SUPPLIER: Final = "310000027"
"""Numbers of the synthetic series: no organization has them."""

P = ParamSpec("P")


class ProviderTokens(Generic[P]):
    """Makes access tokens of one provider: good ones by calling it, bad ones by name, with the same
    arguments.

    Args:
        content: the claims of a good token.
        key: the provider's key.
        bad: names of the methods that make bad tokens.
    """

    def __init__(self, content: Callable[P, dict[str, Any]], key: SigningKey, bad: Sequence[str]) -> None:
        self._content = content
        self._key = key
        self._bad = tuple(bad)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """A valid token."""
        return _signed(self._key, self._content(*args, **kwargs))

    def expired(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Expired a day ago (`token_expired`)."""
        return _signed(self._key, _bad.expired(self._content(*args, **kwargs)))

    def not_yet_valid(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Valid from tomorrow (`token_not_yet_valid`)."""
        return _signed(self._key, _bad.not_yet_valid(self._content(*args, **kwargs)))

    def wrong_audience(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """For another API (`wrong_audience`, unless the audience is not checked)."""
        return _signed(self._key, self._content(*args, **kwargs) | {"aud": _bad.WRONG_AUDIENCE})

    def wrong_issuer(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """From another issuer (`wrong_issuer`)."""
        return _signed(self._key, self._content(*args, **kwargs) | {"iss": _bad.WRONG_ISSUER})

    def wrong_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Signed with a key that is not published (`unknown_key`)."""
        return _signed(_signing_key("stray"), self._content(*args, **kwargs))

    def wrong_signature(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Changed after it was signed (`signature_invalid`)."""
        return _bad.tampered(self(*args, **kwargs))

    def malformed(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Without its signature (`not_a_jwt`)."""
        return _bad.unsigned(self(*args, **kwargs))

    def each_bad(self) -> dict[str, Callable[P, str]]:
        """All kinds of bad tokens, by name: for a parametrized test."""
        return {name: getattr(self, name) for name in self._bad}


class _LocalProvider:
    """What the local providers have in common.

    Attributes:
        issuer: what `iss` of its tokens is. The name exists nowhere (RFC 6761, section 6.2).
        clock: its clock, and that of its validators.
    """

    issuer: ClassVar[str]
    _name: ClassVar[str]
    _bad: ClassVar[Sequence[str]] = _bad.BAD

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._key = _signing_key(self._name)

    @property
    def jwks(self) -> str:
        """Its key set, in JSON: one key without `alg`, as TokenX publishes it."""
        key = _keys.provider(self._name)
        return orjson.dumps(
            {"keys": [{name: key[name] for name in ("kty", "use", "kid", "n", "e")}]}
        ).decode()

    def accept(self, audience: str | Sequence[str] | AnyAudience) -> Issuer:
        """This provider as one of several issuers of a validator: `Validator(issuers=[...], clock=...)`.

        Args:
            audience: accepted audiences.
        """
        return Issuer(issuer=self.issuer, jwks=self.jwks, audience=audience)

    def validator(self, audience: str | Sequence[str] | AnyAudience, **options: Unpack[Options]) -> Validator:
        """A validator: real, with the keys of this provider, and with its clock.

        Args:
            audience: accepted audiences.
            options: as for `Validator`.
        """
        return Validator(self.issuer, audience, **self._options(options))

    def async_validator(
        self, audience: str | Sequence[str] | AnyAudience, **options: Unpack[Options]
    ) -> AsyncValidator:
        """`validator`, for asyncio.

        Args:
            audience: accepted audiences.
            options: as for `Validator`.
        """
        return AsyncValidator(self.issuer, audience, **self._options(options))

    def _options(self, options: Options) -> Options:
        found: Options = {"jwks": self.jwks, "clock": self.clock}
        found.update(options)
        return found

    def _content(self, lifetime: int, claims: Mapping[str, Any]) -> dict[str, Any]:
        """Claims, with what all providers write. None leaves one out."""
        now = int(self.clock())
        times = {"iss": self.issuer, "iat": now, "exp": now + lifetime, "jti": str(uuid.uuid4())}
        return {name: value for name, value in {**times, **claims}.items() if value is not None}


class LocalTokenX(_LocalProvider):
    """TokenX in this process, without a network.

    Attributes:
        token: makes tokens: `token(consumer, target, pid=..., acr=..., **claims)`.
    """

    issuer = "https://local-tokenx.test"
    _name = "tokenx"

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.token = ProviderTokens(self._claims, self._key, self._bad)

    def _claims(
        self,
        consumer: str,
        target: str,
        *,
        pid: str | None = PERSON,
        acr: str | None = "idporten-loa-high",
        **claims: Any,
    ) -> dict[str, Any]:
        """What a token says after an exchange of one that ID-porten issued.

        Args:
            consumer: the calling application, `<cluster>:<namespace>:<app>`.
            target: the called application.
            pid: national identity number of the person.
            acr: level of assurance of the sign-in.
            claims: further claims, or others in place of those that the token would have; None leaves one
                out.
        """
        own = {
            "sub": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.issuer}/{pid}")),
            "pid": pid,
            "acr": acr,
            "amr": ["TestID"],
            "idp": LocalIDPorten.issuer,
            "client_id": consumer,
            "aud": target,
            "nbf": int(self.clock()),
        }
        return self._content(900, own | claims)


class LocalMaskinporten(_LocalProvider):
    """Maskinporten in this process, without a network.

    Attributes:
        token: makes tokens: `token(scope, consumer_orgno=..., supplier_orgno=..., resource=...,
            authorization_details=..., **claims)`.
    """

    issuer = "https://local-maskinporten.test/"
    _name = "maskinporten"
    _bad = tuple(name for name in _bad.BAD if name != "wrong_audience")

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.token = ProviderTokens(self._claims, self._key, self._bad)

    def validator(
        self, audience: str | Sequence[str] | AnyAudience = ANY_AUDIENCE, **options: Unpack[Options]
    ) -> Validator:
        """A validator: real, with the keys of this provider, and with its clock.

        Args:
            audience: accepted audiences; by default `aud` is not checked.
            options: as for `Validator`.
        """
        return super().validator(audience, **options)

    def async_validator(
        self, audience: str | Sequence[str] | AnyAudience = ANY_AUDIENCE, **options: Unpack[Options]
    ) -> AsyncValidator:
        """`validator`, for asyncio."""
        return super().async_validator(audience, **options)

    def accept(self, audience: str | Sequence[str] | AnyAudience = ANY_AUDIENCE) -> Issuer:
        """This provider as one of several issuers of a validator.

        Args:
            audience: accepted audiences; by default `aud` is not checked.
        """
        return super().accept(audience)

    def _claims(
        self,
        scope: str,
        *,
        consumer_orgno: str = CONSUMER,
        supplier_orgno: str | None = None,
        resource: str | Sequence[str] | None = None,
        authorization_details: Sequence[Mapping[str, Any]] | None = None,
        **claims: Any,
    ) -> dict[str, Any]:
        """What a token of an organization says.

        Args:
            scope: the scopes, separated by spaces.
            consumer_orgno: number of the organization; where access is delegated, of the one that delegated
                it.
            supplier_orgno: number of the organization to which the access is delegated.
            resource: becomes `aud`, which is absent without it.
            authorization_details: as in the token (RFC 9396).
            claims: further claims, or others in place of those that the token would have; None leaves one
                out.
        """
        delegated = {
            "supplier": _organization(supplier_orgno or ""),
            "delegation_source": "https://altinn.test/",
        }
        own = {
            "client_id": str(
                uuid.uuid5(uuid.NAMESPACE_URL, f"{self.issuer}{supplier_orgno or consumer_orgno}")
            ),
            "client_amr": "private_key_jwt",
            "token_type": "Bearer",
            "scope": scope,
            "consumer": _organization(consumer_orgno),
            **({} if supplier_orgno is None else delegated),
            "aud": resource if resource is None or isinstance(resource, str) else list(resource),
            "authorization_details": None if authorization_details is None else list(authorization_details),
        }
        return self._content(120, own | claims)


class LocalIDPorten(_LocalProvider):
    """ID-porten in this process, without a network.

    Attributes:
        token: makes access tokens: `token(audience, pid=..., acr=..., scope=..., **claims)`.
    """

    issuer = "https://local-idporten.test"
    _name = "idporten"
    PLATFORM: ClassVar[str] = "local-platform"
    """`client_id` of all tokens: that of the platform that signs users in."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.token = ProviderTokens(self._claims, self._key, self._bad)

    def id_token(
        self, audience: str, *, pid: str | None = PERSON, acr: str | None = "idporten-loa-high", **claims: Any
    ) -> str:
        """An ID token. No API may accept it: `Require` refuses it (`access_token_required`).

        Args:
            audience: `aud`, which is the client that signed the user in.
            pid: as for `token`.
            acr: as for `token`.
            claims: as for `token`.
        """
        now = int(self.clock())
        own = {
            **self._person(audience, pid, acr),
            "auth_time": now,
            "nonce": uuid.uuid4().hex,
            "amr": ["TestID"],
            "locale": "nb",
            "sid": uuid.uuid4().hex,
        }
        return _signed(self._key, self._content(120, own | claims))

    def _claims(
        self,
        audience: str,
        *,
        pid: str | None = PERSON,
        acr: str | None = "idporten-loa-high",
        scope: str = "openid profile",
        **claims: Any,
    ) -> dict[str, Any]:
        """What an access token says.

        Args:
            audience: what the login asked for as `resource`.
            pid: national identity number of the person; None as for some sign-ins.
            acr: level of assurance of the sign-in.
            scope: the scopes, separated by spaces.
            claims: further claims, or others in place of those that the token would have; None leaves one
                out.
        """
        own = {
            **self._person(audience, pid, acr),
            "client_id": self.PLATFORM,
            "client_amr": "private_key_jwt",
            "consumer": _organization(CONSUMER),
            "scope": scope,
        }
        return self._content(120, own | claims)

    def _person(self, audience: str, pid: str | None, acr: str | None) -> dict[str, Any]:
        subject = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.issuer}/{pid}"))
        return {"sub": subject, "aud": audience, "pid": pid, "acr": acr}


class LocalAnsattporten(LocalIDPorten):
    """Ansattporten in this process, without a network: tokens like those of ID-porten, with its own levels of
    assurance.

    Attributes:
        token: makes access tokens: `token(audience, pid=..., acr=..., authorization_details=..., **claims)`.
    """

    issuer = "https://local-ansattporten.test"
    _name = "ansattporten"

    def id_token(
        self, audience: str, *, pid: str | None = PERSON, acr: str | None = "high", **claims: Any
    ) -> str:
        """As `LocalIDPorten.id_token`; `acr` is `low`, `substantial` or `high`."""
        return super().id_token(audience, pid=pid, acr=acr, **claims)

    def _claims(
        self,
        audience: str,
        *,
        pid: str | None = PERSON,
        acr: str | None = "high",
        scope: str = "openid profile",
        **claims: Any,
    ) -> dict[str, Any]:
        """As `LocalIDPorten`. A person who represents an organization has `authorization_details`
        (RFC 9396)."""
        return super()._claims(audience, pid=pid, acr=acr, scope=scope, **claims)


def _organization(number: str) -> dict[str, str]:
    return {"authority": "iso6523-actorid-upis", "ID": f"0192:{number}"}


def _signing_key(name: str) -> SigningKey:
    return SigningKey.from_jwk(orjson.dumps(_keys.provider(name)))


def _signed(key: SigningKey, content: dict[str, Any]) -> str:
    header = {"kid": key.kid, "typ": "JWT", "alg": key.algorithm}
    return key.sign(orjson.dumps(header), orjson.dumps(content))
