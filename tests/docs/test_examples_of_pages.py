"""What pages show, compared with what servers and commands really answer."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from entra_fast import _native
from entra_fast.cli.dev_system import LocalSystem
from support.pages_that_run import ROOT, World, blocks

ENDPOINTS = ROOT / "docs" / "reference" / "endpoints.md"
EMULATOR = ROOT / "docs" / "guides" / "emulator.md"
ENTRA_ID = {"identity_provider": "entra_id"}

MANIFEST = """\
apiVersion: nais.io/v1alpha1
kind: Application
metadata:
  name: app
  namespace: team
spec:
  image: image
  iamge: image
  port: 8080
  azure:
    application:
      enabled: maybe
"""
DIRECTORY = """\
tenant: example.com
users:
  - username: ada@example.com
    name: Ada
    groups: []



  - username: ola
    name: Ola
"""


def post(url: str, form: dict[str, str] | bytes) -> Any:
    """The JSON of a response, whatever its status."""
    body = form if isinstance(form, bytes) else urllib.parse.urlencode(form).encode()
    kind = "application/json" if isinstance(form, bytes) else "application/x-www-form-urlencoded"
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as refused:
        return json.load(refused)


def names(value: Any) -> Any:
    """The members of a document, without their values."""
    if isinstance(value, dict):
        return {name: names(inner) for name, inner in value.items()}
    return [names(inner) for inner in value] if isinstance(value, list) else None


def maskinporten_request(body: dict[str, Any]) -> dict[str, Any]:
    """A request for a token, as the contract reads it."""
    enabled = _native.Provider(
        "maskinporten",
        aliases=[],
        issues=True,
        exchanges=False,
        rewrites_targets=False,
        accepts_claims=False,
        accepts_details=True,
        tenant="",
        client_id="client",
    )
    providers = _native.Providers([enabled], [])
    read = providers.parse_token_request(json.dumps(body).encode(), form=False, exchange=False)
    details = json.loads(str(read[-1]))
    return {"identity_provider": "maskinporten", "target": read[1], "authorization_details": details}


def test_the_documents_in_the_page_of_endpoints_are_real(system: LocalSystem, world: World) -> None:
    """`/readyz` and a token have these members; the claims challenge is taken; an error has them, too."""
    ready, detailed, token, challenge, error = [json.loads(block.text) for block in blocks(ENDPOINTS)]
    sidecar = system.sidecars[0].running
    with urllib.request.urlopen(f"{sidecar.probe_url}/readyz") as response:
        document = json.load(response)
    with_reason, without_credential = ready["providers"]
    assert document.keys() == ready.keys() - {"reason"}
    for provider in document["providers"]:
        shown = with_reason if "credential" in provider else without_credential
        assert provider.keys() == shown.keys()
    assert maskinporten_request(detailed) == detailed
    url = world.environment["NAIS_TOKEN_ENDPOINT"]
    assert names(post(url, {**ENTRA_ID, "target": "dev-gcp:team-b:app-b"})) == names(token)
    assert "access_token" in post(url, json.dumps(challenge).encode())
    refusal = {
        **ENTRA_ID,
        "target": "dev-gcp:team-c:app-nobody",
        "user_token": str(world.names["user_token"]),
    }
    refused = post(world.environment["NAIS_TOKEN_EXCHANGE_ENDPOINT"], refusal)
    assert set(error) <= set(refused)
    assert [refused[name] for name in ("error", "error_codes", "suberror")] == [
        error[name] for name in ("error", "error_codes", "suberror")
    ]


def test_mistakes_in_manifests_are_printed_as_the_page_shows_them(tmp_path: Path) -> None:
    """File, line, field, and what was expected; lines may be others."""
    (tmp_path / ".nais").mkdir()
    (tmp_path / ".nais" / "app.yaml").write_text(MANIFEST)
    (tmp_path / "users.yaml").write_text(DIRECTORY)
    shown = next(block.text for block in blocks(EMULATOR) if ".nais/app.yaml" in block.text)
    program = "import sys; from entra_fast.cli.main import main; sys.exit(main())"
    arguments = ["emulator", "--port", "0", "--manifests", ".nais", "--directory", "users.yaml"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    printed = [line.removeprefix("entra-fast: ") for line in done.stderr.splitlines()]
    assert [re.sub(r"\d+", "0", line) for line in shown.splitlines()] == [
        re.sub(r"\d+", "0", line) for line in printed
    ]
