"""`make audit` finds what is planted, finds nothing where nothing is, and says when it could not look."""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECORDED = json.loads((HERE / "osv.json").read_text())
REFUSED = "http://127.0.0.1:9"
"""A port that nothing listens on."""

pytestmark = [
    pytest.mark.skipif("AUDIT_TESTED" not in os.environ, reason="make test-audit: installs cargo-deny first"),
    pytest.mark.timeout(1800),
]


class Osv(http.server.BaseHTTPRequestHandler):
    """The query endpoint of api.osv.dev, with recorded answers."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = RECORDED.get(f"{asked['package']['name'].lower()} {asked['version']}")
        body = json.dumps({} if found is None else {"vulns": found}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables that name the recorded databases: a git repository, and an OSV server."""
    folder = tmp_path_factory.mktemp("databases")
    repository = folder / "advisory-db"
    shutil.copytree(HERE / "advisory-db", repository)
    git = functools.partial(subprocess.run, check=True, cwd=repository, capture_output=True)
    git(["git", "init", "--quiet", "--initial-branch=main"])
    git(["git", "add", "."])
    git(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.test", "commit", "--quiet", "-m", "Recorded"]
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "AUDIT_RUST_DB": repository.as_uri(),
        "AUDIT_OSV_URL": f"http://127.0.0.1:{server.server_port}/v1/query",
    }
    server.shutdown()


def audit(**variables: str) -> tuple[int, str]:
    """Exit status and output."""
    done = subprocess.run(
        ["requirements/audit.sh"],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


PLANTED = {
    "AUDIT_MANIFESTS": "tests/audit/rust/Cargo.toml",
    "AUDIT_REQUIREMENTS": "tests/audit/requirements.txt",
}


def test_planted_vulnerabilities_are_found(databases: dict[str, str]) -> None:
    """In a lock file of each language, by their numbers."""
    status, output = audit(**databases, **PLANTED)
    assert status == 1, output
    assert "RUSTSEC-2021-0003" in output
    assert "audit: urllib3 1.26.0: PYSEC-2023-192, fixed in 1.26.17" in output
    assert output.splitlines()[-1] == (
        "audit: FAILED: tests/audit/rust/Cargo.toml: advisories; tests/audit/requirements.txt: advisories"
    )


def test_what_is_shipped_has_none_of_them(databases: dict[str, str]) -> None:
    """The same databases and every lock file of ours: every package is looked up, and none is found."""
    status, output = audit(**databases, STRICT="1")
    assert status == 0, output
    locked = sorted(path.name for path in (ROOT / "requirements").glob("*.txt"))
    assert "run.txt" in locked
    for name in locked:
        assert f"requirements/{name}: advisories" in output
    assert output.count(", 0 vulnerable") == len(locked)


def test_databases_that_cannot_be_reached_are_named(tmp_path: Path) -> None:
    """They fail the audit with STRICT=1 only, and are never taken for databases that know of nothing."""
    out_of_reach = {"AUDIT_RUST_DB": (tmp_path / "none").as_uri(), "AUDIT_OSV_URL": f"{REFUSED}/v1/query"}
    for strict, expected in (("", 0), ("1", 1)):
        status, output = audit(**out_of_reach, **PLANTED, STRICT=strict)
        assert status == expected, output
        last = output.splitlines()[-1]
        assert last == "audit: NOT CHECKED, because out of reach: Rust advisories; Python advisories"
