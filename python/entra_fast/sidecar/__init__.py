"""The sidecar: tokens and introspection over HTTP, as docs/reference/endpoints.md describes.

An application: its Python modules are not public.

What belongs here: the HTTP interface, the server around it, and the process. What must never be here: rules
about tokens (validate.py, _validation.py) and requests to the provider (_provider/).

| module | holds |
|---|---|
| interfaces | what the two sides of a sidecar need from each other |
| service | the side that answers requests, without HTTP |
| provider_client | the side that talks to the provider |
| policy | what a token must be to be active |
| clocks, logs, status_log | time, log lines, the status log |
| tracing, span_export, metric_export, telemetry, otlp | spans, metrics, how and where they are exported |
| http/ | the application, the fast path, which setting a listening socket comes from |
| process/ | one process or several: start, draining, signals, workers |

Nothing is imported here: a process decides first how it imports aiohttp (process/aiohttp_import.py).
"""
