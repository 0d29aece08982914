"""Containers without an engine: what an image and its container promise, in namespaces of their own.

A process runs as the image's user, without capabilities, in a root that has nothing but what it is given, all
of it read-only. It needs root and a kernel that lets it make namespaces; where it cannot, tests are skipped
with the reason.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = 65532
PROGRAMS = ("ip", "mount", "nsenter", "setpriv", "unshare")
START_LIMIT = 60.0

# Builds the root and becomes the process. Arguments: the new root, a file with `source<TAB>target<TAB>mode`.
_ENTER = r"""
set -eu
root=$1 mounts=$2 group=$3; shift 3
[ -z "$group" ] || echo $$ > "$group"
mount -t tmpfs -o mode=755 tmpfs "$root"
mkdir -p "$root/proc" "$root/dev" "$root/tmp"
chmod 755 "$root/tmp"  # nobody but root can write: there is no /tmp either
mount --bind /proc "$root/proc"
for device in null zero urandom random; do
  touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
while IFS="$(printf '\t')" read -r source target mode; do
  mkdir -p "$root$(dirname "$target")"
  if [ -d "$source" ]; then mkdir -p "$root$target"; else touch "$root$target"; fi
  mount --bind "$source" "$root$target"
  mount -o "remount,bind,$mode,nosuid" "$root$target"
done < "$mounts"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"""


@functools.cache
def unavailable() -> str | None:
    """Why containers cannot be made here; None if they can."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"needs {', '.join(missing)} (util-linux, iproute2)"
    made = ["unshare", "-nm", "ip", "link", "add", "name", "a", "type", "veth", "peer", "name", "b"]
    if subprocess.run(made, capture_output=True, check=False).returncode:
        return "the kernel does not let this process make mount and network namespaces"
    return None


@dataclass(frozen=True)
class Image:
    """What is in an image, and how its container starts.

    Attributes:
        environment: a virtual environment with the installed wheel, which is at /opt/entra-fast.
        entrypoint, command, variables: ENTRYPOINT, CMD and ENV.
        health: the command of HEALTHCHECK, if there is one.
    """

    environment: Path
    entrypoint: tuple[str, ...] = ("entra-fast",)
    command: tuple[str, ...] = ("serve",)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {
            "PATH": "/opt/entra-fast/bin:/usr/local/bin:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
    )
    health: tuple[str, ...] = ()

    def mounts(self) -> list[tuple[str, str, str]]:
        """The system's libraries, the interpreter and the virtual environment."""
        base = subprocess.run(
            [str(self.environment / "bin" / "python"), "-c", "import sys; print(sys.base_prefix)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        found = [(name, name, "ro") for name in ("/usr", "/bin", "/lib", "/lib64") if Path(name).exists()]
        if base not in ("/usr", ""):
            found.append((base, base, "ro"))
        # At its own path too: the scripts of a virtual environment name their interpreter.
        paths = {"/opt/entra-fast", str(self.environment)}
        return [*found, *((str(self.environment), path, "ro") for path in sorted(paths))]


class Container:
    """A container's process, and what it has written."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return self._log.read_text(errors="replace")

    def wait(self, seconds: float = START_LIMIT) -> int:
        """The exit status, once it has ended by itself."""
        return self.process.wait(seconds)

    def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@dataclass
class Pod:
    """Containers with one network namespace and one host name."""

    namespace: str
    address: str
    machine: Machine

    def run(
        self,
        image: Image,
        command: Sequence[str] | None = None,
        *,
        entrypoint: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
        volumes: Sequence[tuple[Path, str, str]] = (),
        group: Path | None = None,
    ) -> Container:
        """Start a container.

        Args:
            command, entrypoint: instead of the image's. An entrypoint of its own takes the command away.
            volumes: source, target, and `ro` or `rw`.
            group: a file of a control group that gets the process id.
        """
        folder = Path(tempfile.mkdtemp(dir=self.machine.folder))
        hosts = folder / "hosts"
        hosts.write_text(self.machine.hosts())
        mounts = [*image.mounts(), (str(hosts), "/etc/hosts", "ro")]
        mounts += [(str(source), target, mode) for source, target, mode in volumes]
        listed = folder / "mounts"
        listed.write_text("".join("\t".join(mount) + "\n" for mount in mounts))
        (folder / "root").mkdir()
        first = image.entrypoint if entrypoint is None else tuple(entrypoint)
        rest = tuple(command) if command is not None else image.command if entrypoint is None else ()
        environment = {**image.variables, **(variables or {})}
        words = [
            *("nsenter", f"--net={self.namespace}", "unshare", "-m", "--propagation", "private"),
            *("sh", "-c", _ENTER, "enter", str(folder / "root"), str(listed), str(group or "")),
            *("/usr/bin/setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs"),
            *("--bounding-set=-all", "--inh-caps=-all", "--"),
            *("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items())),
            *(*first, *rest),
        ]
        log = folder / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd="/")
        container = Container(process, log)
        self.machine.containers.append(container)
        return container

    def request(
        self, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of a request from within the pod, with the pod's host names; 0 if nothing answers.
        A body that is no text is sent as JSON."""
        program = (
            "import json, sys, socket, urllib.request, urllib.error\n"
            "url, body, headers, hosts = json.load(sys.stdin)\n"
            "known = socket.getaddrinfo\n"
            "socket.getaddrinfo = lambda host, *more, **named: known(hosts.get(host, host), *more, **named)\n"
            "request = urllib.request.Request(url, body and body.encode(), headers)\n"
            "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
            "try: answer = opener.open(request, timeout=10)\n"
            "except urllib.error.HTTPError as error: answer = error\n"
            "except OSError: print('0'); sys.exit()\n"
            "print(answer.status); print(answer.read().decode(), end='')\n"
        )
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        sent = dict(headers or {})
        if text is not body:
            sent.setdefault("Content-Type", "application/json")
        answered = subprocess.run(
            ["nsenter", f"--net={self.namespace}", sys.executable, "-I", "-c", program],
            input=json.dumps([url, text, sent, self.machine.names]),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        status, _, content = answered.partition("\n")
        return int(status), content


@dataclass
class Machine:
    """A machine with one bridge that all its pods are on."""

    folder: Path
    _bridge: str
    names: dict[str, str] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    _pauses: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    def hosts(self) -> str:
        """The file /etc/hosts of each container."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.names.items())]
        return "\n".join(lines) + "\n"

    def pod(self, *names: str) -> Pod:
        """A pod that the others reach by these names."""
        number = next(self._numbers)
        address = f"10.203.0.{number}"
        pause = _pause()
        self._pauses.append(pause)
        ends = (f"v{number}", "eth0")
        _ip(
            self._bridge,
            "link",
            "add",
            "name",
            ends[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            str(pause.pid),
        )
        _ip(self._bridge, "link", "set", ends[0], "master", "bridge", "up")
        inside = f"/proc/{pause.pid}/ns/net"
        _ip(inside, "link", "set", "lo", "up")
        _ip(inside, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip(inside, "link", "set", "eth0", "up")
        self.names.update(dict.fromkeys(names, address))
        return Pod(inside, address, self)


def _pause() -> subprocess.Popen[bytes]:
    """A process that keeps a network namespace, as the pause container of a pod does."""
    process = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _ip(namespace: str, *arguments: str) -> None:
    subprocess.run(["nsenter", f"--net={namespace}", "ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    """A machine; all its containers are gone at the end."""
    pause = _pause()
    folder = Path(tempfile.mkdtemp(prefix="entra-fast-containers-"))
    folder.chmod(0o755)
    bridge = f"/proc/{pause.pid}/ns/net"
    made = Machine(folder, bridge)
    try:
        _ip(bridge, "link", "add", "name", "bridge", "type", "bridge")
        _ip(bridge, "link", "set", "bridge", "up")
        yield made
    finally:
        for container in made.containers:
            container.process.kill()
            container.process.wait()
        for process in (*made._pauses, pause):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Any, seconds: float = START_LIMIT) -> Any:
    """The first result of a function that is true; fails when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return found


def install(wheel: Path, extras: str, folder: Path) -> Path:
    """A virtual environment with nothing but the wheel and what it needs, that anyone may read."""
    folder.chmod(0o755)
    environment = folder / "entra-fast"
    make = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(make, check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", f"{wheel}[{extras}]"], check=True)
    purelib = sysconfig.get_path("purelib", vars={"base": str(environment)})
    assert Path(purelib, "entra_fast").is_dir()
    return environment
