"""docs/tutorial.md, followed literally: each file is written and each command is typed as they stand there,
in the terminals that it names, in a folder of their own; what it shows is compared; the last step is clicked.

Only ports are replaced by free ones, and `pip install` by a check that it would install what is tested here.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from support.process import inherited

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text()
EXAMPLES = ROOT / "examples" / "services"
PORTS = ("8080", "8000", "8001", "8002")
PATIENCE = 40.0
"""Seconds until a command shows what the page shows."""

STEP = re.compile(r"(?:`(?P<file>[\w./-]+)`:\n\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
TERMINAL = re.compile(r"# in a (\w+) terminal\n")


@dataclass(frozen=True)
class Step:
    """A block of the page: a file, or commands with what they show."""

    file: str | None
    language: str
    text: str


STEPS = [Step(one["file"], one["language"], one["text"]) for one in STEP.finditer(PAGE)]


class Terminal:
    """A shell that commands are typed into."""

    def __init__(self, folder: Path) -> None:
        environ = {**inherited(), "HOME": str(folder), "PYTHONUNBUFFERED": "1"}
        self._shell = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that a signal reaches what the shell runs, too
        )
        self._output = ""
        self._changed = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            with self._changed:
                self._output += line
                self._changed.notify_all()

    def type(self, commands: str) -> int:
        """Type commands. Returns where their output begins."""
        assert self._shell.stdin is not None
        place = len(self._output)
        self._shell.stdin.write(commands)
        self._shell.stdin.flush()
        return place

    def until(self, place: int, lines: list[str], seconds: float) -> str | None:
        """The output from a place on, once it has these lines (or parts of them) in this order; None if that
        takes too long."""
        with self._changed:
            if not self._changed.wait_for(lambda: _shows(self._output[place:], lines), seconds):
                return None
            return self._output[place:]

    def output(self, place: int) -> str:
        return self._output[place:]

    def close(self) -> None:
        os.killpg(self._shell.pid, signal.SIGTERM)
        try:
            self._shell.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._shell.pid, signal.SIGKILL)
            self._shell.wait()
        # uvicorn's reloader ends its child, which may take a moment.


def _shows(output: str, lines: list[str]) -> bool:
    place = 0
    for line in lines:
        place = output.find(line, place)
        if place < 0:
            return False
        place += len(line)
    return True


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """A free port for each of the page's."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return {port: str(one.getsockname()[1]) for port, one in zip(PORTS, sockets, strict=True)}


def with_ports(text: str, ports: dict[str, str]) -> str:
    """The text with other ports, also where the page relies on the default one of the local Entra ID."""
    text = text.replace("entra-fast emulator", "entra-fast emulator --port 8080")
    text = text.replace("entra-fast env", "entra-fast env --url http://127.0.0.1:8080")
    return re.sub(r"(127\.0\.0\.1:|--port )(\d+)", lambda found: found[1] + ports[found[2]], text)


def check_installation(command: str) -> None:
    """That `pip install` names what is installed here, with extras that exist."""
    for wanted in shlex.split(command)[2:]:
        name, _, extras = wanted.rstrip("]").partition("[")
        distribution = importlib.metadata.distribution(name)
        offered = distribution.metadata.get_all("Provides-Extra") or []
        assert set(filter(None, extras.split(","))) <= set(offered), wanted


def follow(folder: Path, ports: dict[str, str]) -> Iterator[Terminal]:
    """Do what the page says, to the last block. Yields each terminal when it is opened."""
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH\n")
    terminals: dict[str, Terminal] = {}
    for number, step in enumerate(STEPS):
        text = with_ports(step.text, ports)
        if step.file is not None:
            (folder / step.file).parent.mkdir(exist_ok=True)
            (folder / step.file).write_text(text)
            continue
        if step.language != "sh":
            continue
        following = STEPS[number + 1] if number + 1 < len(STEPS) else None
        shown = []
        if following is not None and following.language == "text":
            shown = with_ports(following.text, ports).splitlines()
        install = re.search(r"^pip install .*\n", text, re.MULTILINE)
        if install is not None:
            check_installation(install[0])
            text = ". .venv/bin/activate\n"
        named = TERMINAL.match(text)
        name = named[1] if named else "first"
        if name not in terminals:
            terminals[name] = Terminal(folder)
            yield terminals[name]
        terminal = terminals[name]
        if named:  # a server, which stays in the foreground
            place = terminal.type(text)
            assert terminal.until(place, shown, PATIENCE), terminal.output(place)
        else:
            _type_until_it_shows(terminal, text, shown)


def _type_until_it_shows(terminal: Terminal, commands: str, shown: list[str]) -> None:
    """Once more, if need be: what has been changed is reloaded a moment later."""
    deadline = time.monotonic() + PATIENCE
    while True:
        place = terminal.type(f"{commands}\necho; echo '--- done ---'\n")
        output = terminal.until(place, ["--- done ---"], PATIENCE)
        assert output is not None, terminal.output(place)
        if _shows(output, shown):
            return
        assert time.monotonic() < deadline, (commands, output)
        time.sleep(0.2)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, ports: dict[str, str]) -> Iterator[Path]:
    """The folder, when everything that the page starts is running."""
    folder = tmp_path_factory.mktemp("tutorial")
    with ExitStack() as stack:
        for terminal in follow(folder, ports):
            stack.callback(terminal.close)
        yield folder


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


def test_its_commands_show_what_the_page_says(followed: Path) -> None:
    """Every file and every command, up to the browser: `follow` compares the output."""
    assert (followed / "web.py").exists()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.usefixtures("followed")
async def test_its_last_step_in_a_browser(page: Page, ports: dict[str, str]) -> None:
    """Open the address, sign in as one user and as the other; the page says what each of them sees."""
    last = PAGE.partition("## 8.")[2].partition("## What next")[0]
    (address,) = re.findall(r"Open <(\S+)>", last)
    who, other, refusal = re.findall(r"\*\*(.+?)\*\*", last)
    await page.goto(with_ports(address, ports))
    await page.get_by_role("link", name="Sign in").click()
    await page.get_by_role("button", name=who).click()
    await expect(page.get_by_role("cell", name="Edvard Munch")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("link", name="Sign in").click()
    await page.get_by_role("button", name=other).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(refusal)


def test_it_builds_the_examples() -> None:
    """The last version of each file is the one in examples/services, and none is left out."""
    built = {step.file: step.text for step in STEPS if step.file is not None}
    for name, text in built.items():
        assert text == (EXAMPLES / name).read_text(), f"docs/tutorial.md has another version of {name}"
    kinds = ("*.py", "*.yaml", "*.html")
    own = {str(path.relative_to(EXAMPLES)) for kind in kinds for path in EXAMPLES.rglob(kind)}
    assert own - {"run.py"} == set(built)
