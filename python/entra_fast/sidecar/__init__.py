"""The sidecar: tokens and introspection over HTTP, as docs/endpoints.md describes.

An application: its Python modules are not public.

What belongs here: the HTTP interface, the server around it, and the process. What must never be here: rules
about tokens (tokens.py, validate.py) and the way out (http.py).

| module | holds |
|---|---|
| service | what the sidecar can do, without HTTP; its readiness |
| requests | bodies become checked fields, sans I/O |
| app | routes, handlers, answers |
| openapi | the description of the API |
| server | the protocol below aiohttp's application: limits, deadlines, and the place of the fast lane |
| listener | listening sockets, closed without losing anybody |
| run | start, draining, signals |
| supervisor | several processes: started, watched, ended |
| hub | the one of them that speaks to the provider and knows the whole |
| worker | the others, which answer requests |
| channel | messages between them |
| logs | log lines |
"""

from __future__ import annotations

from entra_fast.sidecar.http.app import build_app
from entra_fast.sidecar.process.single import RunningSidecar, run, start_sidecar

__all__ = ["RunningSidecar", "build_app", "run", "start_sidecar"]
