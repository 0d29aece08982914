"""A worker's service as the messages of the provider process change it, without a process or a socket."""

from __future__ import annotations

import time

from entra_fast._metrics import Metrics
from entra_fast._settings.load import Settings
from entra_fast.sidecar.clocks import Clocks
from entra_fast.sidecar.process.channel import Channel
from entra_fast.sidecar.process.provider_channel import ProviderChannel
from entra_fast.sidecar.service import Service, new_token_cache
from support.fast_path import introspection
from support.tokens import AUDIENCE, ISSUER, TENANT, good_claims, jwks, signer


async def test_during_the_cool_down_of_the_provider_process_the_fast_path_answers_for_unknown_keys() -> None:
    """A flood of such tokens must not take the slow path at workers, which do not fetch keys themselves."""
    environ = {
        "AZURE_APP_CLIENT_ID": AUDIENCE,
        "AZURE_APP_TENANT_ID": TENANT,
        "AZURE_APP_CLIENT_SECRET": "not asked for",
    }
    settings = Settings.from_environment(environ, None)
    cache, metrics, clocks = new_token_cache(settings.caches), Metrics(), Clocks()
    provider = ProviderChannel(
        Channel(lambda *_: None, list), settings, cache=cache, metrics=metrics, clocks=clocks
    )
    service = Service(settings, provider, cache=cache, metrics=metrics, clocks=clocks)
    await service.start()
    assert provider.handle("provider", {"issuer": ISSUER})
    assert provider.handle("keys", {"text": jwks(signer()), "reason": None})
    assert service.fast_path is not None
    now = time.time()
    claims = good_claims(iat=now - 10, nbf=now - 10, exp=now + 600)
    request = introspection(signer("unknown").token(claims))

    def answer() -> bytes:
        assert service.fast_path is not None
        return service.fast_path.native.serve(request).answers

    assert answer() == b"", "it waits for the provider process to fetch keys"
    assert provider.handle("cool_down", {"until": time.monotonic() + 60})
    assert b"token was signed with an unknown key" in answer()
    assert provider.handle("cool_down", {"until": None})
    assert answer() == b""
    assert not provider.handle("unheard of", {})
    await service.aclose()
