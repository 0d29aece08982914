"""The page that takes a token apart: what it says, whether it is genuine, who accepts it, and no traces."""

from __future__ import annotations

import base64
import json
import logging
import re

import pytest

from entra_fast._native import unverified_claims
from entra_fast.emulator.protocol import inspection
from entra_fast.emulator.protocol.inspection import Answer, Inspection
from support.local_entra import Caller, local_entra, manifest, served

from .test_console import text_of

APP, TARGET = "dev-gcp:team:app-a", "dev-gcp:team:app-b"
MAX_PAGE_BYTES = 200_000


def inspected(entra: Caller, token: str) -> Inspection:
    local = entra.local
    return inspection.inspect(token, local.registry, local.base_url, local.keyring, local.now())


def answer_of(found: Inspection, application: str) -> Answer:
    return next(answer for answer in found.answers if answer.application == application)


def changed(token: str, **claims: object) -> str:
    """The same token with other claims, which nobody has signed."""
    header, _, signature = token.split(".")
    payload = json.dumps({**unverified_claims(token), **claims}).encode()
    return ".".join((header, base64.urlsafe_b64encode(payload).rstrip(b"=").decode(), signature))


async def test_the_audience_accepts_what_others_reject(entra: Caller) -> None:
    """The target of the token accepts it; every other application says that it is not for it."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    found = inspected(entra, token)
    assert found.signature is None
    assert found.accepted == 1
    assert found.answers[0] == Answer(TARGET, ())
    (problem,) = answer_of(found, APP).problems
    assert problem.code == "wrong_audience"
    assert (problem.expected, problem.actual) == (entra.client_id("app-a"), entra.client_id("app-b"))


async def test_every_reason_is_said(entra: Caller) -> None:
    """An expired token for another issuer with a changed claim: each check that fails, not only the first."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    found = inspected(entra, changed(token, iss="https://other.example", exp=1))
    assert found.signature is not None
    assert found.signature.code == "signature_invalid"
    assert found.accepted == 0
    codes = {problem.code for problem in answer_of(found, TARGET).problems}
    assert codes == {"signature_invalid", "wrong_issuer", "token_expired"}


async def test_an_unknown_key_is_no_valid_signature(entra: Caller) -> None:
    """Tokens of planned faults are told apart."""
    for fault, code in (("unknown_key", "unknown_key"), ("wrong_signature", "signature_invalid")):
        entra.local.faults.add(fault, count=1)
        token = (await entra.m2m("app-a", "app-b")).json["access_token"]
        found = inspected(entra, token)
        assert found.signature is not None
        assert found.signature.code == code
        assert found.accepted == 0


async def test_first_versions_and_graph() -> None:
    """A v1.0 token is accepted by the application that has such tokens; a token for Graph by Graph."""
    first = manifest("first", annotations={"entra-fast/access-token-version": "1"}, all_users=True)
    async with served(local_entra([first])) as entra:
        token = (await entra.m2m("first", "first")).json["access_token"]
        assert unverified_claims(token)["ver"] == "1.0"
        assert inspected(entra, token).answers[0] == Answer("dev-gcp:team:first", ())
        _, graph = entra.local.mint("dev-gcp:team:first", "https://graph.microsoft.com")
        assert graph is not None
        assert inspected(entra, graph).answers[0].application.startswith("Microsoft Graph")
        assert inspected(entra, graph).accepted == 1


@pytest.mark.parametrize(
    "pasted", ["{}", " {}\n", "Bearer {}", "bearer  {}", "Authorization: Bearer {}", '"{}"', "'{}'"]
)
def test_tokens_are_found_in_what_people_paste(pasted: str) -> None:
    """With white space, quotes or the name of the header; also broken into lines."""
    assert inspection.token_in(pasted.format("eyJ.eyJ.x")) == "eyJ.eyJ.x"
    assert inspection.token_in(pasted.format("eyJ.e\n  yJ.x")) == "eyJ.eyJ.x"


async def test_the_page(entra: Caller) -> None:
    """Claims with meaning and readable times, the signature, and the answer of each application."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    answer = await entra.request("POST", "/inspect", data={"token": f"Bearer {token}"})
    assert answer.status == 200
    page = text_of(answer.text)
    assert "✓ valid Signed with a key of this provider" in page
    assert "exp " in page
    assert "Expires: the token must not be accepted after this time" in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in \d+ minutes", page)
    assert f"{TARGET} ✓ accepted" in page
    assert f"{APP} ✗ rejected token has the wrong audience ( wrong_audience )" in page
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("token", ["", "  ", "x", "a.b.c", "eyJhbGciOiJub25lIn0.bm9qc29u.", "<b>.<b>.<b>"])
async def test_what_is_no_token_is_said(entra: Caller, token: str) -> None:
    """400, with a sentence at the field, and what was sent as text."""
    answer = await entra.request("POST", "/inspect", data={"token": token})
    assert answer.status == 400
    assert 'role="alert"' in answer.text
    assert "<b>" not in answer.text


async def test_a_token_leaves_no_trace(entra: Caller, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a log, nor in the journal, nor in an address; addresses with a token are not answered."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    with caplog.at_level(logging.DEBUG):
        answer = await entra.request("POST", "/inspect", data={"token": token})
    parts = token.split(".")
    assert not [part for part in parts if part in caplog.text]
    log = (await entra.request("GET", "/admin/api/log")).text
    assert not [part for part in parts if part in log]
    assert 'method="post" action="/inspect"' in answer.text
    ignored = (await entra.request("GET", "/inspect", params={"token": token})).text
    assert parts[1] not in ignored


@pytest.mark.parametrize("members", [1, 60])
async def test_large_tokens_make_no_large_pages(entra: Caller, members: int) -> None:
    """A token of 60 KB, in one claim or in many."""
    token = (await entra.m2m("app-a", "app-b")).json["access_token"]
    large = changed(token, **{f"claim{number}": "x" * (44_000 // members) for number in range(members)})
    answer = await entra.request("POST", "/inspect", data={"token": large})
    assert answer.status == 200
    assert len(answer.text.encode()) < MAX_PAGE_BYTES
