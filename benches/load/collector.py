"""The OpenTelemetry collector of the load runs, a process of its own: `python -m benches.load.collector`.

Takes traces by OTLP over gRPC and counts their spans. Prints one line of JSON, `{"port": ...}`, and serves
until its input ends. By HTTP on that port, `GET /grpc` says the port for gRPC, and `GET /spans` how many
spans came.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    """Counts spans."""

    spans = 0

    async def Export(self, request: Any, context: Any) -> Any:
        for in_resource in request.resource_spans:
            self.spans += sum(len(in_scope.spans) for in_scope in in_resource.scope_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


async def serve() -> None:
    traces, server = Traces(), grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(traces, server)  # type: ignore[no-untyped-call]
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def port(_: web.Request) -> web.Response:
        return web.json_response(grpc_port)

    async def spans(_: web.Request) -> web.Response:
        return web.json_response(traces.spans)

    app = web.Application()
    app.router.add_get("/grpc", port)
    app.router.add_get("/spans", spans)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(serve())
