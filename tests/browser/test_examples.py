"""`make example`: the services of examples/services, clicked in Chromium, called with the commands that it
prints, and stopped with Ctrl-C.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from support.process import inherited

from .conftest import fits, picture

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "examples/services/run.py")
LAST_LINE = "Ctrl-C stops everything."

in_the_browser = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True)
class Examples:
    """The running services.

    Attributes:
        text: what `make example` has printed.
    """

    process: subprocess.Popen[str]
    text: str

    def url(self, name: str) -> str:
        """The address beside a name in the list of services."""
        found = re.search(rf"^  {name} +(\S+) ", self.text, re.MULTILINE)
        assert found is not None, self.text
        return found[1]

    def commands(self) -> dict[str, str]:
        """The commands to try, by the comment above each."""
        _, _, rest = self.text.partition("Commands to try in another terminal:\n")
        blocks = rest.partition(LAST_LINE)[0].split("\n  # ")[1:]
        return dict(block.split("\n", 1) for block in blocks)


@contextmanager
def started(*arguments: str) -> Iterator[Examples]:
    """`make example`, until it has printed everything."""
    command = [*COMMAND, *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=inherited(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if LAST_LINE in line:
                    break
            yield Examples(process, "".join(lines))
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def examples() -> Iterator[Examples]:
    with started("--port", "0", "--entra-port", "0") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def home(browser: Browser, examples: Examples) -> AsyncIterator[Page]:
    """The web application, in a browser of a new user, without scripts."""
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(examples.url("web application"))
    yield page
    await context.close()


@in_the_browser
async def test_a_case_worker_sees_cases(home: Page, examples: Examples) -> None:
    """Ada signs in; the names come from the last API, which saw her; after signing out, both the application
    and Entra ID have forgotten her."""
    page = home
    await page.get_by_role("link", name="Sign in").click()
    await page.get_by_role("button", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Cases")
    rows = page.get_by_role("row")
    await expect(rows).to_have_count(4)
    await expect(rows.nth(2)).to_have_text(re.compile(r"1002\s*open\s*Sigrid Undset\s*Ada Lovelace"))
    await fits(page)
    await picture(page, "example", "desktop")
    (cookie,) = [one for one in await page.context.cookies() if one.get("name") == "cases"]
    assert cookie.get("httpOnly") is True
    assert cookie.get("sameSite") == "Lax"
    assert len(cookie.get("value", "")) < 300  # no token is in it
    await page.get_by_role("button", name="Sign out").click()
    await expect(page).to_have_url(examples.url("web application") + "/")
    await expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    await page.get_by_role("link", name="Sign in").click()
    await expect(page.get_by_role("button", name="Ola Nordmann")).to_be_visible()


@in_the_browser
async def test_another_user_is_refused(home: Page, examples: Examples) -> None:
    """Ola signs in, too, but gets no token for the API; the page says why, and so does Entra ID's log."""
    page = home
    await page.get_by_role("link", name="Sign in").click()
    async with page.expect_response(lambda answer: urllib.parse.urlsplit(answer.url).path == "/") as response:
        await page.get_by_role("button", name="Ola Nordmann").click()
    assert (await response.value).status == 403
    await expect(page.get_by_role("heading", level=1)).to_have_text("No access")
    await expect(page.locator("body")).to_contain_text("Only case workers may see cases.")
    await expect(page.locator("body")).to_contain_text("Signed in as Ola Nordmann")
    await page.goto(examples.url("local Entra ID") + "/log")
    await expect(page.get_by_role("row", name="AADSTS50105").first).to_be_visible()


@in_the_browser
async def test_a_sign_in_that_was_not_begun_here(home: Page, examples: Examples) -> None:
    """Anyone can send a user to the redirect URI. Without the state of this browser it is refused."""
    await home.goto(examples.url("web application") + "/oauth2/callback?code=x&state=y")
    await expect(home.get_by_role("heading", level=1)).to_have_text("Sign-in failed")


COMMANDS = {
    "no token: 401": (401, ""),
    "on behalf of Ada: 200": (200, '"person":"Edvard Munch","read_by":"Ada Lovelace"'),
    "the same token is not for the API for persons: 401": (401, "wrong audience"),
    "on behalf of Ada, by an application that was not given the scope cases.read: 403": (403, "cases.read"),
    "the job's own token has the role statistics.read: 200": (200, '{"open":2}'),
    "the job itself": (None, "2 open cases"),
}


def test_the_commands_do_what_they_say(examples: Examples) -> None:
    """Each command that is printed, in one shell, as it stands there."""
    commands = examples.commands()
    assert set(commands) == set(COMMANDS)
    script = "".join(f"{command}\necho '----'\n" for command in commands.values())
    done = subprocess.run(
        ["bash", "-eu"], input=script, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for title, output in zip(commands, done.stdout.split("----\n"), strict=False):
        status, text = COMMANDS[title]
        assert text in output, title
        if status is not None:
            assert f"HTTP/1.1 {status} " in output, title


def test_the_job_has_run(examples: Examples) -> None:
    """At the start, with its own token."""
    assert "The job, report.py, has run once: 2 open cases." in examples.text


@pytest.mark.parametrize("option", ["--port", "--entra-port"])
def test_a_port_that_is_taken(option: str) -> None:
    """One sentence, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others = [one for one in ("--port", "--entra-port") if one != option]
        command = [*COMMAND, option, str(port), *others, "0"]
        done = subprocess.run(command, cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"make example: port {port} is not available; choose another with {option}\n"


def test_ctrl_c_stops_everything(examples: Examples) -> None:
    """Afterwards nobody listens on any of the ports, and the exit status is 0. The last test: it ends what
    the others use."""
    names = ("web application", "API for cases", "API for persons", "local Entra ID")
    examples.process.send_signal(signal.SIGINT)
    assert examples.process.wait(30) == 0
    for name in names:
        address = urllib.parse.urlsplit(examples.url(name))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address.hostname or "", address.port or 0)).close()
