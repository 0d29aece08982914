"""A worker as the hub's messages change it, without a process or a hub."""

from __future__ import annotations

import time

from entra_fast._settings.load import Settings
from entra_fast.sidecar.process.channel import Channel
from entra_fast.sidecar.process.worker import Hub, WorkerService
from support.lane import introspection
from support.tokens import AUDIENCE, ISSUER, TENANT, good_claims, jwks, signer


async def test_during_the_hubs_cool_down_the_lane_answers_for_unknown_keys() -> None:
    """A flood of such tokens must not take the full way at workers, which do not fetch keys themselves."""
    environ = {
        "AZURE_APP_CLIENT_ID": AUDIENCE,
        "AZURE_APP_TENANT_ID": TENANT,
        "AZURE_APP_CLIENT_SECRET": "not asked for",
    }
    service = WorkerService(Settings.from_environment(environ, None), Hub(Channel(lambda *_: None, list)))
    service.on_provider({"issuer": ISSUER, "jwks_uri": "https://login.microsoftonline.com/keys"})
    service.on_keys({"text": jwks(signer()), "reason": None})
    assert service.lane is not None
    now = time.time()
    claims = good_claims(iat=now - 10, nbf=now - 10, exp=now + 600)
    request = introspection(signer("unknown").token(claims))

    def answer() -> object:
        assert service.lane is not None
        return service.lane.native.serve(request)

    assert not isinstance(answer(), bytes), "it would wait for the hub to fetch keys"
    service.on_cool_down({"until": time.monotonic() + 60})
    answered = answer()
    assert isinstance(answered, bytes)
    assert b"token was signed with an unknown key" in answered
    service.on_cool_down({"until": None})
    assert not isinstance(answer(), bytes)
    await service.aclose()
