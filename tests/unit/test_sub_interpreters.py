"""Several Python interpreters in one process (PEP 734): one of them can use this package."""

from __future__ import annotations

import subprocess
import sys

import pytest

SENTENCE = (
    "entra_fast supports one interpreter per process and cannot be imported into this one: run all code that "
    "uses it in the main interpreter (mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
)

# `run(code, isolated)` runs code in a new sub-interpreter. From CPython 3.12 on, an isolated one has a GIL of
# its own. One that is not isolated is what Py_NewInterpreter makes, and with it mod_wsgi.
PRELUDE = """
import sys
if sys.version_info >= (3, 13):
    import _interpreters
    def create(isolated):
        return _interpreters.create("isolated" if isolated else "legacy")
    def run_in(interpreter, code):
        failure = _interpreters.exec(interpreter, code)
        assert failure is None, failure.formatted
else:
    import _xxsubinterpreters as _interpreters
    def create(isolated):
        return _interpreters.create(isolated=isolated)
    run_in = _interpreters.run_string
def run(code, isolated=False):
    run_in(create(isolated), code)
"""

USE = """
from entra_fast.validate import InvalidToken, Validator
with_keys = Validator("https://issuer", "audience", jwks='{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1",'
    '"alg":"EdDSA","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}', algorithms=["EdDSA"])
try:
    with_keys.validate("nonsense")
except InvalidToken as error:
    print("rejected", error.code, flush=True)
"""

REFUSED = """
for module in ("entra_fast", "entra_fast.validate", "entra_fast"):
    try:
        __import__(module)
    except ImportError as error:
        print(type(error).__name__, error.name, error, flush=True)
"""
SAID = [f"ImportError entra_fast {SENTENCE}"] * 3


def output_of(program: str) -> list[str]:
    """The lines that a process with sub-interpreters prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + f"USE, REFUSED = {USE!r}, {REFUSED!r}\n" + program],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_second_interpreter_is_refused_and_told_the_remedy() -> None:
    """Again at each attempt. The main interpreter, which was first, goes on as before."""
    assert output_of("exec(USE); run(REFUSED); exec(USE)") == [
        "rejected not_a_jwt",
        *SAID,
        "rejected not_a_jwt",
    ]


def test_a_sub_interpreter_that_is_first_works_and_any_other_is_refused() -> None:
    """A single application of mod_wsgi runs in a sub-interpreter. A second one is refused, and so is the main
    interpreter."""
    assert output_of("run(USE); run(REFUSED); exec(REFUSED)") == ["rejected not_a_jwt", *SAID, *SAID]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="all interpreters share a GIL before CPython 3.12 (PEP 684)"
)
def test_an_interpreter_with_a_gil_of_its_own_is_refused() -> None:
    """Even as the first one: CPython loads only extensions there that declare support for it."""
    assert output_of("run(REFUSED, isolated=True); exec(USE)") == [*SAID, "rejected not_a_jwt"]


def test_another_import_error_stays_what_it_is() -> None:
    """A missing extension is not reported as a second interpreter."""
    program = "import sys; sys.modules['entra_fast._native'] = None; import entra_fast"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "entra_fast._native" in done.stderr.splitlines()[-1]
    assert "interpreter" not in done.stderr
