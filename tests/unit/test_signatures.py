"""Which library verifies signatures: the choice, what is counted, and the end of trust.

That a fast library which answers wrongly is found out is tested in the core, where one can be put in its
place (rust/core/src/jose/signature.rs, rust/core/src/validate/validator.rs); nothing in the extension can.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from entra_fast import _native, _signatures
from entra_fast._metrics import Metrics
from entra_fast.validate import AsyncValidator, ConfigurationError, InvalidToken, Validator
from support.tokens import AUDIENCE, ISSUER, jwks, signer, validator

ALGORITHMS = _native.ALGORITHMS
KEY = signer()

DISTRUSTED = """
import logging
logging.basicConfig(format="%(levelname)s %(name)s %(message)s")
from entra_fast import _native
from support.tokens import signer, validator
key = signer()
tokens = [key.token(uti=str(n)) for n in range(200)]
one = validator(key, cache_entries=1000)
for token in tokens:
    one.validate(token)
confirmed = _native.signature_figures()["agreed"]
_native.distrust_fast_signatures()
_native.distrust_fast_signatures()
for token in tokens:
    one.validate(token)
after = _native.signature_figures()
print(after["fast"], after["disagreed"], after["agreed"] - confirmed, one.stats()["cache_entries"])
"""

WORKER = """
import asyncio, os, socket, sys, threading
from entra_fast import _native
from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.channel import Channel
from entra_fast.sidecar.process.progress import Progress, ProgressOfWorker
from entra_fast.sidecar.process.worker import Worker
from entra_fast.sidecar.process.worker_settings import for_worker

async def run(reported_by):
    heard = asyncio.Queue()
    ours, theirs = socket.socketpair()
    provider_process = Channel(lambda name, _: heard.put_nowait(name), list)
    await provider_process.open(ours)
    provider_process.send("start", **for_worker(Settings.from_environment({"AZURE_ENABLED": "false"}, None)))
    listener = socket.create_server(("127.0.0.1", 0))
    progress = ProgressOfWorker()
    serving = asyncio.create_task(Worker(3, Progress(progress.file)).serve(theirs, listener))
    assert await heard.get() == "hello"
    if reported_by == "worker":
        threading.Thread(target=_native.distrust_fast_signatures).start()
    else:
        provider_process.send("signatures_distrusted")
    print(await heard.get(), _native.signature_figures()["fast"], flush=True)
    os._exit(0)

asyncio.run(run(sys.argv[1]))
"""


def test_an_unknown_choice_is_refused() -> None:
    """Anything but the two names is a ConfigurationError that names the argument and both choices."""
    for kind in (Validator, AsyncValidator):
        for wrong in ("", "rind", "AWS-LC"):
            with pytest.raises(ConfigurationError) as refused:
                kind(ISSUER, AUDIENCE, jwks=jwks(KEY), signatures=wrong)
            assert refused.value.setting == "signatures"
            assert refused.value.message == "signatures must be fast or aws-lc"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("signatures", ["fast", "aws-lc"])
def test_both_choices_accept_and_reject_the_same(algorithm: str, signatures: str) -> None:
    """For every algorithm a valid token is accepted, and one with a changed signature is rejected."""
    key = signer(algorithm=algorithm)
    one = validator(key, algorithms=[algorithm], signatures=signatures, cache_entries=0)
    token = key.token()
    assert one.validate(token)["iss"] == ISSUER
    head, _, signature = token.rpartition(".")
    changed = ("B" if signature[9] == "A" else "A").join((signature[:9], signature[10:]))
    with pytest.raises(InvalidToken) as refused:
        one.validate(f"{head}.{changed}")
    assert refused.value.code == "signature_invalid"


def test_the_first_acceptance_of_a_key_is_confirmed() -> None:
    """With rind in use, a validator's first accepted token is verified by AWS-LC too, and that is counted;
    with AWS-LC alone there is nothing to confirm."""
    if not _native.signature_figures()["fast"]:
        pytest.skip("rind cannot run on this processor")
    token = KEY.token()
    before = _native.signature_figures()["agreed"]
    validator(KEY, signatures="aws-lc", cache_entries=0).validate(token)
    assert _native.signature_figures()["agreed"] == before
    validator(KEY, cache_entries=0).validate(token)
    assert _native.signature_figures()["agreed"] == before + 1


async def test_the_metric_counts_both_outcomes() -> None:
    """The counter has both outcomes from the start, so that an alert on the second one always has data."""
    text = (await Metrics().exposition()).decode()
    name = "entra_fast_signature_confirmations_total"
    lines = [line.split() for line in text.splitlines() if line.startswith(name)]
    assert {series: float(value) for series, value in lines} == {
        f'{name}{{outcome="agreed"}}': _signatures.confirmations()[("agreed",)],
        f'{name}{{outcome="disagreed"}}': 0,
    }


def test_without_trust_aws_lc_verifies_everything() -> None:
    """A process that is told to distrust rind says so in one error line, and verifies again what was cached,
    with AWS-LC: no confirmation is counted any more, because there is nothing to confirm."""
    done = subprocess.run(
        [sys.executable, "-c", DISTRUSTED],
        capture_output=True,
        cwd=Path(__file__).parents[1],  # for `support`
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "False 0 0 200\n"
    assert done.stderr.splitlines() == [
        "ERROR entra_fast.signatures rind is no longer used, AWS-LC verifies all signatures: another process "
        "has reported that rind and AWS-LC disagree"
    ]


@pytest.mark.parametrize("reported_by", ["worker", "provider process"])
def test_workers_report_and_follow_the_end_of_trust(reported_by: str) -> None:
    """A worker tells the provider process when it no longer trusts rind, on whichever thread that happened,
    and no longer trusts rind when the provider process says so. Either is one error line of that worker."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, reported_by], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "signatures_distrusted False\n"
    line = json.loads(done.stderr)
    assert line["level"] == "error"
    assert line["message"].startswith("rind is no longer used, AWS-LC verifies all signatures")


def test_a_report_of_another_process_reaches_the_log_and_every_listener(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line that says what was decided and why; the verification caches depend on the listeners."""
    called: list[str] = []
    monkeypatch.setattr(_signatures, "_listeners", [lambda name=name: called.append(name) for name in "ab"])
    _signatures._distrusted()
    assert called == ["a", "b"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("entra_fast.signatures", "ERROR")
    assert record.getMessage().endswith("another process has reported that rind and AWS-LC disagree")


def test_who_listens_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering is enough: the extension then knows whom to call."""
    told: list[Callable[[], object]] = []
    listeners: list[Callable[[], object]] = []
    monkeypatch.setattr(_signatures, "_listeners", listeners)
    monkeypatch.setattr(_native, "when_fast_signatures_are_distrusted", told.append)
    _signatures.call_when_distrusted(list)
    assert listeners == [list]
    assert told == [_signatures._distrusted]


@pytest.mark.parametrize("disagreed", [1, 2])
def test_a_disagreement_in_this_process_is_named_as_the_reason(
    disagreed: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first one already: a token was rejected here, which nobody should look for in another process."""
    figures = {**_native.signature_figures(), "disagreed": disagreed}
    monkeypatch.setattr(_native, "signature_figures", lambda: figures)
    monkeypatch.setattr(_signatures, "_listeners", [])
    _signatures._distrusted()
    (record,) = caplog.records
    assert record.getMessage() == (
        "rind is no longer used, AWS-LC verifies all signatures: rind and AWS-LC disagreed about a "
        "signature, and the token was rejected"
    )


def test_a_process_has_listeners_from_the_start() -> None:
    """The list that registering adds to is the one whose members are called."""
    told: list[str] = []

    def listener() -> None:
        told.append("distrusted")

    _signatures.call_when_distrusted(listener)
    try:
        _signatures._distrusted()
    finally:
        _signatures._listeners.remove(listener)
    assert told == ["distrusted"]
