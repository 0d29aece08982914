"""Runs the blocks of code of the documentation, each as readers would: Python in one namespace per page,
shell in one shell per page, output compared with what is shown.

What belongs here: what becomes of a block of each language. Which pages there are, and which servers they
talk to, is in tests/docs.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from entra_fast.cli.main import _parser
from entra_fast.emulator import LocalEntraId
from support.local_entra import local_entra, manifest

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = (
    "python",
    "sh",
    "console",
    "json",
    "yaml",
    "text",
    "ini",
    "apache",
    "html",
    "markdown",
    "java",
    "properties",
    "js",
    "go",
    "csharp",
)
SHOWN = ("text", "markdown")
"""Not run: output, drawings and Markdown itself."""

FENCE = re.compile(r"^ *```(\S*)[^\n]*\n.*?^ *```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: ([^\n]*?) -->\n *\Z")
SHELL_SECONDS = 60
END = "__end_of_block__"


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, with the reason if one is not run."""
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        reason = NOT_RUN.search(text[: match.start()])
        body = match[0].split("\n", 1)[1].rsplit("\n", 1)[0]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, match[1], body, reason[1] if reason else None))
    return found


@dataclass
class World:
    """What a page finds: variables, files, names in Python, and addresses that lead elsewhere."""

    folder: Path
    environment: Mapping[str, str]
    names: dict[str, Any]
    addresses: Mapping[str, str]
    placeholders: Mapping[str, str] = field(default_factory=dict)

    def local(self, text: str) -> str:
        """A block with the addresses and placeholders of this machine."""
        for pattern, value in self.placeholders.items():
            text = re.sub(pattern, value, text)
        for shown, real in self.addresses.items():
            text = text.replace(shown, real)
        return text


class Runner:
    """Runs the blocks of one page, from top to bottom."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._loop = asyncio.Runner()
        self._shell: Shell | None = None
        # A module: frameworks look names and annotations up there.
        self._module = types.ModuleType("page")
        self.names = vars(self._module)
        self.names.update(world.names)
        self.ran: list[int] = []

    def run(self, page: Path, only: Callable[[str], bool] = lambda _: True) -> None:
        """Run them all, except those that say why not."""
        handlers = {
            "python": self._python,
            "sh": self._sh,
            "console": self._console,
            "json": self._json,
            "yaml": self._yaml,
        }
        parsers = [
            CodeBlockParser(language, self._unless_marked(handler))
            for language, handler in handlers.items()
            if only(language)
        ]
        for example in Sybil(parsers).parse(page).examples():
            example.evaluate()

    def close(self) -> None:
        if self._shell is not None:
            self._shell.close()
        sys.modules.pop("page", None)
        self._loop.close()

    def _unless_marked(self, handler: Callable[[str, Example], None]) -> Callable[[Example], None]:
        def evaluate(example: Example) -> None:
            if not NOT_RUN.search(_before(example.document, example)):
                handler(self._world.local(str(example.parsed)), example)
                self.ran.append(example.line)

        return evaluate

    def _python(self, text: str, example: Example) -> None:
        padded = "\n" * example.line + text  # line numbers of a traceback are those of the page
        sys.modules["page"] = self._module
        code = compile(padded, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        result = eval(code, self.names)
        if inspect.iscoroutine(result):
            self._loop.run(result)

    def _sh(self, text: str, example: Example) -> None:
        status, output = self._session().run(text)
        assert status == 0, f"{example.path}:{example.line}: exit status {status}\n{text}\n{output}"

    def _console(self, text: str, example: Example) -> None:
        commands = re.split(r"^\$ ", text, flags=re.MULTILINE)
        assert not commands[0].strip(), f"{example.path}:{example.line}: output before the first command"
        for command in commands[1:]:
            line, _, shown = re.sub(r"\\\n", "", command).partition("\n")
            _, output = self._session().run(line)
            assert matches(shown, output), (
                f"{example.path}:{example.line}\n$ {line}\nshown:\n{shown}\nprinted:\n{output}"
            )

    def _json(self, text: str, example: Example) -> None:
        self.names.setdefault("json_blocks", []).append(json.loads(text))

    def _yaml(self, text: str, example: Example) -> None:
        for document in yaml.safe_load_all(text):
            assert isinstance(document, dict), example.path
            if str(document.get("apiVersion", "")).startswith("nais.io/"):
                local_entra([yaml.safe_dump(document)])  # strict: an unknown field is an error
            elif "optionalClaims" in document:
                self._registration(text)
            elif "components" in document:
                for component in document["components"]:
                    folder = ROOT / component.removeprefix("../entra_fast/")
                    assert (folder / "kustomization.yaml").is_file(), component
            else:
                assert {"apiVersion", "kind", "metadata"} <= set(document), example.path

    def _registration(self, text: str) -> None:
        """What stands beside a manifest: read with one, as strictly."""
        folder = self._world.folder / "registration"
        folder.mkdir(exist_ok=True)
        (folder / "app.yaml").write_text(manifest("app"))
        (folder / "app.entra.yaml").write_text(text)
        LocalEntraId.from_files([folder])

    def _session(self) -> Shell:
        if self._shell is None:
            self._shell = Shell(self._world)
        return self._shell


def _before(document: Document, example: Example) -> str:
    return document.text[: document.text.rfind("\n", 0, example.region.start) + 1]


def matches(shown: str, printed: str) -> bool:
    """Whether output is what a page shows: `...` stands for anything, and digits for any digits."""
    parts = []
    for line in shown.strip().split("\n"):
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*(?:\n|\Z))*?")
            continue
        pattern = re.escape(line).replace(re.escape("..."), r"[^\n]*")
        parts.append(re.sub(r"\d+", r"\\d+", pattern) + r"[ ]*(?:\n|\Z)")
    return re.fullmatch("".join(parts), printed.strip() + "\n") is not None or (
        re.fullmatch("".join(parts), printed.strip()) is not None
    )


class Shell:
    """A bash that runs one block after the other, with shims for what must not happen in a test."""

    def __init__(self, world: World) -> None:
        shims = world.folder / ".shims"
        shims.mkdir(exist_ok=True)
        for name in ("entra-fast", "make", "pip"):
            shim = shims / name
            program = shlex.join([sys.executable, str(Path(__file__).with_name("shims.py")), name])
            shim.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            shim.chmod(0o755)
        environment = {**world.environment, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"}
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=world.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.run("set -o pipefail")

    def run(self, text: str) -> tuple[int, str]:
        """Run a block: its exit status, which is that of the first command that failed, and its output."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        # Not `set -e`, which would end the shell: a trap keeps the first failure.
        trap = "__failed=0; trap '__status=$?; [ $__failed != 0 ] || __failed=$__status' ERR"
        stdin.write(f"{trap}\n{text}\ntrap - ERR; printf '\\n%s %d\\n' {END} $__failed\n")
        stdin.flush()
        lines: list[str] = []
        for line in stdout:
            if line.startswith(END):
                return int(line.split()[1]), "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended:\n{''.join(lines)}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def command_lines(block: Block) -> Iterator[list[str]]:
    """The `entra-fast` commands in a block that is not run, as arguments."""
    text = re.sub(r"\\\n", " ", block.text)
    for line in text.splitlines():
        for words in re.findall(r"(?<![\w./-])entra-fast ([a-z][^|;&)#>]*)", line):
            command = words.split("  ")[0].split(" < ")[0]  # without a comment or a redirection
            if "<" not in command:  # a placeholder
                yield shlex.split(command)


def refused_by_the_parser(arguments: list[str]) -> str | None:
    """Why the command line does not accept a command; None if it does."""
    try:
        _, unknown = _parser().parse_known_args(arguments)
    except SystemExit as ended:  # --help, --version
        return None if ended.code in (0, None) else str(ended)
    except Exception as error:
        return str(error)
    return f"unknown: {unknown}" if unknown else None
