"""Outbound HTTP of a sidecar: names, TLS, web proxies, many users."""

from __future__ import annotations

import asyncio

import pytest

from entra_fast.errors import ConfigurationError
from entra_fast.tokens import AsyncTokenClient
from entra_fast.validate import AsyncValidator, Validator
from support.network import Authority, ConnectProxy, TcpProxy
from support.provider import CLIENT_ID, TENANT, Provider, after
from support.sidecars import StartSidecar, eventually, sidecars

NAME = "login.example.test"
"""A name that no resolver knows: only the proxy can reach it."""


async def test_a_name_that_does_not_resolve_says_so(start: StartSidecar, provider: Provider) -> None:
    """Its own message and its own outcome in the metrics."""
    sidecar = await start(ready=False, AZURE_OPENID_CONFIG_TOKEN_ENDPOINT="https://nowhere.invalid/token")
    answered = await sidecar.call.token()
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert (
        "no connection to nowhere.invalid:443: the host name could not be resolved"
        in answered.json["error_description"]
    )
    series = 'entra_fast_upstream_requests_total{grant="client_credentials",outcome="dns_failed"}'
    assert await sidecar.metric(series) == 2


@pytest.mark.parametrize(
    ("names", "trusted", "reason"),
    [
        (["localhost"], False, "unable to get local issuer certificate"),
        (["other.example"], True, "Hostname mismatch"),
    ],
)
async def test_a_certificate_that_is_not_trusted_says_so(
    authority: Authority, names: list[str], trusted: bool, reason: str
) -> None:
    """TLS errors name their reason; verification is never switched off; not ready, with the reason."""
    provider = Provider()
    await provider.start(tls=authority.server(*names))
    bundle = str(authority.bundle) if trusted else None
    async with sidecars(provider) as start:
        sidecar = await start(ready=False, ENTRA_FAST_CA_BUNDLE=bundle)
        answered = await sidecar.call.token()
        assert (answered.status, answered.json["error"]) == (500, "server_error")
        assert (
            f"no TLS connection to localhost:{provider.port}: {reason}" in answered.json["error_description"]
        )
        assert reason in (await sidecar.call.get("/readyz")).json["reason"]
        assert await sidecar.metric('entra_fast_discovery_requests_total{outcome="tls_failed"}') >= 1
    assert provider.requests == []
    await provider.stop()


async def test_a_custom_authority_is_trusted_beside_the_system_s(authority: Authority) -> None:
    """ENTRA_FAST_CA_BUNDLE is for providers and proxies with a company's own authority."""
    provider = Provider()
    await provider.start(tls=authority.server("localhost"))
    async with sidecars(provider) as start:
        sidecar = await start(ENTRA_FAST_CA_BUNDLE=str(authority.bundle))
        assert (await sidecar.call.token()).status == 200
        assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    await provider.stop()


@pytest.mark.parametrize("credentials", [None, "user:p%40ss"])
async def test_https_goes_through_the_web_proxy(authority: Authority, credentials: str | None) -> None:
    """HTTPS_PROXY: discovery, keys and tokens arrive through CONNECT, also with a password."""
    provider = Provider()
    await provider.start(tls=authority.server(NAME), public_url=f"https://{NAME}")
    proxy = ConnectProxy(provider.port, credentials="user:p@ss" if credentials else None)
    await proxy.start()
    login = f"{credentials}@" if credentials else ""
    async with sidecars(provider) as start:
        sidecar = await start(
            HTTPS_PROXY=f"http://{login}127.0.0.1:{proxy.port}",
            ENTRA_FAST_CA_BUNDLE=str(authority.bundle),
        )
        assert (await sidecar.call.token()).status == 200
        assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert set(proxy.asked_for) == {f"CONNECT {NAME}:443"}
    assert len(provider.requests) == 1
    await proxy.stop()
    await provider.stop()


async def test_a_proxy_that_refuses_is_named_and_its_password_is_not(authority: Authority) -> None:
    """407 from the proxy is a failure whose text has no credentials."""
    provider = Provider()
    await provider.start(tls=authority.server(NAME), public_url=f"https://{NAME}")
    proxy = ConnectProxy(provider.port, credentials="user:right")
    await proxy.start()
    async with sidecars(provider) as start:
        sidecar = await start(
            ready=False,
            HTTPS_PROXY=f"http://user:canary@127.0.0.1:{proxy.port}",
            ENTRA_FAST_CA_BUNDLE=str(authority.bundle),
        )
        answered = await sidecar.call.token()
        assert answered.status == 500
        description = answered.json["error_description"]
        refused = f"the proxy 127.0.0.1:{proxy.port} refused the connection to {NAME}:443 with status 407"
        assert refused in description
        assert "canary" not in description + str((await sidecar.call.get("/readyz")).json)
    await proxy.stop()
    await provider.stop()


async def test_loopback_needs_no_proxy(provider: Provider, start: StartSidecar) -> None:
    """A sidecar next to a local provider does not need NO_PROXY."""
    sidecar = await start(HTTPS_PROXY="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
    assert (await sidecar.call.token()).status == 200


# 0.0.0.0 is this machine, but no loopback address.
ELSEWHERE = "0.0.0.0"


async def test_a_named_provider_is_asked_over_plain_http(provider: Provider, start: StartSidecar) -> None:
    """As in containers of one machine: discovery, keys and tokens, past a web proxy; a metric shows it."""
    provider.base_url = f"http://{ELSEWHERE}:{provider.port}"
    sidecar = await start(
        ENTRA_FAST_INSECURE_PROVIDER_HOSTS=ELSEWHERE,
        HTTP_PROXY="http://proxy.invalid:3128",
        ENTRA_FAST_HTTP_MAX_RETRIES="0",
    )
    assert (await sidecar.call.token()).status == 200
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert await sidecar.metric("entra_fast_insecure_provider_hosts") == 1


async def test_plain_http_to_a_host_that_is_not_named_stops_the_start(
    provider: Provider, start: StartSidecar
) -> None:
    """Nothing is sent."""
    provider.base_url = f"http://{ELSEWHERE}:{provider.port}"
    with pytest.raises(ConfigurationError, match="must be an https URL"):
        await start(ENTRA_FAST_INSECURE_PROVIDER_HOSTS="other")
    assert provider.discovery_requests == 0


async def test_a_document_on_loopback_cannot_name_plain_http_elsewhere(
    provider: Provider, start: StartSidecar
) -> None:
    """Its endpoints are on its own host; naming a host for http does not change that."""
    sidecar = await start(ENTRA_FAST_INSECURE_PROVIDER_HOSTS=ELSEWHERE)
    assert (await sidecar.call.token()).status == 200
    provider.base_url = f"http://{ELSEWHERE}:{provider.port}"
    well_known = f"http://127.0.0.1:{provider.port}/{TENANT}/v2.0/.well-known/openid-configuration"
    other = await start(
        ready=False, ENTRA_FAST_INSECURE_PROVIDER_HOSTS=ELSEWHERE, AZURE_APP_WELL_KNOWN_URL=well_known
    )
    assert (await other.call.token()).status == 500
    assert "issuer does not belong to its URL" in (await other.call.get("/readyz")).json["reason"]


@pytest.mark.parametrize("client", [Validator, AsyncValidator])
async def test_the_library_asks_named_providers_over_plain_http(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, client: type[Validator | AsyncValidator]
) -> None:
    """With the variable; without it, the constructor refuses the URL."""
    provider.base_url = f"http://{ELSEWHERE}:{provider.port}"

    def make() -> Validator | AsyncValidator:
        return client(provider.issuer, CLIENT_ID, jwks_uri=provider.jwks_uri)

    monkeypatch.delenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", raising=False)
    with pytest.raises(ConfigurationError, match="jwks_uri must be an https URL"):
        make()
    monkeypatch.setenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", "*")
    with pytest.raises(ConfigurationError, match="without wildcards"):
        make()
    monkeypatch.setenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", ELSEWHERE)
    validator = make()
    token = provider.mint()
    if isinstance(validator, AsyncValidator):
        async with validator:
            claims = await validator.validate(token)
    else:
        with validator:
            claims = await asyncio.to_thread(validator.validate, token)
    assert claims["sub"] == "subject"


async def test_token_clients_ask_named_providers_over_plain_http(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the library's validators do."""
    provider.base_url = f"http://{ELSEWHERE}:{provider.port}"

    def make() -> AsyncTokenClient:
        return AsyncTokenClient.from_provider(
            client_id=CLIENT_ID, client_secret="s", well_known_url=provider.well_known_url
        )

    monkeypatch.delenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", raising=False)
    with pytest.raises(ConfigurationError, match="well_known_url must be an https URL"):
        make()
    monkeypatch.setenv("ENTRA_FAST_INSECURE_PROVIDER_HOSTS", ELSEWHERE)
    async with make() as tokens:
        assert (await tokens.token("api://target/.default")).access_token


async def test_connections_are_reused(provider: Provider, network: TcpProxy, start: StartSidecar) -> None:
    """One after the other, many tokens need few connections."""
    sidecar = await start()
    for i in range(20):
        assert (await sidecar.call.token(f"api://a.b.c{i}/.default")).status == 200
    assert network.connections <= 3


async def test_hundreds_of_users_do_not_wait_for_each_other(provider: Provider, start: StartSidecar) -> None:
    """A provider that takes long for each request is asked for all of them at once."""
    patient = {f"ENTRA_FAST_HTTP_{what}_TIMEOUT_MILLIS": "60000" for what in ("CONNECT", "READ", "OVERALL")}
    sidecar = await start(**patient)
    held = asyncio.Event()
    provider.always = after(held, provider)
    users = [asyncio.ensure_future(sidecar.call.exchange(provider.mint(oid=str(i)))) for i in range(300)]
    await provider.asked(len(users))
    held.set()
    assert {answer.status for answer in await asyncio.gather(*users)} == {200}


async def test_a_thousand_tokens_are_not_renewed_at_once(provider: Provider, start: StartSidecar) -> None:
    """Renewal of tokens that were fetched together is spread over a large part of their lifetime."""
    sidecar = await start()
    targets = [f"api://a.b.c{i}/.default" for i in range(60)]
    for target in targets:
        await sidecar.call.token(target)
    renewed: list[int] = []
    for _ in range(7):  # 0.6 to 0.8 of 3480 s, in steps of a fifth of that
        sidecar.clock.advance(2088 if not renewed else 140)
        before = len(provider.requests)
        await asyncio.gather(*(sidecar.call.token(target) for target in targets))

        async def idle() -> bool:
            return sidecar.running.service.metrics.flights.read("entra_id") == 0

        await eventually(idle)
        renewed.append(len(provider.requests) - before)
    assert sum(renewed) == len(targets)
    assert max(renewed) < len(targets) / 2
