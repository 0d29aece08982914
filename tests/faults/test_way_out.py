"""The way to the provider: names, TLS, web proxies, redirects, limits."""

from __future__ import annotations

import asyncio

import pytest

from entra_fast._provider import blocking_fetch as fetch
from entra_fast._provider.http_client import HttpClient, HttpFailure, proxy_for
from entra_fast.errors import KeysUnavailable
from support.network import Authority, ConnectProxy, TcpProxy, black_hole, truncate_after
from support.provider import Provider, after, raw
from support.sidecars import StartSidecar, eventually, sidecars

NAME = "login.example.test"
"""A name that no resolver knows: only the proxy can reach it."""


async def test_a_name_that_does_not_resolve_says_so(start: StartSidecar, provider: Provider) -> None:
    """Its own message and its own outcome in the metrics."""
    sidecar = await start(AZURE_OPENID_CONFIG_TOKEN_ENDPOINT="https://nowhere.invalid/token")
    answered = await sidecar.call.token()
    assert (answered.status, answered.json["error"]) == (500, "server_error")
    assert "the name of nowhere.invalid could not be resolved" in answered.json["error_description"]
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
        assert f"no TLS connection to localhost: {reason}" in answered.json["error_description"]
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
    """407 of the proxy is an error of the way out, whose text has no credentials."""
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
        assert f"the proxy refused the connection to {NAME} with status 407" in description
        assert "canary" not in description + str((await sidecar.call.get("/readyz")).json)
    await proxy.stop()
    await provider.stop()


async def test_no_proxy_and_loopback_go_straight(provider: Provider, start: StartSidecar) -> None:
    """A sidecar beside a local provider does not need NO_PROXY."""
    sidecar = await start(HTTPS_PROXY="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
    assert (await sidecar.call.token()).status == 200


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxied"),
    [
        ("https://login.example/", "", True),
        ("https://login.example/", "*", False),
        ("https://login.example/", "login.example", False),
        ("https://login.example/", "LOGIN.example", False),
        ("https://login.example/", "example", False),
        ("https://login.example/", ".example", False),
        ("https://login.example/", "*.example", False),
        ("https://login.example/", "gin.example", True),
        ("https://login.example/", "login.example:443", False),
        ("https://login.example/", "login.example:444", True),
        ("https://login.example:444/", "login.example:444", False),
        ("https://10.1.2.3/", "10.0.0.0/8", False),
        ("https://11.1.2.3/", "10.0.0.0/8, 11.1.2.3", False),
        ("https://11.1.2.4/", "10.0.0.0/8, 11.1.2.3", True),
        ("https://[fd00::1]/", "fd00::/8", False),
        ("https://[fd00::1]/", "[fd00::1]", False),
        ("https://[fd00::1]/", "[fd00::1]:443", False),
        ("https://[fd00::1]/", "[fd00::2]", True),
        ("https://127.0.0.1/", "", False),
        ("https://localhost/", "", False),
    ],
)
def test_which_hosts_go_through_the_proxy(url: str, no_proxy: str, proxied: bool) -> None:
    """NO_PROXY: names with their subdomains, ports, addresses, networks; loopback always goes straight."""
    proxies = {"https": "http://proxy.example:8080", "no": no_proxy}
    assert (proxy_for(url, proxies) is not None) is proxied


async def test_a_library_s_keys_go_the_same_way(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fetches keys for a `Validator` chooses its web proxy by the same rules: loopback goes straight."""
    proxy = ConnectProxy(provider.port)
    await proxy.start()
    for name in ("https_proxy", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("no_proxy", "192.0.2.0/24")
    assert (await asyncio.to_thread(fetch.get, provider.jwks_uri)).status == 200
    assert proxy.asked_for == []
    with pytest.raises(KeysUnavailable, match="TLS failed"):  # what the proxy leads to has no TLS
        await asyncio.to_thread(fetch.get, "https://198.51.100.7/keys")
    assert proxy.asked_for == ["CONNECT 198.51.100.7:443"]
    await proxy.stop()


async def test_what_an_http_request_can_fail_with(provider: Provider, network: TcpProxy) -> None:
    """Each failure has its code, and names the host and nothing more."""
    client = HttpClient(read_timeout=0.15, max_response_bytes=1000, proxies={})
    url = provider.token_endpoint
    provider.then(raw(200, b"x" * 1001), raw(301, b"", Location="https://evil.example/"))
    cases = [
        ("answer_too_large", url, None),
        ("redirected", url, None),
        ("timed_out", url, black_hole),
        ("url_not_allowed", "http://example.com/canary", None),
        ("url_not_allowed", "file:///etc/canary", None),
        ("dns_failed", "https://canary-path.invalid/canary", None),
    ]
    for code, where, fault in cases:
        if fault is not None:
            await network.stop()
            await network.start()
            network.always = fault
        with pytest.raises(HttpFailure) as caught:
            await client.post_form(where, {"secret": "canary"})
        assert caught.value.code == code
        assert "/" not in caught.value.message.replace("http is allowed for", "")
    network.always = truncate_after(0)
    with pytest.raises(HttpFailure, match="it was closed before it was ready"):
        await client.get(url.replace("http:", "https:"))
    await client.aclose()
    with pytest.raises(HttpFailure):
        await client.get(url)


async def test_an_answer_of_any_encoding_is_not_inflated(provider: Provider) -> None:
    """A small compressed answer cannot become a large one."""
    import gzip

    provider.then(raw(200, gzip.compress(b"x" * 10_000_000), Content_Encoding="gzip"))
    client = HttpClient(proxies={})
    answer = await client.post_form(provider.token_endpoint, {"a": "b"})
    assert len(answer.body) < 20_000
    await client.aclose()


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
    """Renewal of tokens that were fetched together is spread over a good part of their life."""
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
            return sidecar.running.service.tokens.in_flight == 0  # type: ignore[union-attr]

        await eventually(idle)
        renewed.append(len(provider.requests) - before)
    assert sum(renewed) == len(targets)
    assert max(renewed) < len(targets) / 2
