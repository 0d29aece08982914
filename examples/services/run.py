"""Starts the examples with a local Entra ID, and runs them until Ctrl-C: `make example`.

Each service is a process of its own that gets the environment variables that NAIS would set.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from entra_fast.emulator import LocalEntraId, RunningEmulator
from entra_fast.errors import EntraFastError

HERE = Path(__file__).parent
WEB, CASES, REPORT = (f"dev-gcp:team-cases:{name}" for name in ("cases-web", "cases", "report"))
PERSONS = "dev-gcp:team-persons:persons"
DJANGO = ["--factory", "django.core.asgi:get_asgi_application"]
HOST = "127.0.0.1"
START_SECONDS = 60.0

WELCOME = """
Open {web} in a browser.

  1. Sign in as Ada Lovelace, a case worker. The page shows cases with the names of persons: the web
     application has exchanged Ada's token for one that the API for cases accepts, and that API has
     exchanged it again to call the API for persons. "Read by" is the user whom that API saw.
  2. Sign out, and sign in as Ola Nordmann, who is no case worker: Entra ID issues no token for the API.
  3. Open {entra}/log: every decision of the local Entra ID, and why.

  web application   {web}   web.py: Starlette, Authlib
  API for cases     {cases}   cases.py: FastAPI
  API for persons   {persons}   persons/: Django
  local Entra ID    {entra}   nais/ and directory.yaml; changes are reloaded

The job, report.py, has run once: {report}. The files are in {here}.

Commands to try in another terminal:

  # no token: 401
  curl -i {cases}/cases

  # on behalf of Ada: 200
  TOKEN=$({ada})
  curl -i {cases}/cases -H "Authorization: Bearer $TOKEN"

  # the same token is not for the API for persons: 401
  curl -i {persons}/persons -H "Authorization: Bearer $TOKEN"

  # on behalf of Ada, by an application that was not given the scope cases.read: 403
  TOKEN=$({unscoped})
  curl -i {cases}/cases -H "Authorization: Bearer $TOKEN"

  # the job's own token has the role statistics.read: 200
  TOKEN=$({job})
  curl -i {cases}/statistics -H "Authorization: Bearer $TOKEN"

  # the job itself
  (eval "$({bin}/entra-fast env {report_app} --url {entra})"
   CASES_URL={cases} {bin}/python {here}/report.py)

Ctrl-C stops everything.
"""


class Problem(Exception):
    """Why the examples cannot run, in one sentence."""


async def main(entra_port: int, port: int) -> None:
    """Run everything until a signal ends it, or a service ends."""
    ports = [port + number if port else 0 for number in range(3)]
    for wanted, option in [(entra_port, "--entra-port"), *((number, "--port") for number in ports)]:
        check_free(wanted, option)
    web, cases, persons = (f"http://{HOST}:{number or free_port()}" for number in ports)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        local = LocalEntraId.from_files([HERE / "nais"], HERE / "directory.yaml")
        entra = await local.start(HOST, entra_port, watch=1.0)
        stack.push_async_callback(entra.stop)
        for path in ("/oauth2/callback", "/"):
            local.add_reply_url(WEB, web + path)
        services: dict[str, asyncio.subprocess.Process] = {}
        for application, url, app, more in (
            (WEB, web, ["web:app"], {"WEB_URL": web, "CASES_URL": cases}),
            (CASES, cases, ["cases:app"], {"PERSONS_URL": persons}),
            (PERSONS, persons, DJANGO, {"DJANGO_SETTINGS_MODULE": "persons.settings"}),
        ):
            services[application] = await serve(url, app, entra.environment(application) | more)
            stack.push_async_callback(end, services[application])
        stopping = asyncio.ensure_future(stop.wait())
        ended = [asyncio.ensure_future(service.wait()) for service in services.values()]
        starting = asyncio.ensure_future(all_ready(web, cases, persons))
        await asyncio.wait([stopping, starting, *ended], return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not stop.is_set():
            starting.result()
            report = await run_job(entra, cases)
            print(welcome(entra.base_url, web, cases, persons, report), flush=True)
            await asyncio.wait([stopping, *ended], return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        if not stop.is_set():
            for name, service in services.items():
                if service.returncode is not None:
                    raise Problem(f"{name} ended with status {service.returncode}; its messages are above")
        print("stopping", file=sys.stderr)


async def serve(url: str, app: list[str], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    """Start a service on uvicorn."""
    port = url.rpartition(":")[2]
    command = ["-m", "uvicorn", "--host", HOST, "--port", port, "--log-level", "warning", *app]
    return await start(command, environment)


async def run_job(entra: RunningEmulator, cases: str) -> str:
    """Run the job once. Returns what it prints."""
    job = await start(
        ["report.py"], entra.environment(REPORT) | {"CASES_URL": cases}, asyncio.subprocess.PIPE
    )
    output, _ = await job.communicate()
    return output.decode().strip() or "it failed, as you see above"


async def start(
    arguments: list[str], environment: Mapping[str, str], stdout: int | None = None
) -> asyncio.subprocess.Process:
    # A session of its own: Ctrl-C reaches this process alone, which ends the others in order.
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=HERE,
        env={**os.environ, **environment},
        stdout=stdout,
        start_new_session=True,
    )


async def end(service: asyncio.subprocess.Process) -> None:
    """End a service: politely, then by force."""
    if service.returncode is None:
        service.terminate()
        try:
            await asyncio.wait_for(service.wait(), 10)
        except TimeoutError:
            service.kill()


async def all_ready(*urls: str) -> None:
    """Return when every service responds."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    for url in urls:
        while not await asyncio.to_thread(responds, f"{url}/healthz"):
            if asyncio.get_running_loop().time() > deadline:
                raise Problem(f"{url} does not respond {START_SECONDS:.0f} s after its start")
            await asyncio.sleep(0.1)


def responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def check_free(port: int, option: str) -> None:
    """Refuse a port that is not available, before anything starts."""
    try:
        socket.create_server((HOST, port)).close()
    except (OSError, OverflowError):
        raise Problem(f"port {port} is not available; choose another with {option}") from None


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        return int(unused.getsockname()[1])


def welcome(entra: str, web: str, cases: str, persons: str, report: str) -> str:
    """What happens, where to click, and commands to try."""

    def token(consumer: str, user: str | None = None) -> str:
        request = json.dumps({"consumer": consumer, "target": CASES, "user": user})
        return f"curl -sf {entra}/admin/api/tokens -H 'Accept: text/plain' --json '{request}'"

    return WELCOME.format(
        entra=entra,
        web=web,
        cases=cases,
        persons=persons,
        report=report,
        ada=token(WEB, "ada"),
        unscoped=token(REPORT, "ada"),
        job=token(REPORT),
        report_app=REPORT,
        bin=os.path.relpath(Path(sys.executable).parent),
        here=os.path.relpath(HERE),
    )


def port_number(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number (0 to 65535)")
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="make example", description=__doc__)
    parser.add_argument(
        "--port",
        type=port_number,
        default=8000,
        help="of the web application; the APIs take the next two; 0 for free ones (default: %(default)s)",
    )
    parser.add_argument(
        "--entra-port",
        type=port_number,
        default=8080,
        help="of the local Entra ID; 0 for a free one (default: %(default)s)",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(main(options.entra_port, options.port))
    except (Problem, EntraFastError) as problem:
        sys.exit(f"make example: {problem}")
