"""OAuth 2.0 with the provider, without I/O: builds its forms, reads its responses.

What belongs here: the exact bytes and rules of the protocol (RFC 6749, RFC 7523, RFC 8693, Entra ID's
on-behalf-of flow). What must never be here: sockets, clocks (time is an argument), caches, and the sidecar's
own HTTP interface. Everything that the provider sends is checked before it is used.
"""

from __future__ import annotations

import base64
import email.utils
import json
import math
import re
import secrets
import sys
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import orjson

from entra_fast import _native
from entra_fast._providers import ENTRA_ID, ProviderKind
from entra_fast.errors import ProviderDetails, ProviderError

ERROR_CODES = {
    "provider_refused": "the provider refused with an OAuth error, which is passed through",
    "provider_failed": "the provider answered with an error status and no OAuth error",
    "provider_answer_malformed": "the provider's answer to a token request is not what RFC 6749 demands",
    "target_invalid": "the target is in none of the accepted forms",
}

ASSERTION_LIFETIME = 30
"""Seconds that a client assertion is valid. Each is used once, at once: a leaked one is of little use.
Providers allow for clocks that differ; a clock that is off by more is in the log (clock_skew.py)."""

MAX_ACCESS_TOKEN_BYTES = 65_536
MAX_EXPIRES_IN = 31 * 86_400
"""Seconds. A longer lifetime is not plausible (Entra ID's longest is about a day)."""

RETRY_AFTER_RANGE = (1, 3600)
"""Seconds. `Retry-After` is honoured within these bounds."""

ANSWERED = ("provider_refused", "provider_failed")
"""Codes of errors that the provider returned, with its own status."""

JWT_BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


# --- targets ---------------------------------------------------------------------------------------------


def scope_for(target: str, kind: ProviderKind = ENTRA_ID) -> str:
    """The scope that a target means at a provider. At Entra ID, `<cluster>:<namespace>:<app>` becomes
    `api://<cluster>.<namespace>.<app>/.default`; any other target stays untouched.

    Raises:
        EntraFastError: code `target_invalid`, a sentence that names the accepted forms.
    """
    return _native.scope_for(target, rewrites=kind.rewrites_targets)


# --- requests --------------------------------------------------------------------------------------------


def client_credentials_form(client_id: str, scope: str, credential: Mapping[str, str]) -> dict[str, str]:
    """Token request of the client credentials grant (RFC 6749, section 4.4.2).

    `credential`: the fields that prove who the client is, as `secret_fields` or `assertion_fields` make them.
    """
    return {"grant_type": "client_credentials", "client_id": client_id, "scope": scope, **credential}


def on_behalf_of_form(
    client_id: str, scope: str, subject_token: str, credential: Mapping[str, str]
) -> dict[str, str]:
    """Token request of Entra ID's on-behalf-of flow (an RFC 7523 grant with `requested_token_use`)."""
    return {
        "grant_type": JWT_BEARER_GRANT,
        "requested_token_use": "on_behalf_of",
        "assertion": subject_token,
        "client_id": client_id,
        "scope": scope,
        **credential,
    }


def token_exchange_form(
    audience: str, subject_token: str, credential: Mapping[str, str], *, client_id: str | None = None
) -> dict[str, str]:
    """Token request of a token exchange (RFC 8693, section 2.1).

    Args:
        audience: for whom the new token is.
        client_id: where the credential does not name it.
    """
    return {
        "grant_type": TOKEN_EXCHANGE_GRANT,
        "subject_token_type": JWT_TYPE,
        "subject_token": subject_token,
        "audience": audience,
        **({} if client_id is None else {"client_id": client_id}),
        **credential,
    }


def jwt_bearer_form(grant: Mapping[str, str]) -> dict[str, str]:
    """Token request with a JWT that the client has signed as its grant (RFC 7523, section 2.1).

    `grant`: the field that `grant_fields` makes.
    """
    return {"grant_type": JWT_BEARER_GRANT, **grant}


def claims_field(claims: str | None, capabilities: Sequence[str]) -> dict[str, str]:
    """The `claims` parameter (OpenID Connect Core 1.0, section 5.5): the challenge as it was received,
    together with the application's capabilities (`xms_cc`), as Microsoft's libraries send them.

    Args:
        claims: a claims challenge: the text of a JSON object.
        capabilities: such as `cp1`.
    """
    if capabilities:
        # Not orjson: the numbers of a challenge may be larger than it can hold.
        wanted = {} if claims is None else json.loads(claims, parse_float=_finite)
        of_token = wanted.get("access_token")
        own = {"xms_cc": {"values": list(capabilities)}}
        wanted["access_token"] = {**(of_token if isinstance(of_token, dict) else {}), **own}
        claims = json.dumps(wanted, separators=(",", ":"))
    return {} if claims is None else {"claims": claims}


def _finite(number: str) -> float:
    """The nearest float: `1e400` would become `Infinity`, which is not JSON."""
    return max(-sys.float_info.max, min(float(number), sys.float_info.max))


def secret_fields(client_secret: str) -> dict[str, str]:
    """`client_secret_post` (RFC 6749, section 2.3.1)."""
    return {"client_secret": client_secret}


def assertion_fields(assertion: str) -> dict[str, str]:
    """`private_key_jwt` and workload identity (RFC 7523, section 2.2)."""
    return {"client_assertion_type": JWT_BEARER_ASSERTION, "client_assertion": assertion}


def grant_fields(assertion: str) -> dict[str, str]:
    """A JWT as an authorization grant (RFC 7523, section 2.1)."""
    return {"assertion": assertion}


def grant_claims(scope: str, resources: Sequence[str], authorization_details: str | None) -> dict[str, Any]:
    """What a JWT that serves as a grant asks for, as Maskinporten reads it.

    Args:
        resources: the audiences of the token (RFC 8707). A single one is sent as a string, as Texas does.
        authorization_details: the text of a JSON array (RFC 9396).
    """
    claims: dict[str, Any] = {"scope": scope}
    if resources:
        claims["resource"] = resources[0] if len(resources) == 1 else list(resources)
    if authorization_details is not None:
        # As it came: numbers may be larger than orjson can hold.
        claims["authorization_details"] = orjson.Fragment(authorization_details)
    return claims


def sign_client_assertion(key: _native.SigningKey, client_id: str, audience: str, now: float) -> str:
    """A new client assertion (RFC 7523, section 3). Each is used once: its `jti` is unique.

    Args:
        audience: the provider's issuer, or its token endpoint.
        now: seconds since the epoch.
    """
    return _sign_assertion(key, client_id, audience, {"sub": client_id}, now)


def sign_grant(
    key: _native.SigningKey, client_id: str, audience: str, claims: Mapping[str, Any], now: float
) -> str:
    """A new JWT that serves as a grant (RFC 7523, sections 2.1 and 3). Each is used once, by its `jti`.

    Args:
        audience: the provider's issuer, or its token endpoint.
        claims: what it asks for, see `grant_claims`.
        now: seconds since the epoch.
    """
    return _sign_assertion(key, client_id, audience, claims, now)


def _sign_assertion(
    key: _native.SigningKey, client_id: str, audience: str, claims: Mapping[str, Any], now: float
) -> str:
    header: dict[str, Any] = {"typ": "JWT", "alg": key.algorithm}
    for name, value in (("kid", key.kid), ("x5t", key.x5t), ("x5t#S256", key.x5t_s256)):
        if value is not None:
            header[name] = value
    issued = math.floor(now)
    payload = {
        **claims,
        "iss": client_id,
        "aud": audience,
        "jti": base64.urlsafe_b64encode(secrets.token_bytes(18)).decode("ascii"),
        "iat": issued,
        "nbf": issued,
        "exp": issued + ASSERTION_LIFETIME,
    }
    return key.sign(orjson.dumps(header), orjson.dumps(payload))


# --- answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class TokenResponse:
    """A successful answer of the token endpoint (RFC 6749, section 5.1).

    Attributes:
        access_token: the token. expires_in: seconds that it lives from the moment of the answer. cacheable:
        False if the provider did not plausibly say how long it lives; the token is then handed out
            to the requests that waited for it, and forgotten.
    """

    access_token: str
    expires_in: float
    cacheable: bool

    def __repr__(self) -> str:
        return f"TokenResponse(expires_in={self.expires_in}, cacheable={self.cacheable})"


def parse_token_response(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float
) -> TokenResponse:
    """Read an answer of the token endpoint (RFC 6749, sections 5.1 and 5.2).

    Args:
        now: seconds since the epoch, used where the answer has no `Date` header.

    Raises:
        ProviderError: `provider_refused`, `provider_failed` or `provider_answer_malformed`.
    """
    document = _json_object(headers, body)
    if status == 200:
        if document is None:
            raise _malformed("the provider's answer is not a JSON object")
        return _token(document, _provider_now(headers, now))
    if not 400 <= status <= 599:
        raise _malformed(f"the provider answered with the unexpected status {status}")
    # A date is a time of the provider's clock, so it is compared with that clock: ours may be an hour off.
    retry_after = parse_retry_after(headers.get("Retry-After"), _provider_now(headers, now))
    raise refusal(status, document, retry_after)


def refusal(status: int, document: dict[str, Any] | None, retry_after: int | None) -> ProviderError:
    """The error that an error answer of the token endpoint means. Only members that an application needs are
    passed on, and only where they have the right type."""
    error = document.get("error") if document is not None else None
    if document is None or not isinstance(error, str) or not _ERROR.fullmatch(error):
        return ProviderError(
            "provider_failed",
            f"the provider answered with status {status} and no OAuth error",
            status=status,
            retry_after=retry_after,
        )
    description = document.get("error_description")
    details: ProviderDetails = {}
    for name in _TEXTS:
        value = document.get(name)
        if isinstance(value, str) and len(value) <= _MAX_DETAIL:
            details[name] = value
    codes = document.get("error_codes")
    if isinstance(codes, list) and len(codes) <= 32 and all(map(_is_code, codes)):
        details["error_codes"] = codes
    if isinstance(description, str) and len(description) > _MAX_DETAIL:
        # Cut between words: an echoed token is then complete or absent, so that it can be found and removed.
        description = description[:_MAX_DETAIL].rpartition(" ")[0]
    return ProviderError(
        "provider_refused",
        description if isinstance(description, str) and description else "the provider gave no description",
        status=status,
        error=error,
        retry_after=retry_after,
        details=details,
    )


def _is_code(value: object) -> bool:
    """Whether a member of `error_codes` is a number that every JSON parser reads (RFC 8259, section 6)."""
    return type(value) is int and abs(value) < 2**53


def aadsts_codes(error: ProviderError) -> list[str]:
    """`AADSTS<number>` of a refusal: usually one, the most important one first."""
    codes = error.details.get("error_codes")
    if codes and 0 < codes[0] < 10**8:
        return [f"AADSTS{code}" for code in codes]
    match = _AADSTS.match(error.message)
    return [match.group()] if match else []


def maskinporten_code(error: ProviderError) -> str | None:
    """`MP-<number>` of a refusal of Maskinporten, which is in its `error_uri`, or None."""
    uri = error.details.get("error_uri")
    match = _MASKINPORTEN.search(uri) if uri is not None else None
    return match and match.group()


def provider_code(error: ProviderError) -> str:
    """What names a refusal most exactly: the provider's own code, or else the OAuth error."""
    own = (*aadsts_codes(error), maskinporten_code(error), error.error)
    return next(code for code in own if code is not None)


def parse_retry_after(value: str | None, now: float) -> int | None:
    """Seconds to wait (RFC 9110, section 10.2.3: a number or a date), within `RETRY_AFTER_RANGE`, or None."""
    if value is None:
        return None
    value = value.strip()
    low, high = RETRY_AFTER_RANGE
    if value.isascii() and value.isdigit():
        return high if len(value) > 9 else min(max(int(value), low), high)
    moment = http_date(value)
    if moment is None:
        return None
    return min(max(math.ceil(moment - now), low), high)


_ERROR = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,128}", re.ASCII)
"""RFC 6749, section 5.2: the characters of an error code."""
_MAX_DETAIL = 16_384
_Text = Literal["suberror", "claims", "correlation_id", "trace_id", "timestamp", "error_uri"]
_TEXTS: Final[tuple[_Text, ...]] = get_args(_Text)
_AADSTS = re.compile(r"AADSTS[0-9]{1,8}", re.ASCII)
_MASKINPORTEN = re.compile(r"MP-[0-9]{1,4}$", re.ASCII)
_TOKEN_TEXT = re.compile(r"[\x21-\x7e]+", re.ASCII)


def _malformed(message: str) -> ProviderError:
    return ProviderError("provider_answer_malformed", message)


def _json_object(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    """The body, if its media type is JSON and it is an object."""
    media_type = (headers.get("Content-Type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return None
    try:
        document = _native.parse_json(body)
    except ValueError:  # also for NaN, duplicate members, bad UTF-8, nesting too deep
        return None
    return document if isinstance(document, dict) else None


def _token(document: dict[str, Any], provider_now: float) -> TokenResponse:
    access_token = document.get("access_token")
    if (
        not isinstance(access_token, str)
        or len(access_token) > MAX_ACCESS_TOKEN_BYTES
        or not _TOKEN_TEXT.fullmatch(access_token)
    ):
        raise _malformed("the provider's answer has no usable access_token")
    token_type = document.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise _malformed("the provider's answer has a token_type other than Bearer")
    stated = _expires_in(document.get("expires_in"))
    # The token's end is compared with the provider's own clock (its Date header), so that a wrong local clock
    # does no harm. A token that has expired on arrival must not reach an application, whatever expires_in
    # says.
    end = _unverified_end(access_token)
    own = None if end is None else end - provider_now
    if own is not None and own <= 0:
        raise _malformed("the provider answered with a token that has already expired")
    if stated is None:
        remaining = 0.0 if own is None else min(own, MAX_EXPIRES_IN)
        return TokenResponse(access_token, remaining, cacheable=False)
    return TokenResponse(access_token, stated if own is None else min(stated, own), cacheable=True)


def _expires_in(value: object) -> float | None:
    """Seconds, from a number or (as some versions of the provider answer) a string of digits; None when
    missing, not positive or not plausible."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= MAX_EXPIRES_IN else None


def _unverified_end(token: str) -> float | None:
    """`exp` of a token that is a JWT; None if it cannot be read: access tokens are opaque to clients."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    end = claims.get("exp") if isinstance(claims, dict) else None
    return None if isinstance(end, bool) or not isinstance(end, int | float) else float(end)


def _provider_now(headers: Mapping[str, str], now: float) -> float:
    moment = http_date(headers.get("Date") or "")
    return now if moment is None else moment


def http_date(value: str) -> float | None:
    """The time that a header gives (RFC 9110, section 5.6.7), in seconds since the epoch; None if it is not
    one."""
    if not value or len(value) > 64:
        return None
    try:
        moment = email.utils.parsedate_tz(value)
        return None if moment is None else float(email.utils.mktime_tz(moment))
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def without_secrets(error: ProviderError, sent: Iterable[str]) -> ProviderError:
    """The error without anything that was sent: a provider, or a proxy before it, may echo the request."""
    parts = {
        part
        for text in sent
        for part in (text, urllib.parse.quote_plus(text), *text.split("."))
        if len(part) >= 8
    }
    # The assertion type is no secret, and stays readable.
    parts -= {JWT_BEARER_ASSERTION, urllib.parse.quote_plus(JWT_BEARER_ASSERTION)}

    def clean(value: object) -> object:
        if isinstance(value, str):
            for part in sorted(parts, key=len, reverse=True):  # the whole of a token before its parts
                value = value.replace(part, "[removed]")
        return value

    return ProviderError(
        error.code,
        str(clean(error.message)),
        error.status,
        str(clean(error.error)),
        error.retry_after,
        cast("ProviderDetails", {name: clean(value) for name, value in error.details.items()}),
    )
