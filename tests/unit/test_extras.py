"""The extras: what each installs, and the sentence for one that is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from entra_fast import _extras
from entra_fast.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED: dict[str, list[str]] = PROJECT["optional-dependencies"]

COMMANDS = {
    "dev": ["dev"],
    "emulator": ["emulator"],
    "token-generator": ["token-generator"],
    "explain": ["explain", "dev-gcp:a:a", "dev-gcp:b:b"],
    "serve": ["serve"],
    "doctor": ["doctor"],
    "completion": ["completion", "bash"],
}
EXTRA_OF = {"serve": "server", "doctor": "server", "completion": "completion"}
"""Those of the others are in `dev`."""
NOWHERE = ["--url", "http://127.0.0.1:1/"]
WITHOUT_EXTRA = {
    "validate": (["--issuer", "i", "--audience", "a", "--jwks-uri", "http://127.0.0.1:1/", "a.b.c"], 1),
    "inspect": (["a.b.c"], 1),
    "token": (["a:b:c", *NOWHERE], 3),
    "exchange": (["a:b:c", "token", *NOWHERE], 3),
    "introspect": (["token", *NOWHERE], 3),
    "health": (NOWHERE, 3),
    "env": (["a:b:c", *NOWHERE], 3),
    "bench": (["token", "a:b:c", *NOWHERE], 3),
    "roundtrip": (NOWHERE, 3),
    "forge": (["a:b:c", *NOWHERE], 3),
}
"""Commands that need no extra: arguments, and the exit status with them."""

SMALL = """
import sys

for name in {hidden!r}:
    sys.modules[name] = None
"""
"""What a program begins with in which some modules are not installed."""


def packages(extra: str) -> set[str]:
    """The packages that an extra of pyproject.toml installs, through other extras too."""
    found: set[str] = set()
    for requirement in DECLARED[extra]:
        inner = re.fullmatch(r"entra-fast\[(\w+)\]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        found |= {name[0]} if inner is None else packages(inner[1])
    return found


def run(program: str, *arguments: str, hidden: set[str]) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter in which some modules are not installed."""
    return subprocess.run(
        [sys.executable, "-c", SMALL.format(hidden=sorted(hidden)) + program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_library_needs_orjson_only() -> None:
    """No web server, and no pin that another package of a service could contradict."""
    assert [re.split(r"[^\w.-]", requirement)[0] for requirement in PROJECT["dependencies"]] == ["orjson"]


@pytest.mark.parametrize("extra", DECLARED)
def test_the_sentence_knows_what_each_extra_installs(extra: str) -> None:
    """_extras.py has the packages of pyproject.toml, but uvloop, without which servers run."""
    assert set(_extras.EXTRAS[extra]) == packages(extra) - {"uvloop"}
    assert set(_extras.EXTRAS) == set(DECLARED)


def test_the_guide_lists_every_extra() -> None:
    """In its table."""
    table = (ROOT / "docs" / "guides" / "install.md").read_text().partition("\n## ")[0]
    listed = {name for names in re.findall(r"\[([\w,]+)\]", table) for name in names.split(",")}
    assert listed == set(DECLARED)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_its_extra_is_one_line(command: str) -> None:
    """Without all of its packages or any one: the command that installs it; status 2."""
    extra = EXTRA_OF.get(command, "dev")
    modules = set(_extras.EXTRAS[extra].values())
    for hidden in [modules, *({module} for module in modules)]:
        program = "from entra_fast.cli.main import main; sys.exit(main(sys.argv[1:]))"
        done = run(program, *COMMANDS[command], hidden=hidden)
        package = next(name for name, module in _extras.EXTRAS[extra].items() if module in hidden)
        assert done.stderr == (
            f"entra-fast: this command needs the package '{package}': pip install 'entra-fast[{extra}]'\n"
        )
        assert (done.returncode, done.stdout) == (2, "")


def test_every_command_is_known_here() -> None:
    """A new command belongs in one of the two lists above."""
    shown = run("from entra_fast.cli.main import main; main(['--help'])", hidden=set()).stdout
    listed = re.findall(r"^    ([a-z][a-z-]+)(?:  |$)", shown.partition("commands:")[2], re.MULTILINE)
    assert set(listed) == set(COMMANDS) | set(WITHOUT_EXTRA)


@pytest.mark.parametrize("command", WITHOUT_EXTRA)
def test_other_commands_need_no_extra(command: str) -> None:
    """They do what they can with the small library."""
    arguments, status = WITHOUT_EXTRA[command]
    hidden = {module for modules in _extras.EXTRAS.values() for module in modules.values()} | {"uvloop"}
    program = "from entra_fast.cli.main import main; sys.exit(main(sys.argv[1:]))"
    done = run(program, command, *arguments, hidden=hidden)
    assert done.returncode == status, done.stderr
    assert "pip install" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "extra", "what"),
    [
        ("entra_fast.generator", "dev", "the token generator"),
        ("entra_fast.emulator", "dev", "the local Entra ID"),
    ],
)
def test_a_module_without_its_extra_says_so(module: str, extra: str, what: str) -> None:
    """An ImportError whose sentence has the command, which is a ConfigurationError too."""
    program = f"""
try:
    import {module}
except ImportError as error:
    from entra_fast.errors import ConfigurationError
    shown = error.__context__ is not None and not error.__suppress_context__
    print(isinstance(error, ConfigurationError), error.code, error, not shown)
"""
    done = run(program, hidden={"aiohttp", "pydantic", "yaml", "jinja2", "cryptography", "prometheus_client"})
    assert re.fullmatch(
        rf"True extra_missing {what} needs the package '[\w-]+': pip install 'entra-fast\[{extra}\]' True\n",
        done.stdout,
    ), done.stdout + done.stderr


def test_another_failed_import_stays_what_it_is() -> None:
    """A package that no extra installs is not blamed on one."""
    with pytest.raises(ModuleNotFoundError) as caught, _extras.importing("dev", "this"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(caught.value, ConfigurationError)


def test_a_part_of_a_missing_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`opentelemetry.sdk` cannot be looked for where there is no `opentelemetry`."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert _extras.absent("otel") == "opentelemetry-api"
