"""Importing aiohttp without the certificate authorities that it loads at import.

What belongs here: nothing else. aiohttp.connector makes two TLS contexts when it is imported, and each parses
the system's whole CA bundle: 25 ms and half a mebibyte each. A process of the sidecar uses neither: its HTTP
client makes the one that it needs (`http_rules.trusting_context`), and a worker makes no connections of its
own. Contexts made here trust nobody, so a mistake would be a refused connection, not an unverified one.
Only for a process that is a sidecar and nothing else.
"""

from __future__ import annotations

import os

_LOCATIONS = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""OpenSSL reads its default locations from these."""


def import_aiohttp() -> None:
    """Import aiohttp while OpenSSL's default locations of certificate authorities are empty.

    Call it before anything else imports aiohttp, and while the process has one thread.
    """
    before = {name: os.environ.get(name) for name in _LOCATIONS}
    os.environ.update(dict.fromkeys(_LOCATIONS, os.devnull))
    try:
        import aiohttp  # noqa: F401, PLC0415 - the purpose of this function
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
