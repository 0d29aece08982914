"""Health, readiness, metrics, the API's description."""

from __future__ import annotations

import asyncio
import itertools
import platform
import re

import entra_fast
from support.provider import Provider, refuse
from support.sidecars import Started, StartSidecar, eventually
from support.wire import Caller


async def test_probes_are_on_the_main_listener_without_another(sidecar: Started) -> None:
    """Without a second listener, the main one serves everything."""
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await sidecar.call.get(path)).status == 200, path


async def test_probes_move_to_their_own_listener(start: StartSidecar) -> None:
    """With PROBE_BIND_ADDRESS the API's listener knows only the API, and the other only the probes."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    assert sidecar.call.port != sidecar.probe.port
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await sidecar.call.get(path)).status == 404
        assert (await sidecar.probe.get(path)).status == 200
    assert (await sidecar.probe.token()).status == 404


async def test_probes_may_be_asked_by_any_host(start: StartSidecar) -> None:
    """The kubelet calls by the pod's address."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    assert (await sidecar.probe.get("/healthz", {"Host": "10.1.2.3:7165"})).status == 200


async def test_a_kubelet_is_answered(start: StartSidecar) -> None:
    """Exactly what it sends, by the address of the pod: 200 and `ok`, and the connection is closed, as asked.
    A HEAD is answered as a GET without its body (RFC 9110, section 9.3.2)."""
    sidecar = await start(PROBE_BIND_ADDRESS="127.0.0.1:0")
    hosts = ("10.1.2.3:7165", "[fd00::a]:7165", "pod.example:7165", "10.1.2.3")
    for host, path, (method, body) in itertools.product(
        hosts, ("/", "/healthz"), (("GET", b"ok"), ("HEAD", b""))
    ):
        reader, writer = await sidecar.probe.connect()
        lines = (f"{method} {path} HTTP/1.1", f"Host: {host}", "User-Agent: kube-probe/1.33", "Accept: */*")
        writer.write("\r\n".join((*lines, "Connection: close", "", "")).encode())
        head, _, received = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        assert received == body
        status, *fields = head.decode().split("\r\n")
        assert status == "HTTP/1.1 200 OK"
        expected = {"Content-Length: 2", "Content-Type: text/plain; charset=utf-8", "Connection: close"}
        assert expected <= set(fields)
    for path in ("/", "/healthz"):
        refused = await sidecar.probe.request("POST", path)
        assert (refused.status, refused.header("Allow")) == (405, "GET, HEAD")
        assert (await sidecar.probe.get(f"{path}?verbose")).body == b"ok"


async def test_the_root_is_a_probe_only_on_the_listener_of_probes(sidecar: Started) -> None:
    """The listener of the API has no `/`."""
    assert (await sidecar.call.get("/")).status == 404


async def test_starts_while_the_provider_is_down_and_heals(start: StartSidecar, provider: Provider) -> None:
    """Starting for ten seconds, then alive but not ready, with the reason; ready without a restart once the
    provider has recovered."""
    provider.failing = True
    sidecar = await start(ready=False)
    starting = await sidecar.call.get("/healthz")
    assert (starting.status, starting.body) == (503, b"starting")
    sidecar.clock.advance(10)
    started = await sidecar.call.get("/healthz")
    assert (started.status, started.body) == (200, b"ok")
    unready = await sidecar.call.get("/readyz")
    assert unready.status == 503
    assert unready.json["reason"]
    provider.failing = False
    await sidecar.until_ready()
    assert (await sidecar.call.introspect(provider.mint())).json["active"] is True
    assert (await sidecar.call.token()).status == 200


async def test_a_rejected_credential_shows_in_readiness_and_metrics(
    sidecar: Started, provider: Provider
) -> None:
    """The AADSTS code tells the operator what is wrong, although a sidecar that was ready stays so; the next
    success clears it."""
    provider.then(
        refuse(401, "invalid_client", "AADSTS7000215: Invalid client secret", error_codes=[7000215])
    )
    assert (await sidecar.call.token()).status == 401
    answer = await sidecar.call.get("/readyz")
    assert (answer.status, answer.json["status"]) == (200, "ready")
    assert "AADSTS7000215" in answer.json["reason"]
    (listed,) = answer.json["providers"]
    assert (listed["name"], listed["ready"], listed["credential"]["status"]) == ("entra_id", True, "rejected")
    assert await sidecar.metric("entra_fast_credential_rejected") == 1
    assert await sidecar.metric('entra_fast_provider_errors_total{code="AADSTS7000215"}') == 1
    sidecar.clock.advance(1)  # a refusal is remembered for a second
    assert (await sidecar.call.token()).status == 200
    assert "reason" not in (await sidecar.call.get("/readyz")).json
    assert await sidecar.metric("entra_fast_credential_rejected") == 0


async def test_readiness_lists_every_provider(sidecar: Started) -> None:
    """With the state of its keys and of the application's credential."""
    answer = await sidecar.call.get("/readyz")
    assert answer.header("Content-Type") == "application/json"
    assert answer.json == {
        "status": "ready",
        "providers": [
            {
                "name": "entra_id",
                "ready": True,
                "keys": {"status": "available"},
                "credential": {"status": "accepted"},
                "clock_skew_seconds": 0.0,
            }
        ],
    }


async def test_the_start_is_over_as_soon_as_there_are_keys(start: StartSidecar, provider: Provider) -> None:
    """NAIS asks /healthz, or /, as the start-up probe. It never fails again, even where the keys are lost."""
    provider.keys_held = asyncio.Event()
    sidecar = await start(ready=False, PROBE_BIND_ADDRESS="127.0.0.1:0")

    async def probed() -> list[tuple[int, bytes]]:
        answers = [await sidecar.probe.get(path) for path in ("/healthz", "/")]
        assert {answer.header("Content-Type") for answer in answers} == {"text/plain; charset=utf-8"}
        return [(answer.status, answer.body) for answer in answers]

    assert await probed() == [(503, b"starting")] * 2
    provider.keys_held.set()

    async def started() -> bool:
        return await probed() == [(200, b"ok")] * 2

    await eventually(started)
    sidecar.running.service.keys_changed("entra_id", None)
    assert await probed() == [(200, b"ok")] * 2


async def test_metrics_count_what_happened(sidecar: Started, provider: Provider) -> None:
    """Requests by endpoint and status, introspections, cache figures and upstream requests."""
    await sidecar.call.token()
    await sidecar.call.token()
    await sidecar.call.introspect(provider.mint())
    await sidecar.call.introspect("junk")

    async def counted() -> bool:
        return await sidecar.metric('entra_fast_requests_total{endpoint="introspect",status="200"}') == 2

    await eventually(counted)
    assert await sidecar.metric('entra_fast_requests_total{endpoint="token",status="200"}') == 2
    assert await sidecar.metric('entra_fast_introspections_total{active="true"}') == 1
    assert await sidecar.metric('entra_fast_introspections_total{active="false"}') == 1
    assert await sidecar.metric('entra_fast_introspections_rejected_total{code="not_a_jwt"}') == 1
    upstream = 'entra_fast_upstream_requests_total{grant="client_credentials",outcome="ok"}'
    assert await sidecar.metric(upstream) == 1
    assert await sidecar.metric(upstream.replace("client_credentials", "credential_try")) == 1
    assert await sidecar.metric("entra_fast_token_cache_entries") == 1
    assert await sidecar.metric("entra_fast_token_cache_hits_total") == 1
    assert await sidecar.metric("entra_fast_verified_cache_entries") == 1
    assert await sidecar.metric("entra_fast_ready") == 1
    answer = await sidecar.probe.get("/metrics")
    assert answer.header("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"


async def test_metrics_say_what_runs(sidecar: Started, start: StartSidecar) -> None:
    """Version, interpreter, compiler, the library for RSA, and whether the fast path is open."""

    async def labels(of: Started) -> dict[str, str]:
        text = (await of.probe.get("/metrics")).body.decode()
        (line,) = (line for line in text.splitlines() if line.startswith("entra_fast_build_info{"))
        assert line.endswith(" 1.0")
        return dict(re.findall(r'(\w+)="([^"]*)"', line))

    found = await labels(sidecar)
    assert found["version"] == entra_fast.__version__
    assert found["python"] == platform.python_version()
    assert re.fullmatch(r"1\.\d+\.\d+\S*", found["rust"])
    path = await sidecar.metric("entra_fast_fast_path")
    assert found["fast_path"] == ("true" if path else "false")
    assert (await labels(await start(ENTRA_FAST_SIGNATURES="aws-lc")))["rsa"] == "aws-lc"


async def test_a_request_cannot_add_series(sidecar: Started) -> None:
    """Paths and methods of the caller's choice do not become labels."""
    for i in range(50):
        await sidecar.probe.get(f"/random/{i}")
    text = (await sidecar.probe.get("/metrics")).body.decode()
    assert "random" not in text
    assert sum(line.startswith("entra_fast_requests_total{") for line in text.splitlines()) < 5


async def test_the_api_describes_itself(sidecar: Started) -> None:
    """The description lists exactly the paths that are served."""
    document = (await sidecar.probe.get("/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    assert all(server["url"] for server in document["servers"])
    names = [each["operationId"] for operations in document["paths"].values() for each in operations.values()]
    assert len(names) == len(set(names))
    for path, operations in document["paths"].items():
        for method in operations:
            assert (await sidecar.probe.request(method.upper(), path)).status not in (404, 405)
    served = {resource.canonical for resource in sidecar.running.api.app.router.resources()}
    assert served == set(document["paths"])


async def test_draining_fails_readiness_first(start: StartSidecar, provider: Provider) -> None:
    """While draining: not ready, but requests are still answered, each with Connection: close."""
    sidecar = await start(ENTRA_FAST_DRAIN_DELAY_MILLIS="60000", PROBE_BIND_ADDRESS="127.0.0.1:0")
    stopping = asyncio.create_task(sidecar.running.stop(drain=True))
    await asyncio.sleep(0)
    unready = await sidecar.probe.get("/readyz")
    assert (unready.status, unready.json["reason"]) == (503, "shutting down")
    answer = await Caller(sidecar.running.address).token()
    assert answer.status == 200
    assert answer.header("Connection") == "close"
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    sidecar.running._stopped = False


def references(value: object) -> set[str]:
    """Every `$ref` in a description."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*(references(inner) for inner in value.values()))
    return set().union(*(references(inner) for inner in value)) if isinstance(value, list) else set()


async def test_the_description_names_its_schemas(sidecar: Started) -> None:
    """Generated clients get types with names: every body of the API is a component, and none is unused."""
    document = (await sidecar.probe.get("/openapi.json")).json
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == defined
    for path in ("/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"):
        operation = document["paths"][path]["post"]
        bodies = [operation["requestBody"], *operation["responses"].values()]
        assert all("$ref" in content["schema"] for body in bodies for content in body["content"].values())


async def test_the_description_requires_what_the_endpoints_require(sidecar: Started) -> None:
    """A request with only the required fields is accepted; `identity_provider` may be null."""
    document = (await sidecar.probe.get("/openapi.json")).json
    values = {"target": "api://c.n.a/.default", "user_token": "x", "token": "x", "identity_provider": None}
    for path in ("/api/v1/token", "/api/v1/token/exchange", "/api/v1/introspect"):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        name = content["schema"]["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
        assert {"type": "null"} in schema["properties"]["identity_provider"]["anyOf"]
        fields = {field: values[field] for field in [*schema["required"], "identity_provider"]}
        assert (await sidecar.call.json(path, fields)).status == 200
    assert "minLength" not in document["components"]["schemas"]["ExchangeRequest"]["properties"]["user_token"]
