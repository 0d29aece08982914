"""Metrics of the library: the callback, prometheus-client, and what the validators count."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from entra_fast import metrics
from entra_fast.errors import InvalidToken, KeysUnavailable
from entra_fast.integrations._bearer import Incoming
from entra_fast.integrations._guard import SyncGuard
from entra_fast.validate import AsyncValidator, Validator
from support.key_server import Answer, KeyServer
from support.tokens import AUDIENCE, ISSUER, NOW, jwks, signer, validator

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
KEY_SETS = "entra_fast_key_set_requests_total"


@pytest.fixture
def counted() -> Iterator[list[tuple[str, Mapping[str, str]]]]:
    """What the callback gets."""
    found: list[tuple[str, Mapping[str, str]]] = []
    metrics.set_callback(lambda name, labels: found.append((name, labels)))
    yield found
    metrics.set_callback(None)


def in_prometheus(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


def test_decisions_go_to_the_callback(counted: list[Any]) -> None:
    """Each with its name and labels; prometheus-client is left alone meanwhile."""
    guard = SyncGuard("calling", validator(), optional=True)
    guard.admit(Incoming("GET", "/", []))
    guard.admit(Incoming("GET", "/", [f"Bearer {signer().token()}"]))
    name = "entra_fast_bearer_decisions_total"
    assert counted == [
        (name, {"framework": "calling", "outcome": "anonymous"}),
        (name, {"framework": "calling", "outcome": "accepted"}),
    ]
    assert in_prometheus(name, framework="calling", outcome="accepted") == 0
    metrics.set_callback(None)
    guard.admit(Incoming("GET", "/", []))
    assert in_prometheus(name, framework="calling", outcome="anonymous") == 1
    assert len(counted) == 2


def test_a_validator_counts_its_requests_for_keys(counted: list[Any]) -> None:
    """By outcome: a failure with its code, then a success."""
    with KeyServer(jwks(signer())) as keys:
        good = keys.answers["/keys"]
        keys.answers["/keys"] = Answer(status=503)
        failing = Validator(ISSUER, AUDIENCE, jwks_uri=keys.keys_url, clock=lambda: NOW)
        with failing, pytest.raises(KeysUnavailable):
            failing.validate(signer().token())
        assert (KEY_SETS, {"outcome": "keys_unavailable"}) in counted
        keys.answers["/keys"] = good
        with Validator(ISSUER, AUDIENCE, jwks_uri=keys.keys_url, clock=lambda: NOW) as working:
            working.validate(signer().token())
        assert (KEY_SETS, {"outcome": "ok"}) in counted


async def test_an_asynchronous_validator_counts_the_same(counted: list[Any]) -> None:
    """On its event loop."""
    with KeyServer(jwks(signer())) as keys:
        async with AsyncValidator(ISSUER, AUDIENCE, jwks_uri=keys.keys_url, clock=lambda: NOW) as working:
            await working.validate(signer().token())
    assert counted == [(KEY_SETS, {"outcome": "ok"})]


def test_a_failing_callback_has_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    """Requests are decided as before; the failure is logged once."""

    def failing(name: str, labels: Mapping[str, str]) -> None:
        raise RuntimeError("no connection to statsd")

    metrics.set_callback(failing)
    try:
        guard = SyncGuard("failing", validator(), optional=True)
        for _ in range(3):
            assert guard.admit(Incoming("GET", "/", [])) is None
    finally:
        metrics.set_callback(None)
    (record,) = [one for one in caplog.records if one.name == "entra_fast.metrics"]
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None


async def _asynchronous(name: str, labels: Mapping[str, str]) -> None: ...


@pytest.mark.parametrize("wrong", ["statsd", 1, _asynchronous])
def test_what_is_no_callback(wrong: Any) -> None:
    """A coroutine function would be called, and never awaited."""
    with pytest.raises(TypeError, match="not async"):
        metrics.set_callback(wrong)


TAKEN = """
import prometheus_client
prometheus_client.Counter("entra_fast_key_set_requests_total", "Ours.")
from entra_fast import metrics
for _ in range(2):
    metrics.count_key_set_request("ok")
"""


def test_a_name_that_the_service_has_registered_itself() -> None:
    """Is left to the service, with one warning."""
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    assert done.stderr.count("registered already") == 1


def test_without_prometheus_client_and_callback_nothing_is_loaded() -> None:
    """Counting loads nothing that the service has not loaded."""
    program = (
        "import sys; from entra_fast import metrics; metrics.count_key_set_request('ok');"
        "print('prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_page_lists_every_counter() -> None:
    """With its labels and its description."""
    section = PAGE.partition("## Metrics of the library")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section, re.MULTILINE)
    expected = [
        (one.name, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in metrics.COUNTERS
    ]
    assert rows == expected


def test_the_example_of_the_page_runs() -> None:
    """With the SDK of OpenTelemetry in the place of a collector."""
    from opentelemetry import metrics as opentelemetry
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    opentelemetry.set_meter_provider(MeterProvider([reader]))
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    try:
        exec(compile(block, "docs/reference/metrics.md", "exec"), {})
        with pytest.raises(InvalidToken):
            validator().validate("a.b.c")
        SyncGuard("opentelemetry", validator(), optional=True).admit(Incoming("GET", "/", []))
    finally:
        metrics.set_callback(None)
    data: Any = reader.get_metrics_data()
    (found,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = found.data.data_points
    assert (found.name, point.value) == ("entra_fast_bearer_decisions_total", 1)
    assert dict(point.attributes) == {"framework": "opentelemetry", "outcome": "anonymous"}
