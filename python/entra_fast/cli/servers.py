# ruff: noqa: PLC0415 - each command imports what it runs when it runs
"""The commands that serve until they are stopped: dev, serve, emulator, token-generator.

What belongs here: their options, and how options take precedence over the environment.
"""

from __future__ import annotations

import argparse
import os
import signal

from entra_fast import _extras
from entra_fast.cli.options import add_manifest_options, add_settings_option, settings_directory
from entra_fast.cli.terminal import OK, USAGE, AddCommand, CommandError


def _dev(arguments: argparse.Namespace) -> int:
    _extras.need("dev")
    from entra_fast.cli import dev_run, dev_system

    options = dev_system.Options(
        manifests=tuple(arguments.manifests),
        directory=arguments.directory,
        apps=tuple(arguments.app),
        host=arguments.host,
        emulator_port=arguments.emulator_port,
        generator_port=arguments.generator_port,
        sidecar_port=arguments.sidecar_port,
        tls=arguments.tls,
    )
    return dev_run.run(options, as_json=arguments.json)


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.check:
        from entra_fast.cli.doctor import command

        environ, directory = _sidecar_environment(arguments), settings_directory(arguments.settings)
        return command.run(environ, directory, as_json=arguments.json)
    if arguments.json:
        raise CommandError(USAGE, "--json needs --check")
    _extras.need("server")
    # Until the sidecar handles signals itself, there is nothing to drain. As PID 1, a process without a
    # handler would ignore SIGTERM (signal(7)).
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(OK))
    try:
        return _run_sidecar(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_sidecar(arguments: argparse.Namespace) -> int:
    from entra_fast.sidecar.process.aiohttp_import import import_aiohttp

    import_aiohttp()
    from entra_fast._settings.load import Settings
    from entra_fast.sidecar.process import single

    directory = settings_directory(arguments.settings)
    return single.run(Settings.from_environment(_sidecar_environment(arguments), directory))


def _sidecar_environment(arguments: argparse.Namespace) -> dict[str, str]:
    """The environment, with the options in place of the variables."""
    from entra_fast._settings import catalogue

    environ = dict(os.environ)
    for setting, value in (
        (catalogue.BIND_ADDRESS, arguments.bind),
        (catalogue.PROBE_BIND_ADDRESS, arguments.probe_bind),
        (catalogue.WORKERS, arguments.workers),
        (catalogue.FAST_PATH, "false" if arguments.no_fast_path else None),
    ):
        if value:
            environ[setting.name] = value
    return environ


def _emulator(arguments: argparse.Namespace) -> int:
    _extras.need("dev")
    from entra_fast.cli import dev_run

    options = dev_run.EmulatorOptions(
        manifests=tuple(arguments.manifests),
        directory=arguments.directory,
        host=arguments.host,
        port=arguments.port,
        generator_url=arguments.generator_url,
        signing_algorithm=arguments.signing_algorithm,
        exact_discovery=arguments.exact_discovery,
        subject_issuers=tuple(arguments.subject_issuer),
        level_names=arguments.level_names,
        state=arguments.state,
        tls=arguments.tls,
        public_url=arguments.public_url,
        allow_remote=arguments.allow_remote,
        admin_token=arguments.admin_token,
    )
    return dev_run.run_emulator(options)


def _token_generator(arguments: argparse.Namespace) -> int:
    _extras.need("dev")
    from entra_fast import generator

    environ = dict(os.environ)
    for name, value in (
        ("BIND_ADDRESS", arguments.bind),
        ("TOKEN_GENERATOR_URL", arguments.url),
        ("TOKEN_GENERATOR_AUDIENCES", " ".join(arguments.audience)),
    ):
        if value:
            environ[name] = value
    directory = settings_directory(arguments.settings)
    if arguments.provider == "tokenx":
        return generator.run(generator.TokenXGeneratorSettings.from_environment(environ, directory))
    return generator.run(generator.GeneratorSettings.from_environment(environ, directory))


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port number (0 to 65535)")
    return port


def add_commands(add: AddCommand) -> None:
    _add_dev(add)
    _add_serve(add)
    _add_emulator(add)
    _add_token_generator(add)


def _add_dev(add: AddCommand) -> None:
    parser = add(
        "dev",
        _dev,
        "run all local providers, token generators and sidecars",
        """Run the local providers (Entra ID, TokenX, Maskinporten, ID-porten) with the applications of
your NAIS manifests, the token generators, and a sidecar for the first application (or for
each --app), which serves all providers of its manifest; all on loopback. Prints their
addresses and commands to try. Ctrl-C stops everything.

examples:
  entra-fast dev
  entra-fast dev --manifests .nais/ --app dev-gcp:my-team:my-app
  entra-fast dev --app dev-gcp:team-a:app-a --app dev-gcp:team-b:app-b   # on ports 7164 and 7166
""",
    )
    parser.add_argument(
        "--app",
        action="append",
        default=[],
        metavar="CLUSTER:NAMESPACE:NAME",
        help="application that gets a sidecar; may be repeated (default: the first in the manifests)",
    )
    add_manifest_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="when everything runs, print one line of JSON: the addresses"
    )
    addresses = parser.add_argument_group("addresses")
    addresses.add_argument(
        "--host", default="127.0.0.1", help="loopback address of all servers (default: %(default)s)"
    )
    for option, default, text in (
        ("--emulator-port", 8080, "port of the local Entra ID"),
        ("--generator-port", 8081, "port of the token generator; the one for TokenX uses the next port"),
        (
            "--sidecar-port",
            7164,
            "port of the first sidecar; its probes use the next port, further sidecars the ports after that",
        ),
    ):
        addresses.add_argument(
            option, type=_port, default=default, metavar="PORT", help=f"{text} (default: %(default)s)"
        )
    _add_tls_option(addresses)


def _add_serve(add: AddCommand) -> None:
    parser = add(
        "serve",
        _serve,
        "run the sidecar of an application",
        """Serve /api/v1/token, /api/v1/token/exchange and /api/v1/introspect to the application in
this pod. Settings come from the environment as NAIS injects it, or from files of the same
names in a directory; docs/reference/settings.md lists them.

examples:
  BIND_ADDRESS=127.0.0.1:7164 PROBE_BIND_ADDRESS=0.0.0.0:7165 entra-fast serve
  entra-fast serve --settings /var/run/secrets/nais.io/azure
  entra-fast serve --check     # what is wrong? like entra-fast doctor

SIGTERM finishes the requests in progress and exits with 0; a second signal stops at once.
""",
    )
    add_settings_option(parser)
    parser.add_argument(
        "--check", action="store_true", help="do not serve: check everything that the sidecar needs, and exit"
    )
    parser.add_argument("--json", action="store_true", help="with --check: print one JSON object")
    overrides = parser.add_argument_group("options that take precedence over settings")
    overrides.add_argument(
        "--bind", metavar="HOST:PORT", help="address of the API: BIND_ADDRESS (default: 127.0.0.1:3000)"
    )
    overrides.add_argument(
        "--probe-bind", metavar="HOST:PORT", help="address of probes and metrics: PROBE_BIND_ADDRESS"
    )
    overrides.add_argument(
        "--workers", metavar="N", help="number of processes: ENTRA_FAST_WORKERS (default: 1)"
    )
    overrides.add_argument(
        "--no-fast-path",
        action="store_true",
        help="answer every request through aiohttp, which is slower: ENTRA_FAST_FAST_PATH=false",
    )
    overrides.add_argument(  # the older name
        "--no-fast-lane", action="store_true", dest="no_fast_path", help=argparse.SUPPRESS
    )


def _add_emulator(add: AddCommand) -> None:
    parser = add(
        "emulator",
        _emulator,
        "run only the local providers",
        """Run a local Entra ID, TokenX, Maskinporten and ID-porten with the applications and access
policies of your NAIS manifests, and print their address. Changed manifests are reloaded. For
development only: anyone can sign in as any user.

examples:
  entra-fast emulator --manifests .nais/ --directory users.yaml
  entra-fast emulator --state .entra-fast       # keep keys and secrets when restarted
  entra-fast emulator --host 0.0.0.0 --allow-remote --public-url http://entra:8080
""",
    )
    add_manifest_options(parser)
    parser.add_argument("--state", metavar="DIR", help="directory that keeps keys, secrets and sessions")
    parser.add_argument(
        "--signing-algorithm",
        metavar="NAME",
        default="RS256",
        help="algorithm that tokens are signed with: RS256, or ML-DSA-44, -65 or -87 (default: %(default)s)",
    )
    parser.add_argument(
        "--exact-discovery",
        action="store_true",
        help="leave out of the discovery document what Entra ID's does not have, such as PKCE methods",
    )
    parser.add_argument(
        "--generator-url",
        metavar="URL",
        default="http://127.0.0.1:8081",
        help="address of a token generator, which is allowed as redirect URI (default: %(default)s)",
    )
    tokenx = parser.add_argument_group("the local TokenX")
    tokenx.add_argument(
        "--subject-issuer",
        action="append",
        default=[],
        metavar="URL",
        help="discovery document of a further issuer whose tokens it exchanges; may be repeated",
    )
    tokenx.add_argument(
        "--level-names",
        action="store_true",
        help="write Level3 and Level4 for idporten-loa-substantial and idporten-loa-high",
    )
    addresses = parser.add_argument_group("addresses")
    addresses.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    addresses.add_argument(
        "--port", type=_port, default=8080, help="port; 0 for a free one (default: %(default)s)"
    )
    addresses.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow an address other than loopback: anyone who reaches it can sign in as any user",
    )
    addresses.add_argument(
        "--admin-token",
        metavar="TOKEN",
        help="token for the console and /admin/api, 16 to 256 letters, digits, -, ., _ or ~ (default: with "
        "--allow-remote, a new one, which is printed; otherwise nothing)",
    )
    addresses.add_argument(
        "--public-url", metavar="URL", help="address that clients use, if it differs from --host and --port"
    )
    _add_tls_option(addresses)


def _add_token_generator(add: AddCommand) -> None:
    parser = add(
        "token-generator",
        _token_generator,
        "run the token generator, for trying out APIs",
        """Serve the token generator: GET /api/obo and /api/m2m require a sign-in, POST /api/public/m2m
does not. Register it as an application with <url>/oauth2/callback as redirect URI, and add
it to the access policies of the APIs that it gets tokens for.

settings, in addition to the AZURE_* variables of the sidecar:
  BIND_ADDRESS               address to listen on (default: 127.0.0.1:8081)
  TOKEN_GENERATOR_URL        address that browsers use (default: http://<BIND_ADDRESS>)
  TOKEN_GENERATOR_AUDIENCES  audiences on the start page, separated by white space or commas

With --provider tokenx, users log in at ID-porten, and TokenX exchanges their tokens: GET
/api/obo requires a login, POST /api/public/obo does not. Its settings are TOKEN_X_*,
IDPORTEN_CLIENT_ID, IDPORTEN_CLIENT_JWK, IDPORTEN_WELL_KNOWN_URL and
TOKEN_GENERATOR_FAKE_LOGIN_URL; it listens on 127.0.0.1:8082.

examples:
  TOKEN_GENERATOR_URL=https://token-generator.example entra-fast token-generator --bind 0.0.0.0:8080
  entra-fast token-generator --provider tokenx
""",
    )
    parser.add_argument(
        "--provider",
        choices=("entra_id", "tokenx"),
        default="entra_id",
        metavar="NAME",
        help="whose tokens: entra_id or tokenx (default: %(default)s)",
    )
    add_settings_option(parser)
    overrides = parser.add_argument_group("options that take precedence over settings")
    overrides.add_argument("--bind", metavar="HOST:PORT", help="address to listen on: BIND_ADDRESS")
    overrides.add_argument("--url", help="address that browsers use: TOKEN_GENERATOR_URL")
    overrides.add_argument(
        "--audience",
        action="append",
        default=[],
        metavar="AUDIENCE",
        help="audience on the start page; may be repeated: TOKEN_GENERATOR_AUDIENCES",
    )


def _add_tls_option(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--tls",
        nargs="?",
        const="",
        metavar="DIR",
        help="serve the local Entra ID over https, with a certificate authority stored in DIR "
        "(default: a directory in the user's cache); prints how to trust it",
    )
