"""The pytest plugin. pytest loads it at every start, so nothing is imported here that a fixture does not
need.

What belongs here: fixtures and settings. Their behaviour belongs to the classes of this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from entra_fast.testing import (
        Clock,
        LocalAnsattporten,
        LocalEntra,
        LocalIDPorten,
        LocalMaskinporten,
        LocalTokenX,
        TokenMaker,
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    """The settings of the plugin."""
    parser.addini(
        "entra_manifests",
        "files and folders with NAIS manifests, whose access policies decide about the tokens in tests; "
        "without, every application may call every other one",
        type="paths",
        default=[],
    )
    parser.addini(
        "entra_directory", "YAML file with the users and groups of the tests", type="paths", default=[]
    )


@pytest.fixture
def local_entra(pytestconfig: pytest.Config) -> LocalEntra:
    """A local Entra ID for this test, in this process: `validator(...)`, `environment(...)`, `serve()`."""
    from entra_fast.testing import LocalEntra  # noqa: PLC0415 - see above

    directory = pytestconfig.getini("entra_directory")
    return LocalEntra(pytestconfig.getini("entra_manifests"), directory[0] if directory else None)


@pytest.fixture
def entra_token(local_entra: LocalEntra) -> TokenMaker:
    """Makes access tokens: `entra_token(consumer, target, user=None, **claims)`, and bad ones by name, such
    as `entra_token.expired(...)`."""
    return local_entra.token


@pytest.fixture
def entra_clock(local_entra: LocalEntra) -> Clock:
    """The clock of the local Entra ID and of its validators: `entra_clock.advance(seconds)`."""
    return local_entra.clock


@pytest.fixture
def entra_keys_down(local_entra: LocalEntra) -> Iterator[None]:
    """During this test no keys are available: the validators of `local_entra` raise KeysUnavailable."""
    with local_entra.keys_down():
        yield


@pytest.fixture
def entra_server(local_entra: LocalEntra) -> Iterator[LocalEntra]:
    """`local_entra`, served over HTTP on loopback: for code that fetches keys and tokens itself, as the
    variables of `environment(...)` say."""
    with local_entra.serve():
        yield local_entra


@pytest.fixture
def local_tokenx(entra_clock: Clock) -> LocalTokenX:
    """TokenX for this test: `token(consumer, target, **claims)`, `validator(audience)`. Its clock is
    `entra_clock`, as for the next three."""
    from entra_fast.testing import LocalTokenX  # noqa: PLC0415 - see above

    return LocalTokenX(entra_clock)


@pytest.fixture
def local_maskinporten(entra_clock: Clock) -> LocalMaskinporten:
    """Maskinporten for this test: `token(scope, **claims)`, `validator()`."""
    from entra_fast.testing import LocalMaskinporten  # noqa: PLC0415 - see above

    return LocalMaskinporten(entra_clock)


@pytest.fixture
def local_idporten(entra_clock: Clock) -> LocalIDPorten:
    """ID-porten for this test: `token(audience, **claims)`, `id_token(client)`, `validator(audience)`."""
    from entra_fast.testing import LocalIDPorten  # noqa: PLC0415 - see above

    return LocalIDPorten(entra_clock)


@pytest.fixture
def local_ansattporten(entra_clock: Clock) -> LocalAnsattporten:
    """Ansattporten for this test: the same as `local_idporten`."""
    from entra_fast.testing import LocalAnsattporten  # noqa: PLC0415 - see above

    return LocalAnsattporten(entra_clock)
