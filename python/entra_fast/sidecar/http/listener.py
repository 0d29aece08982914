"""The sidecar's listening sockets: which setting is wrong when an address cannot be used."""

from __future__ import annotations

import socket

from entra_fast._http.listener import bind, reason
from entra_fast.errors import ConfigurationError

ERROR_CODES = {"address_unusable": "the sidecar cannot listen on an address, such as one that is in use"}


def listen(host: str, port: int, setting: str, *, shared: bool = False) -> socket.socket:
    """A listening TCP socket.

    Args:
        shared: as for `bind`.

    Raises:
        ConfigurationError: code `address_unusable`; names the setting and the address.
    """
    try:
        return bind(host, port, shared=shared)
    except OSError as error:
        text = f"{setting}: cannot listen on {host}:{port}: {reason(error)}"
        raise ConfigurationError("address_unusable", text, setting) from None


def listen_together(host: str, port: int, setting: str, count: int) -> list[socket.socket]:
    """`count` sockets that share an address.

    Raises:
        ConfigurationError: code `address_unusable`; names the setting and the address.
    """
    # Any process of this user may share the address. That another sidecar already listens there would go
    # unnoticed, so the first attempt does not share.
    first = listen(host, port, setting)
    port = first.getsockname()[1]
    first.close()
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listeners.append(listen(host, port, setting, shared=True))
    except ConfigurationError:
        for listener in listeners:
            listener.close()
        raise
    return listeners
