"""deploy/compose/compose.yaml, with the same commands, variables, volumes, names and order as an engine would
use, but in namespaces of this machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.containerfile import image
from support.containers import USER, Container, Image, Machine, Pod, machine, until

FILE = Path(__file__).resolve().parents[2] / "deploy" / "compose" / "compose.yaml"
DEFAULT = re.compile(r"\$\{[A-Z_]+:-([^}]*)\}")
"""A variable of the engine's environment, and its default."""
PORTS = re.compile(r"127\.0\.0\.1:(\d+):(\d+)")
UNDERSTOOD = {
    *("image", "build", "command", "entrypoint", "environment", "volumes", "networks", "network_mode"),
    *("depends_on", "healthcheck", "ports", "read_only", "cap_drop", "security_opt", "mem_limit"),
}
"""Keys of services that this test does what they say, or checks."""


class Composition:
    """The services of the file, started in their order."""

    def __init__(self, host: Machine, environment: Path) -> None:
        document = yaml.safe_load(DEFAULT.sub(r"\1", FILE.read_text()))
        self.services: dict[str, dict[str, Any]] = document["services"]
        self.running: dict[str, Container] = {}
        self.pods: dict[str, Pod] = {}
        self._host, self._environment = host, environment
        self._volumes = {name: self._volume(name) for name in document["volumes"]}
        for name, service in self.services.items():
            assert service.keys() <= UNDERSTOOD, f"{name}: extend this test"
            if "network_mode" not in service:
                aliases = service.get("networks", {}).get("default", {}).get("aliases", [])
                self.pods[name] = host.pod(name, *aliases)
        for name, service in self.services.items():
            if "network_mode" in service:
                self.pods[name] = self.pods[service["network_mode"].removeprefix("service:")]
        for name in self.services:
            self.start(name)

    def _volume(self, name: str) -> Path:
        folder = self._host.folder / f"volume-{name}"
        folder.mkdir()
        os.chown(folder, USER, USER)  # as the folder in the image
        return folder

    def image(self, service: dict[str, Any]) -> Image:
        return image(service["build"]["target"], self._environment)

    def start(self, name: str) -> None:
        """Start a service and, before it, what it depends on."""
        if name in self.running:
            return
        service = self.services[name]
        for other, condition in service.get("depends_on", {}).items():
            self.start(other)
            if condition["condition"] == "service_healthy":
                self.until_healthy(other)
            else:
                assert condition["condition"] == "service_completed_successfully"
                assert self.running[other].wait() == 0, self.running[other].output
        volumes = []
        for text in service.get("volumes", ()):
            source, target, mode = (*text.split(":"), "rw")[:3]
            named = self._volumes.get(source)
            volumes.append((named or (FILE.parent / source).resolve(), target, mode))
        self.running[name] = self.pods[name].run(
            self.image(service),
            service.get("command"),
            entrypoint=service.get("entrypoint"),
            variables=service.get("environment"),
            volumes=volumes,
        )

    def until_healthy(self, name: str) -> None:
        """Run the health check until it succeeds, in a container like the service's."""
        service = self.services[name]
        test = service.get("healthcheck", {}).get("test", ["CMD", *self.image(service).health])
        assert test[0] == "CMD"

        def healthy() -> bool:
            assert self.running[name].process.poll() is None, self.running[name].output
            check = self.pods[name].run(
                self.image(service), [], entrypoint=test[1:], variables=service.get("environment")
            )
            return check.wait() == 0

        until(healthy)


@pytest.fixture(scope="module")
def composition(environment: Path) -> Iterator[Composition]:
    """The running services."""
    with machine() as host:
        made = Composition(host, environment)
        made.until_healthy("token-generator")
        yield made


def test_the_application_accepts_a_token_and_gets_one(composition: Composition) -> None:
    """The commands in the file's first lines: from the token generator through application and sidecar."""
    generator, application = composition.pods["token-generator"], composition.pods["application"]
    status, token = generator.request("http://127.0.0.1:8081/api/public/m2m", "aud=dev-gcp:team-a:app-a")
    assert status == 200, token
    url = "http://127.0.0.1:3001/"
    status, text = until(
        lambda: _answered(application.request(url, None, {"Authorization": f"Bearer {token}"}))
    )
    assert status == 200, text
    answer = json.loads(text)
    assert (answer["caller"]["idtyp"], answer["target"]) == ("app", "dev-gcp:team-b:app-b")
    assert answer["expires_in"] > 0
    status, text = application.request(url, None, {"Authorization": f"Bearer {token[:-4]}AAAA"})
    assert (status, json.loads(text)["error"]) == (401, "token signature is invalid")


def _answered(answer: tuple[int, str]) -> tuple[int, str] | None:
    return answer if answer[0] else None


def test_the_sidecar_says_that_it_asks_over_plain_http(composition: Composition) -> None:
    """At its start, and in its metrics."""
    output = composition.running["sidecar"].output
    warnings = [line for line in map(json.loads, output.splitlines()) if line["level"] == "warning"]
    assert "ENTRA_FAST_INSECURE_PROVIDER_HOSTS" in warnings[0]["message"]
    assert "entra.localhost" in warnings[0]["message"]
    _, metrics = composition.pods["sidecar"].request("http://127.0.0.1:7165/metrics")
    assert "\nentra_fast_insecure_provider_hosts 1.0\n" in metrics
    assert "ENTRA_FAST_INSECURE_PROVIDER_HOSTS" in composition.running["token-generator"].output


def test_the_sidecar_is_reached_by_its_application_only(composition: Composition) -> None:
    """Other containers find no listener on its port; they find the probes."""
    address = composition.pods["sidecar"].address
    elsewhere = composition.pods["emulator"]
    assert elsewhere.request(f"http://{address}:7164/api/v1/token", {"target": "x"})[0] == 0
    assert elsewhere.request(f"http://{address}:7165/healthz") == (200, "ok")


def test_every_published_port_has_a_listener(composition: Composition) -> None:
    """From outside of the container, as the engine forwards it."""
    published = [
        (name, port) for name, service in composition.services.items() for port in service.get("ports", ())
    ]
    assert len(published) == 4
    for name, port in published:
        found = PORTS.fullmatch(port)
        assert found is not None, "published on loopback only"
        assert found[1] == found[2]
        asked = f"http://{composition.pods[name].address}:{found[2]}/healthz"
        assert until(lambda asked=asked: composition.pods["emulator"].request(asked)[0])


def test_browsers_and_containers_see_one_issuer(composition: Composition) -> None:
    """The address in the discovery document is one that browsers resolve to this machine."""
    url = "http://entra.localhost:8080/common/v2.0/.well-known/openid-configuration"
    status, text = composition.pods["token-generator"].request(url)
    document = json.loads(text)
    assert status == 200
    for name in ("token_endpoint", "authorization_endpoint", "jwks_uri"):
        assert document[name].startswith("http://entra.localhost:8080/")


@pytest.mark.parametrize("name", ["emulator", "sidecar", "application", "token-generator"])
def test_containers_have_no_more_rights_than_they_need(name: str) -> None:
    """What the test's own containers have: no writable root, no capabilities, no way to more of them."""
    service = yaml.safe_load(FILE.read_text())["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_it_stops_in_order(composition: Composition) -> None:
    """Each server ends with status 0 on SIGTERM. Last, because nothing answers after it."""
    for name in ("token-generator", "sidecar", "emulator"):
        assert composition.running[name].stop() == 0, composition.running[name].output
