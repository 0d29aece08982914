"""`entra-fast dev`: choosing manifests and ports, what is printed, pasting it, stopping it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from entra_fast._native import unverified_claims
from entra_fast.cli import dev_run, dev_system
from entra_fast.cli.dev_system import Options, local_system
from entra_fast.cli.dev_welcome import addresses, describe
from entra_fast.cli.main import main
from entra_fast.cli.manifest_sources import find_sources
from entra_fast.errors import ConfigurationError
from support.idporten import PID
from support.sidecars import eventually

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import sys; from entra_fast.cli.main import main; sys.exit(main())"]
FREE = ["--emulator-port", "0", "--generator-port", "0", "--sidecar-port", "0"]
LAST_LINE = "Ctrl-C stops everything."
START_SECONDS = 60.0


def _environment() -> dict[str, str]:
    paths = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


class Running:
    """A started `entra-fast dev`, and what it has printed."""

    def __init__(self, arguments: Sequence[str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "dev", *arguments],
            cwd=cwd,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if self.lines[-1] == LAST_LINE:
                break
        else:
            raise AssertionError(self.process.communicate()[1])

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; exit status and standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=START_SECONDS)
        return self.process.returncode, errors

    def commands(self) -> list[str]:
        """The commands to paste: each stands below its title."""
        titled = zip(self.lines, self.lines[1:], strict=False)
        return [command.strip() for title, command in titled if title.startswith("  # ")]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    started = Running(FREE, ROOT)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGTERM)


def test_it_says_where_everything_is(running: Running) -> None:
    """The addresses, and the variables by which an application finds its sidecar."""
    text = "\n".join(running.lines)
    for part in ("local Entra ID", "token generator", "- for TokenX", "sidecar"):
        assert re.search(rf"^  {part} +http://127\.0\.0\.1:\d+", text, re.MULTILINE)
    for name in ("NAIS_TOKEN_ENDPOINT", "NAIS_TOKEN_EXCHANGE_ENDPOINT", "NAIS_TOKEN_INTROSPECTION_ENDPOINT"):
        assert re.search(rf"^  export {name}=http://127\.0\.0\.1:\d+/api/v1/\S+$", text, re.MULTILINE)
    assert "dev-gcp:team-a:app-a" in text
    assert "serves Entra ID, Maskinporten, TokenX, ID-porten" in text


async def test_the_addresses_are_there_for_programs() -> None:
    """`--json`: one object, whose probe answers and whose environment is that of the application."""
    async with local_system(Options(emulator_port=0, generator_port=0, sidecar_port=0)) as system:
        said = json.loads(json.dumps(addresses(system)))
        (sidecar,) = said["sidecars"]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{sidecar['probe_url']}/healthz") as response,
        ):
            assert response.status == 200
    assert sidecar["application"] == "dev-gcp:team-a:app-a"
    assert sidecar["environment"]["NAIS_TOKEN_ENDPOINT"] == f"{sidecar['url']}/api/v1/token"
    assert sidecar["providers"] == ["entra_id", "maskinporten", "tokenx", "idporten"]
    assert len({said["emulator"], said["token_generator"], said["tokenx_token_generator"]}) == 3
    assert said["issuers"]["tokenx"] == f"{said['emulator']}/tokenx"
    assert said["issuers"]["entra_id"].startswith(said["emulator"])


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_its_commands_work_when_they_are_pasted(running: Running, tmp_path: Path) -> None:
    """For a plain POSIX shell, without jq, one after another. With Entra ID: a token, an introspection, a
    user's call (token, introspection, exchange), a refusal. With TokenX: a citizen's call (token,
    introspection, exchange). With Maskinporten and ID-porten: a token and its introspection."""
    commands = running.commands()
    assert len(commands) == 11
    script = "\n".join(f"{command}; echo" if command.startswith("curl") else command for command in commands)
    shell = ["sh", "-c", script]
    done = subprocess.run(shell, capture_output=True, check=True, cwd=tmp_path, text=True)
    token, introspection, received, exchanged, refusal, *others = map(json.loads, done.stdout.splitlines())
    assert token["token_type"] == "Bearer"
    assert introspection["active"] is True
    assert introspection["azp_name"] == "dev-gcp:team-a:app-a"
    assert received["active"] is True
    assert received["preferred_username"] == "ada@trygdeetaten.no"
    claims = unverified_claims(exchanged["access_token"])
    assert claims["preferred_username"] == "ada@trygdeetaten.no"
    assert claims["azp_name"] == "dev-gcp:team-a:app-a"
    assert refusal["error"] == "invalid_grant"
    assert refusal["error_codes"] == [501051]
    citizen, for_target, organization, login = others
    assert citizen["active"] is True
    assert (citizen["client_id"], citizen["pid"]) == ("dev-gcp:nais:tokenx-token-generator", PID)
    claims = unverified_claims(for_target["access_token"])
    assert (claims["client_id"], claims["pid"]) == ("dev-gcp:team-a:app-a", PID)
    assert claims["aud"] == "dev-gcp:team-b:app-b"
    assert organization["active"] is True
    assert organization["scope"] == "nav:helse/sykepenger/afp.read"
    assert login["active"] is True
    assert login["pid"] == PID


def test_the_command_line_finds_the_sidecar_by_the_printed_variables(running: Running) -> None:
    """`export` what was printed, and `entra-fast token`, `introspect` work."""
    lines = [line.strip().removeprefix("export ") for line in running.lines if "  export " in line]
    exports = dict(line.split("=", 1) for line in lines)
    environment = {**_environment(), **exports}

    def ask(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=environment, input=text, capture_output=True, text=True, check=False
        )

    token = ask("token", "dev-gcp:team-a:app-a")
    assert token.returncode == 0, token.stderr
    assert json.loads(ask("introspect", text=token.stdout).stdout)["active"] is True
    refused = ask("token", "dev-gcp:team-c:app-nobody")
    assert refused.returncode == 1
    assert "AADSTS501051" in refused.stderr


def test_it_prints_the_codes_of_what_fails(tmp_path: Path) -> None:
    """A line on standard error for a refused request and a rejected token: the code, and where to look; for
    TokenX and Maskinporten which rule or scope of which manifest is missing."""
    started = Running(FREE, tmp_path)
    exports = dict(
        line.strip().removeprefix("export ").split("=", 1) for line in started.lines if " export " in line
    )

    def post(name: str, **form: str) -> None:
        data = urllib.parse.urlencode({"identity_provider": "entra_id", **form}).encode()
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(exports[name], data):
            pass

    post("NAIS_TOKEN_ENDPOINT", target="dev-gcp:team-c:app-nobody")
    post("NAIS_TOKEN_INTROSPECTION_ENDPOINT", token="a.b.c")
    scope = {"identity_provider": "maskinporten", "target": "skatteetaten:inntekt"}
    post("NAIS_TOKEN_ENDPOINT", **scope)
    line = next(line for line in started.lines if line.startswith("  - for TokenX"))
    form = urllib.parse.urlencode({"aud": "dev-gcp:team-a:app-a", "pid": PID}).encode()
    with urllib.request.urlopen(f"{line.split()[3]}/api/public/obo", form) as answer:
        citizen = answer.read().decode()
    target = {"identity_provider": "tokenx", "target": "dev-gcp:team-a:app-a"}
    post("NAIS_TOKEN_EXCHANGE_ENDPOINT", user_token=citizen, **target)
    status, errors = started.end(signal.SIGTERM)
    assert status == 0
    assert re.search(
        r"^refused: AADSTS501051: client credentials: dev-gcp:team-a:app-a -> dev-gcp:team-c:app-nobody "
        r"\(http://127\.0\.0\.1:\d+/log/\d+\)$",
        errors,
        re.MULTILINE,
    )
    assert "rejected: not_a_jwt: a token at the sidecar of dev-gcp:team-a:app-a\n" in errors
    for provider, remedy, place in (
        ("Maskinporten", "add to spec.maskinporten.scopes.consumes of dev-gcp:team-a:app-a", "app-a.yaml:6"),
        ("TokenX", "add to spec.accessPolicy.inbound.rules of dev-gcp:team-a:app-a", "app-a.yaml:"),
    ):
        (refused,) = (line for line in errors.splitlines() if line.startswith(f"refused: {provider}: "))
        assert remedy in refused
        assert place in refused


def _manifest(name: str, spec: dict[str, object]) -> str:
    document = {"apiVersion": "nais.io/v1alpha1", "kind": "Application", "spec": {"image": "image", **spec}}
    return json.dumps({**document, "metadata": {"name": name, "namespace": "team"}})


async def test_an_application_may_use_another_provider_alone(tmp_path: Path) -> None:
    """It gets a sidecar without Entra ID, and commands for what it has; a citizen's token needs a rule for
    the token generator, an exchange a target that admits it."""
    rule = {"application": "tokenx-token-generator", "namespace": "nais"}
    rules = {"accessPolicy": {"inbound": {"rules": [rule]}}}
    (tmp_path / "one.yaml").write_text(_manifest("one", {"tokenx": {"enabled": True}, **rules}))
    options = Options((str(tmp_path),), emulator_port=0, generator_port=0, sidecar_port=0)
    async with local_system(options) as system:
        text = describe(system)
        assert addresses(system)["sidecars"][0]["providers"] == ["tokenx"]
    assert "serves TokenX\n" in text
    assert "identity_provider=entra_id" not in text
    assert "identity_provider=tokenx" in text
    assert "/api/v1/token/exchange -d" not in text
    consumed = {"enabled": True, "scopes": {"consumes": [{"name": "nowhere:scope"}]}}
    (tmp_path / "one.yaml").write_text(
        _manifest("one", {"tokenx": {"enabled": True}, "maskinporten": consumed})
    )
    async with local_system(options) as system:
        text = describe(system)
    assert "serves Maskinporten, TokenX\n" in text
    assert "identity_provider=" not in text


async def test_without_tokenx_there_is_no_token_generator_for_it(tmp_path: Path) -> None:
    """What no manifest uses takes no port, and no line."""
    (tmp_path / "one.yaml").write_text(_manifest("one", {"azure": {"application": {"enabled": True}}}))
    options = Options((str(tmp_path),), emulator_port=0, generator_port=0, sidecar_port=0)
    async with local_system(options) as system:
        assert system.tokenx_generator is None
        assert addresses(system)["tokenx_token_generator"] is None
        assert "TokenX" not in describe(system)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(number: int, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM: status 0, no traceback, nothing left; also outside of the project's directory."""
    status, errors = Running(FREE, tmp_path).end(number)
    assert status == 0
    assert "Traceback" not in errors
    assert [line for line in errors.splitlines() if not line.startswith("warning: ")] == ["stopping"]


def _fails(arguments: Sequence[str], cwd: Path, command: str = "dev") -> str:
    done = subprocess.run(
        [*COMMAND, command, *arguments],
        cwd=cwd,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=START_SECONDS,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("option", ["--emulator-port", "--generator-port", "--sidecar-port"])
def test_a_taken_port_is_one_line(option: str, tmp_path: Path) -> None:
    """It names the port and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = _fails([*FREE, option, str(port)], tmp_path)
    assert error == (
        f"entra-fast: port {port} on 127.0.0.1 is already in use; choose another with {option}\n"
    )


def test_a_port_that_two_parts_want_is_one_line(tmp_path: Path) -> None:
    """The options contradict each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    error = _fails([*FREE, "--emulator-port", port, "--generator-port", port], tmp_path)
    assert error.count("\n") == 1
    assert "--emulator-port" in error
    assert "--generator-port" in error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("  azure:\n", "  azur:\n"), "spec.azur"),
        (("enabled: true", "enabled: perhaps"), "spec.azure.application.enabled"),
    ],
)
def test_a_wrong_manifest_is_named_with_file_line_and_field(
    change: tuple[str, str], named: str, tmp_path: Path
) -> None:
    """An unknown field and a wrong type stop the start."""
    text = (ROOT / "examples" / "manifests" / "app-a.yaml").read_text().replace(*change, 1)
    file = tmp_path / "app-a.yaml"
    file.write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if change[1].strip() in row)
    error = _fails([*FREE, "--manifests", str(file)], tmp_path)
    assert f"{file.name}:{line}: {named}" in error
    assert "Traceback" not in error


def test_a_duplicate_application_is_named_with_file_and_line(tmp_path: Path) -> None:
    """Two manifests of one name are ambiguous."""
    text = (ROOT / "examples" / "manifests" / "app-a.yaml").read_text()
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text(text)
    error = _fails([*FREE, "--manifests", str(tmp_path)], tmp_path)
    assert re.search(r"two\.yaml:\d+: metadata\.name", error)
    assert "one.yaml" in error


def test_every_mistake_in_the_manifests_has_a_line_of_its_own(tmp_path: Path) -> None:
    """One line for each mistake."""
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("a: [1\n")
    lines = _fails([*FREE, "--manifests", str(tmp_path)], tmp_path).splitlines()
    assert len(lines) == 2
    for line, name in zip(lines, ("one.yaml", "two.yaml"), strict=True):
        assert line.startswith("entra-fast: ")
        assert f"{name}:2: " in line
        assert "\\n" not in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--manifests", "missing"], "--manifests"),
        (["--directory", "missing"], "--directory"),
        (["--app", "dev-gcp:team-a:app-x"], "dev-gcp:team-a:app-a"),  # did you mean ...?
        (["--app", "x"], "expected <cluster>:<namespace>:<name>, such as dev-gcp:team-a:app-a"),
        (["--host", "0.0.0.0"], "--host"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], named: str, tmp_path: Path) -> None:
    """One line on standard error, status 2."""
    error = _fails([*FREE, *arguments], tmp_path)
    assert error.count("\n") == 1
    assert named in error


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--state", "/dev/null/below"], "/dev/null/below"),
        (["--generator-url", "http://generator.example"], "--generator-url"),
        (["--host", "0.0.0.0"], "--allow-remote"),
    ],
)
def test_a_wrong_option_of_the_emulator_is_named_before_it_serves(
    arguments: list[str], named: str, tmp_path: Path
) -> None:
    """At start, not when it stops hours later."""
    error = _fails(["--port", "0", *arguments], tmp_path, "emulator")
    assert error.count("\n") == 1
    assert named in error


async def test_an_emulator_without_applications_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder may be filled later, or be the wrong one."""
    options = dev_run.EmulatorOptions(manifests=(str(tmp_path),), port=0)
    running = asyncio.create_task(dev_run._run_emulator(options))
    said: list[str] = []

    async def serving() -> bool:
        said.append(capsys.readouterr().err)
        return "anyone can sign in" in "".join(said)

    await eventually(serving)
    assert "warning: --manifests: no manifest has an application" in "".join(said)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


async def test_an_emulator_for_others_prints_the_token_of_its_console(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the address to open, and as the header field for scripts; without, the console refuses."""
    options = dev_run.EmulatorOptions(manifests=(str(tmp_path),), port=0, allow_remote=True)
    running = asyncio.create_task(dev_run._run_emulator(options))
    said: list[str] = []

    async def serving() -> bool:
        said.append(capsys.readouterr().err)
        return "admin API: send " in "".join(said)

    await eventually(serving)
    console = re.search(r"console: (http://127\.0\.0\.1:\d+/)\?token=(\S+)\n", "".join(said))
    assert console is not None
    assert f"'Authorization: Bearer {console[2]}'" in "".join(said)
    async with aiohttp.ClientSession() as session:
        for query, headers, status in (
            ("", {}, 401),
            (f"?token={console[2]}", {}, 303),
            ("", {"Authorization": f"Bearer {console[2]}"}, 200),
        ):
            async with session.get(console[1] + query, headers=headers, allow_redirects=False) as answer:
                assert answer.status == status
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0


def test_the_examples_of_the_current_folder_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """./examples, else the examples in the package: an installed one has something to start from."""
    monkeypatch.chdir(tmp_path)
    packaged, directory = find_sources()
    assert packaged[0].path.is_dir()
    assert directory is not None
    assert directory.is_file()
    (tmp_path / "examples" / "manifests").mkdir(parents=True)
    (tmp_path / "examples" / "directory.yaml").touch()
    assert find_sources()[0][0].path == Path("examples/manifests")
    assert find_sources()[1] == Path("examples/directory.yaml")


def test_the_packaged_examples_are_the_ones_of_the_project() -> None:
    """One text, in two places that cannot differ."""
    packaged = Path(dev_system.__file__).parents[1] / "examples"
    own = [ROOT / "examples" / "directory.yaml", *(ROOT / "examples" / "manifests").rglob("*.yaml")]
    names = {path.relative_to(ROOT / "examples") for path in own}
    assert names == {path.relative_to(packaged) for path in packaged.rglob("*.yaml")}
    for name in names:
        assert (packaged / name).read_bytes() == (ROOT / "examples" / name).read_bytes()


def test_own_manifests_find_their_directory_beside_them(tmp_path: Path) -> None:
    """Without a directory file, the users of the examples are used, so that someone can log in."""
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    assert find_sources([str(manifests)])[1] != tmp_path / "directory.yaml"
    (tmp_path / "directory.yaml").touch()
    assert find_sources([str(manifests)])[1] == tmp_path / "directory.yaml"
    assert find_sources([f"prod-gcp={manifests}"])[0][0].cluster == "prod-gcp"


def _ports_in_a_row(count: int) -> int:
    """The first of some neighbouring ports that are free now."""
    for port in range(20_000, 30_000, count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + count):
                stack.enter_context(socket.create_server(("127.0.0.1", number)))
            return port
    raise AssertionError("no free ports")


async def test_each_application_gets_a_sidecar_on_the_next_ports() -> None:
    """`--app` may be repeated; API and probes alternate."""
    port = _ports_in_a_row(4)
    apps = ("dev-gcp:team-a:app-a", "dev-gcp:team-b:app-b", "dev-gcp:team-a:app-a")
    options = Options((str(ROOT / "examples" / "manifests"),), None, apps, "127.0.0.1", 0, 0, port)
    async with local_system(options) as system:
        assert [sidecar.application.name for sidecar in system.sidecars] == list(apps[:2])
        addresses = [(s.running.address, s.running.probe_address) for s in system.sidecars]
    assert addresses == [
        (f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"),
        (f"127.0.0.1:{port + 2}", f"127.0.0.1:{port + 3}"),
    ]


async def test_a_start_that_fails_halfway_leaves_nothing_behind(tmp_path: Path) -> None:
    """The token generator has no identity: the parts that were started before are stopped again."""
    text = (ROOT / "examples" / "manifests" / "app-a.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text)
    generator = text.replace("name: app-a", "name: azure-token-generator", 1)
    generator = generator.replace("team-a", "nais").replace("enabled: true", "enabled: false")
    (tmp_path / "generator.yaml").write_text(generator)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ConfigurationError, match="azure-token-generator"):
        async with local_system(Options((str(tmp_path),), None, (), "127.0.0.1", port, 0, 0)):
            pass
    with socket.create_server(("127.0.0.1", port)):
        pass


def _blocks(fence: str, page: str = "README.md") -> list[str]:
    """The blocks of code of a kind in a page."""
    return re.findall(rf"```{fence}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_in_the_readme_work(running: Running) -> None:
    """Pasted one after another, they give the documented results, and are the commands that are printed."""
    addresses = {}
    for name, port in (("local Entra ID", 8080), ("- for TokenX", 8082), ("sidecar", 7164)):
        printed = next(line for line in running.lines if line.startswith(f"  {name}"))
        addresses[f"http://127.0.0.1:{port}"] = re.findall(r"http://\S+", printed)[0]
    text = "\n".join(_blocks("console"))
    for documented, real in addresses.items():
        text = text.replace(documented, real)
    commands = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    assert set(commands) <= set(running.commands())
    assert {command for command in running.commands() if "entra_id" in command} <= set(commands)
    script = "\n".join(f"{command}; echo" if command.startswith("curl") else command for command in commands)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, text=True)
    token, introspected, refused, received, exchanged, *others = map(json.loads, done.stdout.splitlines())
    assert token["token_type"] == "Bearer"
    assert introspected["active"] is True
    assert refused["error_codes"] == [501051]
    assert (received["active"], received["name"], received["scp"]) == (True, "Ada Lovelace", "defaultaccess")
    assert unverified_claims(exchanged["access_token"])["preferred_username"] == "ada@trygdeetaten.no"
    citizen, organization = others
    assert unverified_claims(citizen["access_token"])["pid"] == PID
    assert organization["consumer"]["ID"] == "0192:310000019"


def test_the_library_in_the_readme_works(running: Running, tmp_path: Path) -> None:
    """The lines of Python, as they stand, with a good token and a bad one."""
    url = next(line.split()[3] for line in running.lines if line.startswith("  local Entra ID"))
    sidecar = next(line.split()[1] for line in running.lines if line.startswith("  sidecar"))

    def run(*command: str, **environment: str) -> str:
        return subprocess.run(
            command,
            env=_environment() | environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        ).stdout

    own = "dev-gcp:team-a:app-a"
    variables = json.loads(run(*COMMAND, "env", own, "--url", url, "--format", "json"))
    token = run(*COMMAND, "token", own, "--url", f"{sidecar}/api/v1/token").strip()
    program = "import sys; token = sys.argv[1]\n" + _blocks("python")[0]
    assert run(sys.executable, "-c", program, token, **variables).split()[0] == "True"
    assert "401 not_a_jwt" in run(sys.executable, "-c", program, "nonsense", **variables)


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    """To files that exist, and from the README to the pages that lead to all others."""
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/*.md"),
        *ROOT.glob("benches/*.md"),
        *ROOT.glob("examples/*.md"),
    ]
    leads = {
        page: {
            (page.parent / target.partition("#")[0]).resolve()
            for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text())
        }
        for page in pages
    }
    for page, targets in leads.items():
        assert all(target.exists() for target in targets), page
    assert {*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/index.md")} <= leads[ROOT / "README.md"]


def test_env_prints_what_nais_would_inject(running: Running, tmp_path: Path) -> None:
    """As shell exports that `eval` takes, as JSON, and as files that only the owner can read."""
    url = next(line.split()[3] for line in running.lines if line.startswith("  local Entra ID"))

    def env(*arguments: str) -> str:
        command = [*COMMAND, "env", "dev-gcp:team-a:app-a", "--url", url, *arguments]
        return subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout

    expected = json.loads(env("--format", "json"))
    assert json.loads(env("--json")) == expected
    enabled = {name for name, value in expected.items() if name.endswith("_ENABLED") and value == "true"}
    assert enabled == {"AZURE_ENABLED", "MASKINPORTEN_ENABLED", "TOKEN_X_ENABLED", "IDPORTEN_ENABLED"}
    assert {"AZURE_APP_CLIENT_ID", "AZURE_APP_JWK", "AZURE_OPENID_CONFIG_TOKEN_ENDPOINT"} <= set(expected)
    for format_ in ("shell", "dotenv"):
        script = f'set -a; {env("--format", format_)}\nprintf %s "$AZURE_APP_JWK"'
        shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        assert json.loads(shell.stdout) == json.loads(expected["AZURE_APP_JWK"])
    folder = tmp_path / "azure"
    env("--format", "files", "--output", str(folder))
    assert {path.name: path.read_text() for path in folder.iterdir()} == expected
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    proxy = json.loads(env("--login-proxy", "--format", "json"))
    assert proxy["WONDERWALL_OPENID_PROVIDER"] == "idporten"
    assert proxy["IDPORTEN_WELL_KNOWN_URL"] == expected["IDPORTEN_WELL_KNOWN_URL"]


def test_env_for_an_unknown_application_is_one_line(running: Running) -> None:
    """With a suggestion."""
    url = next(line.split()[3] for line in running.lines if line.startswith("  local Entra ID"))
    done = subprocess.run(
        [*COMMAND, "env", "dev-gcp:team-a:app-x", "--url", url],
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "dev-gcp:team-a:app-a" in done.stderr


def test_env_writes_one_form_only(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` contradicts another `--format`."""
    assert main(["env", "a:b:c", "--json", "--format", "dotenv"]) == 2
    assert "pass either --json or --format" in capsys.readouterr().err


async def test_with_tls_all_parts_trust_the_local_authority(tmp_path: Path) -> None:
    """The local Entra ID is https, and sidecar and token generator reach it."""
    options = Options(
        (str(ROOT / "examples" / "manifests"),), None, (), "127.0.0.1", 0, 0, 0, str(tmp_path / "tls")
    )
    async with local_system(options) as system:
        assert system.emulator.base_url.startswith("https://127.0.0.1:")
        assert all([(await sidecar.running.service.readiness()).ready for sidecar in system.sidecars])
        ready = f"{system.generator.base_url}/readyz"
        async with aiohttp.ClientSession() as client, client.get(ready) as response:
            assert response.status == 200
        assert str(tmp_path / "tls" / "ca.pem") in describe(system)


def test_the_local_entra_id_runs_alone(tmp_path: Path) -> None:
    """`entra-fast emulator`: its address on standard output, status 0 at SIGTERM."""
    process = subprocess.Popen(
        [*COMMAND, "emulator", "--port", "0", "--state", str(tmp_path / "state")],
        cwd=tmp_path,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{url}/healthz") as response:
        assert response.status == 200
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert any((tmp_path / "state").iterdir())
