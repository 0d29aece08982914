# ruff: noqa: PLC0415 - each command imports its part when it runs; see below
"""The `entra-fast` command: arguments in, one call into the part that does the work, an exit status out.

What belongs here: arguments, help texts, how results are shown in a terminal. What must not: anything that
another program could want to import. Each command imports its part when it runs, so that `entra-fast
inspect` does not load a web server and `entra-fast serve` does not load the emulator.

Nothing that was read from a token reaches the terminal raw: control characters in a claim could otherwise
move the cursor, hide lines or set the window's title.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import logging
import os
import re
import shlex
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

from entra_fast.errors import ConfigurationError, EntraFastError, Forbidden, InvalidToken, KeysUnavailable

if TYPE_CHECKING:
    from entra_fast.validate import Options, Validator

OK = 0
REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130

_EXIT_STATUSES = """\
exit status:
  0  done; for a check: the token is valid
  1  refused: the token is not valid, or the provider or sidecar refused the request
  2  the command line, a setting or a manifest is wrong
  3  undecided: the provider or the sidecar could not be reached
  130  interrupted (Ctrl-C) before there was a result
"""

_TOKEN_HELP = (
    "the token; '-' or nothing reads standard input, which keeps it out of the process list "
    "and the shell's history"
)
_MAX_INPUT_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 1 << 20
_SIDECAR = "http://127.0.0.1:7164"
_TIMEOUT_SECONDS = 15.0  # longer than the sidecar's own deadline towards the provider, retry included
_EMULATOR = "http://127.0.0.1:8080"
_NAME = re.compile(r"[A-Z][A-Z0-9_]*")  # of an environment variable; nothing else becomes shell or a file
_TIME_CLAIMS = frozenset({"exp", "nbf", "iat", "auth_time"})
_TIME_CHECKS = frozenset({"expiry", "not before", "issued at"})
_LATEST_SHOWN = 253402300799.0  # 9999-12-31T23:59:59Z, the end of what datetime can show


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status; never lets an expected error out as a traceback."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell; what is opened next must not take its place
            setattr(sys, name, open(os.devnull, "r+", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to crash
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return USAGE
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`entra-fast inspect | head -1`). Python would complain again at exit.
        _drop_output()
        return REFUSED
    except OSError as error:
        _drop_output()
        return _fail(USAGE, f"{error.filename or 'the output cannot be written'}: {_reason(error)}")
    except InvalidToken as error:
        return _fail(REFUSED, str(error))
    except Forbidden as error:
        return _fail(REFUSED, str(error))
    except KeysUnavailable as error:
        return _fail(UNAVAILABLE, str(error))
    except ConfigurationError as error:
        for line in str(error).split("\n"):  # several mistakes in manifests: a line for each
            _fail(USAGE, line)
        return USAGE
    except EntraFastError as error:
        return _fail(UNAVAILABLE, str(error))
    except _Refused as refused:
        return _fail(refused.status, str(refused))
    return status


# --- servers


def _dev(arguments: argparse.Namespace) -> int:
    _need_extra("dev")
    from entra_fast.cli import dev_system as dev

    return dev.run(dev.options_from(arguments))


def _serve(arguments: argparse.Namespace) -> int:
    # Until the sidecar handles signals itself there is nobody to drain for. As PID 1 a process without a
    # handler would not even notice (signal(7)).
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(OK))
    try:
        return _run_sidecar(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_sidecar(arguments: argparse.Namespace) -> int:
    from entra_fast import sidecar
    from entra_fast._settings.load import Settings

    environ = dict(os.environ)
    if arguments.bind:
        environ["BIND_ADDRESS"] = arguments.bind
    if arguments.probe_bind:
        environ["PROBE_BIND_ADDRESS"] = arguments.probe_bind
    if arguments.workers:
        environ["ENTRA_FAST_WORKERS"] = arguments.workers
    if arguments.no_fast_lane:
        environ["ENTRA_FAST_FAST_LANE"] = "false"
    return sidecar.run(Settings.from_environment(environ, _settings_directory(arguments.settings)))


def _emulator(arguments: argparse.Namespace) -> int:
    _need_extra("dev")
    from entra_fast.cli import dev_system as dev

    options = dev.EmulatorOptions(
        manifests=tuple(arguments.manifests),
        directory=arguments.directory,
        host=arguments.host,
        port=arguments.port,
        generator_url=arguments.generator_url,
        state=arguments.state,
        tls=arguments.tls,
        public_url=arguments.public_url,
        allow_remote=arguments.allow_remote,
    )
    return dev.run_emulator(options)


def _token_generator(arguments: argparse.Namespace) -> int:
    from entra_fast import generator

    environ = dict(os.environ)
    if arguments.bind:
        environ["BIND_ADDRESS"] = arguments.bind
    if arguments.url:
        environ["TOKEN_GENERATOR_URL"] = arguments.url
    if arguments.audience:
        environ["TOKEN_GENERATOR_AUDIENCES"] = " ".join(arguments.audience)
    settings = generator.GeneratorSettings.from_environment(environ, _settings_directory(arguments.settings))
    return generator.run(settings)


# --- the local Entra ID


def _env(arguments: argparse.Namespace) -> int:
    if (arguments.format == "files") != (arguments.output is not None):
        raise _Refused(USAGE, "--format files needs --output DIR, and only it")
    answer = _ask(
        "GET",
        f"{arguments.url.rstrip('/')}/admin/api/applications/{quote(arguments.app, safe=':')}/environment",
        None,
        what="local Entra ID",
        advice="start one with 'entra-fast dev' or say where it is with --url",
        ca=arguments.ca,
    )
    if not all(isinstance(value, str) and _NAME.fullmatch(name) for name, value in answer.items()):
        raise _Refused(UNAVAILABLE, "the answer is no environment: not a local Entra ID?")
    environment = {name: str(value) for name, value in sorted(answer.items())}
    if arguments.format == "json":
        _print_json(environment)
    elif arguments.format == "files":
        _write_files(Path(arguments.output), environment)
    else:
        prefix = "export " if arguments.format == "shell" else ""
        for name, value in environment.items():
            print(_printable(f"{prefix}{name}={shlex.quote(value)}"))
    return OK


def _write_files(folder: Path, environment: Mapping[str, str]) -> None:
    """A file for each variable, as NAIS mounts them; for the owner only, since they are secrets."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, value in environment.items():
            handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
    except OSError as error:
        raise _Refused(USAGE, f"--output: '{folder}' cannot be written: {_reason(error)}") from None
    print(f"{len(environment)} files in {folder}; use them with 'entra-fast serve --settings {folder}'")


def _explain(arguments: argparse.Namespace) -> int:
    _need_extra("dev")
    from entra_fast.cli.dev_system import find_sources
    from entra_fast.emulator import LocalEntraId

    local = LocalEntraId.from_files(*find_sources(arguments.manifests, arguments.directory))
    explanation = local.explain(arguments.consumer, arguments.target, arguments.user)
    if arguments.json:
        _print_json(explanation.document())
    else:
        for line in explanation.lines():
            print(_printable(line))
    return OK if explanation.granted else REFUSED


# --- looking at tokens


def _validate(arguments: argparse.Namespace) -> int:
    token = _read_token(arguments.token)
    logging.getLogger("entra_fast").addHandler(logging.NullHandler())  # the verdict says what there is to say
    with _validator(arguments) as validator:
        failure: InvalidToken | KeysUnavailable | None = None
        claims: dict[str, Any] | None = None
        try:
            claims = validator.validate(token).as_dict()
        except (InvalidToken, KeysUnavailable) as error:
            failure = error
        checks = validator.explain(token) if arguments.explain else None
    if arguments.json:
        result: dict[str, Any] = {"valid": failure is None}
        if failure is None:
            result["claims"] = claims
        else:
            result |= {"code": failure.code, "error": failure.message}
            result |= {name: getattr(failure, name, None) for name in ("expected", "actual")}
        if checks is not None:
            result["checks"] = checks
        _print_json(result)
    elif checks is not None:
        _print_checks(checks)
        print(_printable("valid" if failure is None else f"not valid: {failure.message}"))
    elif failure is None:
        _print_json(claims)
    else:
        compared = [
            f"{name} {getattr(failure, name)}"
            for name in ("expected", "actual")
            if getattr(failure, name, None)
        ]
        _fail(REFUSED, f"{failure.message}{' (' + ', '.join(compared) + ')' if compared else ''}")
    if failure is None:
        return OK
    return REFUSED if isinstance(failure, InvalidToken) else UNAVAILABLE


def _validator(arguments: argparse.Namespace) -> Validator:
    """A validator from the options; what they leave out comes from the environment."""
    from entra_fast.validate import Validator

    options: Options = {"leeway": arguments.leeway, "required_claims": ["iat", *arguments.require]}
    if arguments.algorithm:
        options["algorithms"] = arguments.algorithm
    if arguments.tenant:
        options["tenants"] = arguments.tenant
    if arguments.max_age is not None:
        options["max_age"] = arguments.max_age
    if arguments.well_known is not None:
        if arguments.issuer is not None or arguments.jwks_uri is not None or arguments.jwks is not None:
            raise _Refused(USAGE, "--well-known says where issuer and keys are: leave the other options out")
        audience = arguments.audience or os.environ.get("AZURE_APP_CLIENT_ID")
        if not audience:
            raise _Refused(USAGE, "--audience is missing: for whom must the token be meant?")
        return Validator.from_discovery(arguments.well_known, audience, **options)
    if arguments.jwks_uri is not None:
        options["jwks_uri"] = arguments.jwks_uri
    if arguments.jwks is not None:
        try:
            options["jwks"] = Path(arguments.jwks).read_bytes()
        except OSError as error:
            raise _Refused(USAGE, f"--jwks: '{arguments.jwks}' cannot be read: {_reason(error)}") from None
    if not arguments.issuer and not arguments.audience and not os.environ.get("AZURE_APP_CLIENT_ID"):
        raise _Refused(
            USAGE,
            "whose token for whom? Give --issuer, --audience and --jwks-uri, or --audience, --well-known; "
            'or set the AZURE_* variables: eval "$(entra-fast env APP)"',
        )
    try:
        return Validator(arguments.issuer, arguments.audience, **options)
    except KeysUnavailable as error:  # nothing has been fetched yet: these are the keys of the file
        raise _Refused(USAGE, f"--jwks: {error}") from None


def _print_checks(checks: Sequence[Mapping[str, Any]]) -> None:
    width = max((len(check["check"]) for check in checks), default=0)
    now = time.time()
    for check in checks:
        verdict = {True: "ok     ", False: "FAILED ", None: "skipped"}[check["passed"]]
        shown = check["message"] if check["passed"] is False else check.get("value")
        moment = check.get("actual") if check["passed"] is False else shown
        note = _readable_time_text(moment, now) if check["check"] in _TIME_CHECKS else ""
        print(
            _printable(
                f"{verdict}  {check['check']:<{width}}  {'' if shown is None else shown}{note}".rstrip()
            )
        )
        if check["passed"] is False:
            for name in ("expected", "actual"):
                if check.get(name) is not None:
                    print(_printable(f"{'':<{width + 11}}{name}: {check[name]}"))


def _inspect(arguments: argparse.Namespace) -> int:
    from entra_fast import _native

    token = _read_token(arguments.token)
    header, claims = _native.unverified_header(token), _native.unverified_claims(token)
    if arguments.json:
        _print_json({"verified": False, "header": header, "claims": claims})
        return OK
    print("NOT VERIFIED. Anybody can write such a token: neither its signature nor any claim was checked.")
    print("To check it: entra-fast validate\n")
    now = time.time()
    for title, members in (("header", header), ("claims", claims)):
        print(title)
        width = max((len(_printable(name)) for name in members), default=0)
        for name, value in members.items():
            note = _readable_time(value, now) if title == "claims" and name in _TIME_CLAIMS else ""
            print(f"  {_printable(name):<{width}}  {_printable(json.dumps(value, ensure_ascii=False))}{note}")
        print()
    return OK


# --- asking a sidecar


def _token(arguments: argparse.Namespace) -> int:
    fields = {"target": arguments.target, "skip_cache": arguments.skip_cache}
    answer = _ask_sidecar(arguments, "NAIS_TOKEN_ENDPOINT", "/api/v1/token", fields)
    return _show_grant(answer, arguments.json)


def _exchange(arguments: argparse.Namespace) -> int:
    fields = {
        "target": arguments.target,
        "user_token": _read_token(arguments.token),
        "skip_cache": arguments.skip_cache,
    }
    answer = _ask_sidecar(arguments, "NAIS_TOKEN_EXCHANGE_ENDPOINT", "/api/v1/token/exchange", fields)
    return _show_grant(answer, arguments.json)


def _introspect(arguments: argparse.Namespace) -> int:
    from entra_fast._native import ERROR_CODES

    fields = {"token": _read_token(arguments.token)}
    answer = _ask_sidecar(arguments, "NAIS_TOKEN_INTROSPECTION_ENDPOINT", "/api/v1/introspect", fields)
    _print_json(answer)
    if str(answer.get("error", "")).startswith(ERROR_CODES["keys_unavailable"]):
        return UNAVAILABLE
    return OK if answer.get("active") is True else REFUSED


def _show_grant(answer: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        _print_json(answer)
        return OK
    token = answer.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise _Refused(UNAVAILABLE, "the sidecar's answer has no usable 'access_token'")
    print(token)
    return OK


def _ask_sidecar(
    arguments: argparse.Namespace, variable: str, path: str, fields: Mapping[str, object]
) -> dict[str, Any]:
    """POST JSON to the sidecar of --url or of the variable that NAIS sets; its JSON answer."""
    url = arguments.url or os.environ.get(variable) or f"{_SIDECAR}{path}"
    fields = {"identity_provider": arguments.identity_provider, **fields}
    advice = "start one with 'entra-fast dev' or say where it is with --url"
    return _ask("POST", url, json.dumps(fields).encode(), what="sidecar", advice=advice)


def _ask(
    method: str, url: str, body: bytes | None, *, what: str, advice: str, ca: str | None = None
) -> dict[str, Any]:
    """One request; the JSON object that answers it. No proxy and no redirects: the other side is near."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == -1:
        raise _Refused(USAGE, f"the {what}'s address must be a URL that starts with http:// or https://")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = _trusting(ca)
        connection = http.client.HTTPSConnection(
            parts.hostname, port, timeout=_TIMEOUT_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=_TIMEOUT_SECONDS)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Accept": "application/json"} | (
        {"Content-Type": "application/json"} if body is not None else {}
    )
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read(_MAX_ANSWER_BYTES + 1)
    except TimeoutError:
        raise _Refused(
            UNAVAILABLE, f"no answer from {parts.netloc} within {_TIMEOUT_SECONDS:.0f} s"
        ) from None
    except ssl.SSLError as error:
        raise _Refused(
            UNAVAILABLE, f"the certificate of {parts.netloc} is not accepted ({error.reason or 'TLS failed'})"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Refused(
            UNAVAILABLE, f"no {what} answers at {parts.netloc} ({_reason(error)}); {advice}"
        ) from None
    except ValueError:  # a character that no URL has
        raise _Refused(USAGE, f"the {what}'s address has characters that must be escaped") from None
    finally:
        connection.close()
    try:
        answer = json.loads(content) if len(content) <= _MAX_ANSWER_BYTES else None
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise _Refused(
            UNAVAILABLE, f"{parts.netloc} answered {response.status} without a JSON object: not a {what}?"
        )
    if response.status in {404, 405} and answer.get("error") != "server_error":  # which is the provider's 404
        raise _Refused(
            UNAVAILABLE, f"{parts.netloc} answered {response.status} for {parts.path or '/'}: not a {what}?"
        )
    if response.status != 200:
        sentence = f"{answer.get('error', '?')}: {answer.get('error_description', '')}"
        # A status of 500 and more says nothing about the request. Entra ID's sentences have line breaks.
        raise _Refused(
            UNAVAILABLE if response.status >= 500 else REFUSED,
            f"{response.status} {' '.join(sentence.split())}",
        )
    return answer


def _trusting(ca: str | None) -> ssl.SSLContext:
    """What TLS trusts: the system's authorities, or the ones in a file."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise _Refused(USAGE, f"--ca: '{ca}' is not a file with certificates: {_reason(error)}") from None


# --- shared by the commands


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


class _Refused(Exception):
    """Ends a command with one line on standard error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _fail(status: int, message: str) -> int:
    print(f"entra-fast: {_printable(message)}", file=sys.stderr)
    return status


def _drop_output() -> None:
    """What is still to be written goes nowhere, and not into a second error when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _need_extra(extra: str) -> None:
    """One line instead of a traceback when the development extra is not installed."""
    try:
        import pydantic  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise _Refused(
            USAGE, f"this command needs '{error.name}': pip install 'entra-fast[{extra}]'"
        ) from None


def _settings_directory(given: str | None) -> Path | None:
    """Where settings may be mounted as files; None leaves the choice to `config`."""
    if given is not None and not Path(given).is_dir():
        raise _Refused(USAGE, f"--settings: '{given}' is not a directory")
    return None if given is None else Path(given)


def _read_token(argument: str | None) -> str:
    """The token of an argument or of standard input, without white space around it and without 'Bearer '."""
    if argument in {None, "-"}:
        if argument is None and sys.stdin.isatty():
            raise _Refused(USAGE, "no token: give it as an argument or on standard input")
        data = sys.stdin.buffer.read(_MAX_INPUT_BYTES + 1)
        if len(data) > _MAX_INPUT_BYTES:
            raise _Refused(USAGE, f"standard input is longer than {_MAX_INPUT_BYTES} bytes: not a token")
        argument = data.decode("utf-8", "replace")
    assert argument is not None  # noqa: S101 - for the type checker
    token = argument.strip()
    scheme, _, rest = token.partition(" ")
    if scheme.lower() == "bearer":
        token = rest.strip()
    if not token:
        raise _Refused(USAGE, "no token: standard input was empty")
    return token


def _printable(text: str) -> str:
    """The text with everything escaped that a terminal would act upon: control and format characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _print_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    print("\n".join(_json_escaped(line) for line in text.split("\n")))


def _json_escaped(line: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _readable_time(value: object, now: float) -> str:
    """`  2026-01-01 12:00:00 UTC, 5 min ago` for a NumericDate (RFC 7519, section 2); else nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST_SHOWN:
        return ""
    moment = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    distance = value - now
    return f"   {moment}, {'in ' + _span(distance) if distance >= 0 else _span(-distance) + ' ago'}"


def _readable_time_text(text: object, now: float) -> str:
    try:
        return _readable_time(float(str(text)), now)
    except ValueError:
        return ""


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


# --- arguments


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Descriptions and examples as they are written, and enough room for the longest command's name."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22)


class _Version(argparse.Action):
    """Prints the version of the native module that actually runs, and what it runs on."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        from entra_fast import _native

        python = ".".join(map(str, sys.version_info[:3]))
        print(f"entra-fast {_native.__version__} ({sys.implementation.name} {python})")
        parser.exit(OK)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="entra-fast",
        description="Validates Entra ID tokens, serves tokens to NAIS applications, and stands in for\n"
        "Entra ID on a laptop.",
        epilog="start here:\n"
        "  entra-fast dev                      the whole system on this machine, with commands to paste\n"
        "  entra-fast COMMAND --help           arguments, settings and examples of one command\n\n"
        + _EXIT_STATUSES,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], summary: str, text: str
    ) -> argparse.ArgumentParser:
        description, _, epilog = text.partition("\n\n")
        added = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=epilog,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    _add_servers(command)
    _add_token_tools(command)
    _add_sidecar_clients(command)
    _add_emulator_tools(command)
    return parser


_Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]


def _add_servers(command: _Command) -> None:
    dev = command(
        "dev",
        _dev,
        "a local Entra ID, token generator and sidecars in one process",
        """Start a local Entra ID filled from NAIS manifests, the token generator, and a sidecar
for the first application (or for each --app), all on loopback. Prints the addresses and
commands to paste. Ctrl-C stops it.

examples:
  entra-fast dev
  entra-fast dev --manifests .nais/ --app dev-gcp:my-team:my-app
  entra-fast dev --app dev-gcp:team-a:app-a --app dev-gcp:team-b:app-b   # on 7164 and 7166
""",
    )
    _add_manifest_options(dev)
    dev.add_argument(
        "--app",
        action="append",
        default=[],
        metavar="CLUSTER:NAMESPACE:NAME",
        help="an application that gets a sidecar; may be repeated (default: the first in the manifests)",
    )
    dev.add_argument(
        "--host", default="127.0.0.1", help="loopback address for all of them (default: %(default)s)"
    )
    dev.add_argument(
        "--emulator-port",
        type=_port,
        default=8080,
        metavar="PORT",
        help="the local Entra ID (default: %(default)s)",
    )
    dev.add_argument(
        "--generator-port",
        type=_port,
        default=8081,
        metavar="PORT",
        help="the token generator (default: %(default)s)",
    )
    dev.add_argument(
        "--sidecar-port",
        type=_port,
        default=7164,
        metavar="PORT",
        help="the first sidecar; its probes take the next port, further sidecars the ports after "
        "(default: %(default)s)",
    )

    _add_tls_option(dev)

    serve = command(
        "serve",
        _serve,
        "the sidecar: tokens and introspection for one application",
        """Serve /api/v1/token, /api/v1/token/exchange and /api/v1/introspect to the application in
this pod. All settings come from the environment as NAIS injects it, or from files of the
same names in a directory; docs/settings.md lists them.

examples:
  BIND_ADDRESS=127.0.0.1:7164 PROBE_BIND_ADDRESS=0.0.0.0:7165 entra-fast serve
  entra-fast serve --settings /var/run/secrets/nais.io/azure

SIGTERM finishes what is under way and exits with 0; a second signal stops at once.
""",
    )
    serve.add_argument(
        "--bind", metavar="HOST:PORT", help="instead of BIND_ADDRESS (default: 127.0.0.1:3000)"
    )
    serve.add_argument(
        "--probe-bind", metavar="HOST:PORT", help="instead of PROBE_BIND_ADDRESS: probes and metrics"
    )
    serve.add_argument(
        "--workers",
        metavar="N",
        help="instead of ENTRA_FAST_WORKERS: processes that serve as one (default: 1)",
    )
    serve.add_argument(
        "--no-fast-lane", action="store_true", help="answer every request through aiohttp (slower)"
    )
    _add_settings_option(serve)

    emulator = command(
        "emulator",
        _emulator,
        "the local Entra ID alone",
        """Start a local Entra ID filled from NAIS manifests, with their access policies. Prints its
address. Manifests are read again when they change. For development only: anybody can log in
as anybody.

examples:
  entra-fast emulator --manifests .nais/ --directory users.yaml
  entra-fast emulator --state .entra-fast       # keys and secrets stay the same over restarts
  entra-fast emulator --host 0.0.0.0 --allow-remote --public-url http://entra:8080
""",
    )
    _add_manifest_options(emulator)
    emulator.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    emulator.add_argument("--port", type=_port, default=8080, help="0 for a free one (default: %(default)s)")
    emulator.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow an address that is not loopback: whoever reaches it is anybody",
    )
    emulator.add_argument(
        "--public-url", metavar="URL", help="its address as clients know it, if that is another"
    )
    _add_tls_option(emulator)
    emulator.add_argument(
        "--state", metavar="DIR", help="keep keys, secrets and sessions there over restarts"
    )
    emulator.add_argument(
        "--generator-url",
        metavar="URL",
        default="http://127.0.0.1:8081",
        help="where a token generator receives its logins (default: %(default)s)",
    )

    generator = command(
        "token-generator",
        _token_generator,
        "web pages and routes that hand out tokens for trying APIs out",
        """Serve the token generator: GET /api/obo and /api/m2m behind a login, POST /api/public/m2m
without one. It is an application like any other: register <url>/oauth2/callback as its
redirect URI, and let the targets admit it.

settings, beside the AZURE_* variables of the sidecar:
  BIND_ADDRESS               where to listen (default: 127.0.0.1:8081)
  TOKEN_GENERATOR_URL        its address as browsers see it (default: http://<BIND_ADDRESS>)
  TOKEN_GENERATOR_AUDIENCES  audiences to list on the start page, separated by white space or commas

example:
  TOKEN_GENERATOR_URL=https://token-generator.example entra-fast token-generator --bind 0.0.0.0:8080
""",
    )
    generator.add_argument("--bind", metavar="HOST:PORT", help="instead of BIND_ADDRESS")
    generator.add_argument("--url", help="instead of TOKEN_GENERATOR_URL")
    generator.add_argument(
        "--audience",
        action="append",
        default=[],
        metavar="AUDIENCE",
        help="list it on the start page; may be repeated",
    )
    _add_settings_option(generator)


def _add_token_tools(command: _Command) -> None:
    validate = command(
        "validate",
        _validate,
        "is this token valid, and if not, why",
        """Validate a token: signature, issuer, audience and times. Prints its claims, or why it is
refused. Issuer, audience and keys come from the options; without any, from the AZURE_*
variables, as NAIS sets them.

examples:
  entra-fast validate < token.txt
  entra-fast validate --explain eyJ0eXAiOi...
  entra-fast validate --issuer https://issuer.example --audience me --jwks keys.json < token.txt
  entra-fast validate --audience <client id> --well-known \\
    https://login.microsoftonline.com/<tenant>/v2.0/.well-known/openid-configuration < token.txt
""",
    )
    validate.add_argument("token", nargs="?", help=_TOKEN_HELP)
    validate.add_argument("--explain", action="store_true", help="show every check in turn, with its values")
    validate.add_argument(
        "--json", action="store_true", help="one JSON object: valid, claims or code and error"
    )
    validate.add_argument("--well-known", metavar="URL", help="discovery document, for issuer and keys")
    validate.add_argument("--issuer", metavar="ISS", help="accepted issuer, compared exactly")
    validate.add_argument("--jwks-uri", metavar="URL", help="where the keys are")
    validate.add_argument("--jwks", metavar="FILE", help="a file with the keys (a JWK set)")
    validate.add_argument(
        "--audience", action="append", metavar="AUD", help="accepted audience; may be repeated"
    )
    validate.add_argument(
        "--algorithm",
        action="append",
        metavar="ALG",
        help="accepted algorithm; may be repeated (default: RS256)",
    )
    validate.add_argument(
        "--tenant", action="append", metavar="GUID", help="accepted tenant; may be repeated"
    )
    validate.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="CLAIM",
        help="a claim that must be there; may be repeated",
    )
    validate.add_argument(
        "--leeway",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="clock skew allowed (default: %(default)s)",
    )
    validate.add_argument("--max-age", type=float, metavar="SECONDS", help="refuse tokens issued longer ago")

    inspect = command(
        "inspect",
        _inspect,
        "show what a token says, without checking anything",
        """Show a token's header and claims, with times made readable. Nothing is verified: never
decide anything by it.

examples:
  entra-fast inspect < token.txt
  entra-fast token dev-gcp:team-b:app-b | entra-fast inspect --json
""",
    )
    inspect.add_argument("token", nargs="?", help=_TOKEN_HELP)
    inspect.add_argument(
        "--json", action="store_true", help="one JSON object: verified (false), header, claims"
    )


def _add_emulator_tools(command: _Command) -> None:
    explain = command(
        "explain",
        _explain,
        "would the manifests' policies grant this token, and why (not)",
        """Decide, by the same rules as the local Entra ID, whether an application gets a token for
another one: as itself, or on behalf of a user. Shows each check with the line of the
manifest that it rests on, and what to change. Exit status 0: granted, 1: refused.

examples:
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b
  entra-fast explain dev-gcp:team-a:app-a dev-gcp:team-b:app-b --user ada@trygdeetaten.no
""",
    )
    explain.add_argument("consumer", help="the application that asks: '<cluster>:<namespace>:<app>'")
    explain.add_argument("target", help="the application that the token is for")
    explain.add_argument("--user", help="on behalf of this user: sign-in name, NAV ident or object id")
    explain.add_argument("--json", action="store_true", help="the decision as one JSON object")
    _add_manifest_options(explain)

    env = command(
        "env",
        _env,
        "the environment of an application, to run any program against the local Entra ID",
        """Print the variables that NAIS would inject into an application (AZURE_APP_CLIENT_ID,
AZURE_APP_JWK, ...), as a running local Entra ID knows them. They are secrets of that local
Entra ID, and worth nothing elsewhere.

examples:
  eval "$(entra-fast env dev-gcp:team-a:app-a)" && ./my-program
  entra-fast env dev-gcp:team-a:app-a --format dotenv > .env
  entra-fast env dev-gcp:team-a:app-a --format files --output secrets/azure
""",
    )
    env.add_argument("app", metavar="APP", help="'<cluster>:<namespace>:<app>' or a client id")
    env.add_argument(
        "--format",
        choices=("shell", "dotenv", "json", "files"),
        default="shell",
        help="default: %(default)s (export lines)",
    )
    env.add_argument("--output", metavar="DIR", help="where --format files puts them")
    env.add_argument("--url", default=_EMULATOR, help="the local Entra ID (default: %(default)s)")
    env.add_argument(
        "--ca", metavar="FILE", help="certificate authority to trust, for a local Entra ID with --tls"
    )


def _add_sidecar_clients(command: _Command) -> None:
    token = command(
        "token",
        _token,
        "get a token from a running sidecar",
        """Ask the sidecar at $NAIS_TOKEN_ENDPOINT (http://127.0.0.1:7164/api/v1/token if unset) for
a machine-to-machine token.

examples:
  entra-fast token dev-gcp:team-b:app-b
  curl -H "Authorization: Bearer $(entra-fast token dev-gcp:team-b:app-b)" http://127.0.0.1:9000/
""",
    )
    exchange = command(
        "exchange",
        _exchange,
        "exchange a user's token at a running sidecar",
        """Ask the sidecar at $NAIS_TOKEN_EXCHANGE_ENDPOINT (http://127.0.0.1:7164/api/v1/token/exchange
if unset) for a token on behalf of the user whose token is given. The user's token must be
meant for the sidecar's own application.

example:
  entra-fast exchange dev-gcp:team-b:app-b < user-token.txt
""",
    )
    for added in (token, exchange):
        added.add_argument(
            "target", help="'<cluster>:<namespace>:<app>' or a scope such as 'api://.../.default'"
        )
        if added is exchange:
            added.add_argument("token", nargs="?", help=_TOKEN_HELP)
        added.add_argument("--skip-cache", action="store_true", help="fetch a new token, for everybody")
        added.add_argument(
            "--json", action="store_true", help="the sidecar's whole answer instead of the bare token"
        )
        _add_sidecar_options(added)
    introspect = command(
        "introspect",
        _introspect,
        "ask a running sidecar whether a token is valid",
        """Ask the sidecar at $NAIS_TOKEN_INTROSPECTION_ENDPOINT (http://127.0.0.1:7164/api/v1/introspect
if unset) about a token. Prints its JSON answer; the exit status is 0 if the token is active,
1 if it is not, and 3 if the sidecar has no keys to judge it by.

example:
  entra-fast token dev-gcp:team-a:app-a | entra-fast introspect
""",
    )
    introspect.add_argument("token", nargs="?", help=_TOKEN_HELP)
    _add_sidecar_options(introspect)


def _add_sidecar_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the sidecar's endpoint, instead of the environment variable")
    parser.add_argument(
        "--identity-provider",
        default="entra_id",
        metavar="NAME",
        help="default: %(default)s (older name: azuread)",
    )


def _add_tls_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tls",
        nargs="?",
        const="",
        metavar="DIR",
        help="serve the local Entra ID over https, with an authority of its own that is kept in DIR "
        "(default: a folder in the user's cache); prints how to trust it",
    )


def _add_settings_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings",
        metavar="DIR",
        help="read what the environment lacks from files here (default: $ENTRA_FAST_SETTINGS_DIRECTORY, "
        "else /var/run/secrets/nais.io/azure)",
    )


def _add_manifest_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifests",
        action="append",
        default=[],
        metavar="[CLUSTER=]PATH",
        help="a file or folder of NAIS Application manifests; may be repeated "
        "(default: ./examples/manifests, else the packaged examples)",
    )
    parser.add_argument(
        "--directory",
        metavar="FILE",
        help="users and groups (default: directory.yaml beside the manifests, else the examples' own)",
    )


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port number (0 to 65535)")
    return port


if __name__ == "__main__":
    sys.exit(main())
