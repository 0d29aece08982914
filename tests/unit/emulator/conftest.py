"""A small world for the emulator's tests: one provider with a movable clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.local_entra import Caller, Clock, local_entra, manifest, served

GROUP_B = "00000000-0000-4000-8000-0000000000b1"
OTHER_GROUP = "00000000-0000-4000-8000-0000000000b2"
EVERYONE = "00000000-0000-4000-8000-0000000000a1"
CALLBACK = "http://localhost:3001/oauth2/callback"

DIRECTORY = f"""
tenant: trygdeetaten.no
groups:
  - {{name: everyone, id: {EVERYONE}, allUsers: true}}
  - {{name: group-b, id: {GROUP_B}}}
  - {{name: other, id: {OTHER_GROUP}}}
users:
  - {{name: Ada Lovelace, username: ada@trygdeetaten.no, navIdent: A100001, groups: [group-b, other]}}
  - {{name: Ola Nordmann, username: ola@trygdeetaten.no, navIdent: N100002}}
---
tenant: nav.no
users:
  - {{name: Grace Hopper, username: grace@nav.no}}
"""

MANIFESTS = [
    manifest("app-a", all_users=True, replyURLs=[CALLBACK]),
    manifest(
        "app-b",
        groups=[GROUP_B],
        rules=[
            {"application": "app-a", "permissions": {"roles": ["custom-role"], "scopes": ["custom.scope"]}},
            {"application": "outsider", "namespace": "elsewhere"},
            {"application": "late"},
            {"application": "*"},
        ],
    ),
    manifest("app-c", all_users=True, groups=[GROUP_B], rules=[{"application": "app-a"}]),
    manifest("app-nobody"),
    manifest("outsider", namespace="elsewhere"),
    manifest("outsider"),
    manifest("spa", all_users=True, singlePageApplication=True, replyURLs=["http://localhost:3002/"]),
    manifest(
        "old",
        all_users=True,
        rules=[{"application": "app-a"}],
        annotations={"entra-fast/access-token-version": "1"},
    ),
    manifest(
        "abroad", tenant="nav.no", rules=[{"application": "app-a"}], replyURLs=["https://abroad.example/cb"]
    ),
]


@pytest.fixture
def clock() -> Clock:
    """The provider's clock."""
    return Clock()


@pytest_asyncio.fixture
async def entra(clock: Clock) -> AsyncIterator[Caller]:
    """A running provider with a handful of applications and users."""
    async with served(local_entra(MANIFESTS, DIRECTORY, clock=clock)) as caller:
        yield caller
