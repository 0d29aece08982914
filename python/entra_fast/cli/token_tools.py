# ruff: noqa: PLC0415 - each command imports what it runs when it runs
"""The commands that examine a given token: validate, inspect.

What belongs here: their options, and how checks and claims are shown.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entra_fast._color import Style, painted
from entra_fast.cli.sidecar_client import PROVIDER_METAVAR
from entra_fast.cli.terminal import (
    OK,
    REFUSED,
    TOKEN_HELP,
    UNAVAILABLE,
    USAGE,
    AddCommand,
    CommandError,
    fail,
    print_json,
    printable,
    read_token,
    readable_time,
    readable_time_text,
    reason,
)
from entra_fast.errors import ConfigurationError, InvalidToken, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast._arguments import Options
    from entra_fast.validate import Validator

_TIME_CLAIMS = frozenset({"exp", "nbf", "iat", "auth_time"})
_TIME_CHECKS = frozenset({"expiry", "not before", "issued at"})
_OUTCOMES: dict[bool | None, tuple[str, Style]] = {
    True: ("ok     ", "good"),
    False: ("FAILED ", "bad"),
    None: ("skipped", "aside"),
}
_OPTIONS = {
    "issuer": "--issuer",
    "audience": "--audience",
    "jwks_uri": "--jwks-uri",
    "jwks": "--jwks",
    "algorithms": "--algorithm",
    "tenants": "--tenant",
    "leeway": "--leeway",
    "max_age": "--max-age",
    "required_claims": "--require",
    "url": "--well-known",
    "provider": "--provider",
}
"""The option for each argument of `Validator` that an error can name."""


def _validate(arguments: argparse.Namespace) -> int:
    token = read_token(arguments.token)
    logging.getLogger("entra_fast").addHandler(logging.NullHandler())  # the result is printed below
    with _validator(arguments) as validator:
        failure: InvalidToken | KeysUnavailable | None = None
        claims: dict[str, Any] | None = None
        try:
            claims = validator.validate(token).as_dict()
        except (InvalidToken, KeysUnavailable) as error:
            failure = error
        checks = validator.explain(token) if arguments.explain else None
    if arguments.json:
        print_json(_document(claims, failure, checks))
    elif checks is not None:
        _print_checks(checks)
        if failure is None:
            print(painted("valid", "good", sys.stdout))
        else:
            print(f"{painted('not valid:', 'bad', sys.stdout)} {printable(failure.message)}")
    elif failure is None:
        print_json(claims)
    else:
        fail(REFUSED, _sentence(failure))
    if failure is None:
        return OK
    return REFUSED if isinstance(failure, InvalidToken) else UNAVAILABLE


def _document(
    claims: dict[str, Any] | None,
    failure: InvalidToken | KeysUnavailable | None,
    checks: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """The result for --json."""
    result: dict[str, Any] = {"valid": failure is None}
    if failure is None:
        result["claims"] = claims
    else:
        result |= {"code": failure.code, "error": failure.message}
        result |= {name: getattr(failure, name, None) for name in ("expected", "actual")}
    if checks is not None:
        result["checks"] = checks
    return result


def _sentence(failure: InvalidToken | KeysUnavailable) -> str:
    """Why the token is not valid, with the values that were compared."""
    values = {name: getattr(failure, name, None) for name in ("expected", "actual")}
    compared = ", ".join(f"{name} {value}" for name, value in values.items() if value)
    return f"{failure.message} ({compared})" if compared else failure.message


def _validator(arguments: argparse.Namespace) -> Validator:
    """A validator from the options; what they leave out comes from the environment."""
    _check_sources(arguments)
    try:
        return _make_validator(arguments)
    except ConfigurationError as error:
        option = _OPTIONS.get(error.setting or "")
        if option is None:
            raise
        raise CommandError(USAGE, f"{option}{error.message.removeprefix(error.setting or '')}") from None


def _check_sources(arguments: argparse.Namespace) -> None:
    """
    Raises:
        CommandError: it is not said, or said twice, which issuer, audience and keys are meant.
    """
    explicit = arguments.issuer or arguments.jwks_uri or arguments.jwks
    if arguments.provider is not None:
        if arguments.well_known or explicit:
            raise CommandError(USAGE, "pass either --provider, or --well-known or --issuer")
        return
    if arguments.well_known and explicit:
        raise CommandError(USAGE, "pass either --well-known, or --issuer with --jwks-uri or --jwks")
    if arguments.jwks_uri and arguments.jwks:
        raise CommandError(USAGE, "pass either --jwks-uri or --jwks")
    has_audience = arguments.audience or os.environ.get("AZURE_APP_CLIENT_ID")
    has_issuer = (
        arguments.well_known
        or arguments.issuer
        or (not explicit and _any_set("AZURE_OPENID_CONFIG_ISSUER", "AZURE_APP_WELL_KNOWN_URL"))
    )
    if not has_issuer and not has_audience:
        raise CommandError(
            USAGE,
            "missing --issuer and --audience (or set AZURE_OPENID_CONFIG_ISSUER and AZURE_APP_CLIENT_ID)",
        )
    if not has_issuer:
        raise CommandError(USAGE, "missing --issuer or --well-known (or set AZURE_OPENID_CONFIG_ISSUER)")
    if not has_audience:
        raise CommandError(USAGE, "missing --audience (or set AZURE_APP_CLIENT_ID)")
    if arguments.issuer and not (arguments.jwks_uri or arguments.jwks):
        raise CommandError(USAGE, "missing --jwks-uri or --jwks: the signing keys of --issuer")


def _any_set(*names: str) -> bool:
    return any(os.environ.get(name) for name in names)


def _make_validator(arguments: argparse.Namespace) -> Validator:
    from entra_fast.validate import Validator

    options: Options = {"leeway": arguments.leeway, "required_claims": ["iat", *arguments.require]}
    if arguments.algorithm:
        options["algorithms"] = arguments.algorithm
    if arguments.tenant:
        options["tenants"] = arguments.tenant
    if arguments.max_age is not None:
        options["max_age"] = arguments.max_age
    audience = arguments.audience
    if arguments.provider is not None:
        return Validator.from_env(arguments.provider, audience=audience, **options)
    if arguments.well_known or arguments.issuer:
        audience = audience or os.environ.get("AZURE_APP_CLIENT_ID", "")
    if arguments.well_known:
        return Validator.from_discovery(arguments.well_known, audience, **options)
    if arguments.jwks_uri:
        options["jwks_uri"] = arguments.jwks_uri
    if arguments.jwks:
        try:
            options["jwks"] = Path(arguments.jwks).read_bytes()
        except OSError as error:
            raise CommandError(USAGE, f"--jwks: '{arguments.jwks}' cannot be read: {reason(error)}") from None
    try:
        return Validator(arguments.issuer, audience, **options)
    except KeysUnavailable as error:
        if arguments.jwks:  # nothing has been fetched: these are the keys in the file
            raise CommandError(USAGE, f"--jwks: {error}") from None
        raise


def _print_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    width = max((len(check["check"]) for check in checks), default=0)
    now = time.time()
    for check in checks:
        outcome, style = _OUTCOMES[check["passed"]]
        shown = check["message"] if check["passed"] is False else check.get("value")
        moment = check.get("actual") if check["passed"] is False else shown
        note = readable_time_text(moment, now) if check["check"] in _TIME_CHECKS else ""
        line = f"{check['check']:<{width}}  {'' if shown is None else shown}{note}"
        print(f"{painted(outcome, style, sys.stdout)}  {printable(line.rstrip())}")
        if check["passed"] is False:
            for name in ("expected", "actual"):
                if check.get(name) is not None:
                    print(printable(f"{'':<{width + 11}}{name}: {check[name]}"))


def _inspect(arguments: argparse.Namespace) -> int:
    from entra_fast import _native

    token = read_token(arguments.token)
    header, claims = _native.unverified_header(token), _native.unverified_claims(token)
    if arguments.json:
        print_json({"verified": False, "header": header, "claims": claims})
        return OK
    mark = painted("NOT VERIFIED:", "warning", sys.stdout)
    print(f"{mark} anyone can write such a token. Neither the signature nor any claim was checked.")
    print("To check it, run: entra-fast validate\n")
    now = time.time()
    for title, members in (("header", header), ("claims", claims)):
        print(painted(title, "heading", sys.stdout))
        width = max((len(printable(name)) for name in members), default=0)
        for name, value in members.items():
            note = readable_time(value, now) if title == "claims" and name in _TIME_CLAIMS else ""
            print(f"  {printable(name):<{width}}  {printable(json.dumps(value, ensure_ascii=False))}{note}")
        print()
    return OK


def add_commands(add: AddCommand) -> None:
    _add_validate(add)
    _add_inspect(add)


def _add_validate(add: AddCommand) -> None:
    parser = add(
        "validate",
        _validate,
        "check a token, and explain why it is not valid",
        """Check a token: signature, issuer, audience and times. Prints its claims, or why it is not
valid. Issuer, audience and keys come from the options or, without any, from the AZURE_*
variables that NAIS sets; with --provider, from those of another provider.

examples:
  entra-fast validate < token.txt
  entra-fast validate --explain eyJ0eXAiOi...
  entra-fast validate --provider tokenx < token.txt
  entra-fast validate --issuer https://issuer.example --audience me --jwks keys.json < token.txt
  entra-fast validate --audience <client id> --well-known \\
    https://login.microsoftonline.com/<tenant>/v2.0/.well-known/openid-configuration < token.txt
""",
    )
    parser.add_argument("token", nargs="?", help=TOKEN_HELP)
    output = parser.add_argument_group("output")
    output.add_argument("--explain", action="store_true", help="show each check with its values")
    output.add_argument(
        "--json", action="store_true", help="one JSON object: valid, and claims or code and error"
    )
    trust = parser.add_argument_group("issuer and keys")
    trust.add_argument(
        "--provider",
        metavar=PROVIDER_METAVAR,
        help="whose variables to use: entra_id, maskinporten, tokenx, idporten, ansattporten, or "
        "one that ENTRA_FAST_PROVIDERS names",
    )
    trust.add_argument("--well-known", metavar="URL", help="discovery document, for issuer and keys")
    trust.add_argument("--issuer", metavar="ISS", help="accepted issuer, compared exactly")
    trust.add_argument("--jwks-uri", metavar="URL", help="location of the signing keys")
    trust.add_argument("--jwks", metavar="FILE", help="file with the signing keys (a JWK set)")
    checks = parser.add_argument_group("checks")
    checks.add_argument(
        "--audience", action="append", metavar="AUD", help="accepted audience; may be repeated"
    )
    checks.add_argument(
        "--algorithm",
        action="append",
        metavar="ALG",
        help="accepted algorithm; may be repeated (default: RS256)",
    )
    checks.add_argument("--tenant", action="append", metavar="GUID", help="accepted tenant; may be repeated")
    checks.add_argument(
        "--require", action="append", default=[], metavar="CLAIM", help="required claim; may be repeated"
    )
    checks.add_argument(
        "--leeway",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="allowed clock skew, in seconds (default: %(default)s)",
    )
    checks.add_argument(
        "--max-age", type=float, metavar="SECONDS", help="maximum time since the token was issued, in seconds"
    )


def _add_inspect(add: AddCommand) -> None:
    parser = add(
        "inspect",
        _inspect,
        "show the content of a token, without any check",
        """Show the header and the claims of a token, with readable times. Nothing is verified: do not
base any decision on the output.

examples:
  entra-fast inspect < token.txt
  entra-fast token dev-gcp:team-b:app-b | entra-fast inspect --json
""",
    )
    parser.add_argument("token", nargs="?", help=TOKEN_HELP)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object: verified (false), header, claims"
    )
