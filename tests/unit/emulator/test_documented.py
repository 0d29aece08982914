"""The pages of the local Entra ID name every error, fault and path that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from entra_fast._aadsts import KINDS
from entra_fast.emulator import LocalEntraId
from entra_fast.emulator.protocol.faults import KINDS_OF_FAULT
from entra_fast.emulator.web.server import build_app

DOCS = Path(__file__).parents[3] / "docs"
GUIDE = (DOCS / "guides" / "emulator.md").read_text()
REFERENCE = (DOCS / "reference" / "local-entra-id.md").read_text()
OTHER_PROVIDERS = (DOCS / "guides" / "local-providers.md").read_text()


def test_every_error_is_documented() -> None:
    """Code, OAuth error, status and when it is used, in one row."""
    rows = set(re.findall(r"^\| (\d+) \| `(\w+)` \| (\d+) \| (.*) \|$", REFERENCE, re.MULTILINE))
    assert rows == {(str(kind.code), kind.error, str(kind.status), kind.when) for kind in KINDS.values()}


def test_every_fault_is_documented() -> None:
    """Each kind has a row."""
    section = GUIDE.partition("\n## Simulate faults")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \| ", section.partition("| kind |")[2], re.MULTILINE)
    assert documented == list(KINDS_OF_FAULT)


def test_every_path_of_the_api_is_documented() -> None:
    """Each resource below /admin/api is named, and each path of the provider."""
    local = LocalEntraId()
    for resource in build_app(local, local.providers).router.resources():
        path = resource.canonical
        if path.startswith("/admin/api/"):
            assert path.split("/")[3] in REFERENCE, path
        elif path.startswith("/idporten/") and "{" not in path:
            assert path.rsplit("/", 1)[-1] in OTHER_PROVIDERS, path
        elif "{tenant}" in path or path.startswith(("/oidc", "/common", "/clusters", "/healthz")):
            assert next(part for part in reversed(path.split("/")) if "{" not in part) in REFERENCE, path
