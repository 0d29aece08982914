"""Two applications in one daemon process of mod_wsgi, behind a real Apache: `make test-apache`."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import entra_fast

SECONDS = 60.0
APACHE = shutil.which("apache2") or shutil.which("httpd") or "/usr/sbin/apache2"
MODULES = next(
    (path for path in map(Path, ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules")) if path.is_dir()),
    Path(os.devnull),
)
MOD_WSGI = MODULES / "mod_wsgi.so"

APPLICATION = """
def application(environ, start_response):
    try:
        from entra_fast.validate import InvalidToken, Validator
    except ImportError as error:
        text = f"not imported: {error}"
    else:
        keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1", "alg": "EdDSA", "use": "sig",
                          "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}
        try:
            Validator("https://issuer", "audience", jwks=keys, algorithms=["EdDSA"]).validate("nonsense")
        except InvalidToken as error:
            text = f"rejected: {error.code}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"""

CONFIGURATION = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
User {user}
Group {user}
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule wsgi_module {modules}/mod_wsgi.so
WSGISocketPrefix {folder}/wsgi
WSGIDaemonProcess both processes=1 threads=2 python-path={path}
WSGIProcessGroup both
WSGIScriptAlias /first {folder}/first.wsgi
WSGIScriptAlias /second {folder}/second.wsgi
<Directory {folder}>
Require all granted
{directive}
</Directory>
"""


def _missing() -> str | None:
    """Why this test cannot run here."""
    if not Path(APACHE).exists() or not MOD_WSGI.exists():
        return "needs Apache and mod_wsgi (Debian: apt install apache2 libapache2-mod-wsgi-py3)"
    # The extension is built for the Python that runs this test.
    found = re.search(rb"libpython(3\.\d+)", MOD_WSGI.read_bytes())
    version = found[1].decode() if found is not None else "an unknown Python"
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return None if version == own else f"mod_wsgi here is for {version}, and the extension for {own}"


MISSING = _missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@contextmanager
def apache(directive: str = "") -> Iterator[str]:
    """An Apache with two applications; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # Apache's own user reads the applications
        for application in ("first", "second"):
            (folder / f"{application}.wsgi").write_text(APPLICATION)
        path = f"{Path(entra_fast.__file__).parents[1]}:{sysconfig.get_path('purelib')}"
        (folder / "apache.conf").write_text(
            CONFIGURATION.format(
                port=port,
                folder=folder,
                modules=MODULES,
                path=path,
                directive=directive,
                user="www-data" if APACHE.endswith("apache2") else "apache",
            )
        )
        process = subprocess.Popen([APACHE, "-DFOREGROUND", "-f", str(folder / "apache.conf")])
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + SECONDS
            while True:
                assert process.poll() is None, (folder / "error.log").read_text()
                try:
                    urllib.request.urlopen(url, timeout=SECONDS).close()
                except urllib.error.HTTPError:
                    break
                except OSError:
                    assert time.monotonic() < deadline, "Apache does not listen"
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=SECONDS)


def said(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        return bytes(response.read()).decode()


def test_the_second_application_is_told_what_to_configure() -> None:
    """By default each has a sub-interpreter of its own. The first that imports the library can use it."""
    with apache() as url:
        assert said(f"{url}/first") == "rejected: not_a_jwt"
        for _ in range(2):
            assert said(f"{url}/second") == (
                "not imported: entra_fast supports one interpreter per process and cannot be imported into "
                "this one: run all code that uses it in the main interpreter (mod_wsgi: "
                "WSGIApplicationGroup %{GLOBAL})"
            )
        assert said(f"{url}/first") == "rejected: not_a_jwt"


def test_both_applications_work_in_the_main_interpreter() -> None:
    """`WSGIApplicationGroup %{GLOBAL}`, as the sentence says."""
    with apache("WSGIApplicationGroup %{GLOBAL}") as url:
        for name in ("first", "second", "first"):
            assert said(f"{url}/{name}") == "rejected: not_a_jwt"
