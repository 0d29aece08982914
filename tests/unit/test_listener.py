"""Listening sockets: what is refused, and what is left behind when opening them fails."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket

import pytest

from entra_fast._http import listener as listener_module
from entra_fast._http.limits import SPARE_FILES, possible_connections
from entra_fast._http.listener import bind, stop_accepting
from entra_fast.errors import ConfigurationError
from entra_fast.sidecar.http.listener import listen, listen_together


def test_an_address_without_an_ip_is_refused() -> None:
    """The message names the setting and the address."""
    with pytest.raises(
        ConfigurationError, match=r"BIND_ADDRESS: cannot listen on no such host:0: "
    ) as caught:
        listen("no such host", 0, "BIND_ADDRESS")
    assert (caught.value.code, caught.value.setting) == ("address_unusable", "BIND_ADDRESS")


def test_an_address_in_use_is_refused() -> None:
    """Also when the sockets are to share it: another program may not be joined."""
    first = listen("127.0.0.1", 0, "BIND_ADDRESS")
    port = first.getsockname()[1]
    for attempt in (
        lambda: listen("127.0.0.1", port, "X"),
        lambda: listen_together("127.0.0.1", port, "X", 2),
    ):
        with pytest.raises(ConfigurationError, match=r"^X: .*: the address is in use") as caught:
            attempt()
        assert caught.value.setting == "X"
    first.close()


def test_sockets_share_an_address() -> None:
    """One for each worker, at the same port; another program may not join a socket that is not shared."""
    listeners = listen_together("127.0.0.1", 0, "BIND_ADDRESS", 3)
    assert len({each.getsockname() for each in listeners}) == 1
    assert len({each.fileno() for each in listeners}) == 3
    for each in listeners:
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        each.close()
    alone = listen("127.0.0.1", 0, "BIND_ADDRESS")
    assert not alone.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    alone.close()


def test_a_later_socket_that_cannot_be_opened_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that were opened before are closed."""
    opened: list[socket.socket] = []

    def limited(host: str, port: int, *, shared: bool = False) -> socket.socket:
        assert host == "127.0.0.1"
        assert shared is bool(opened)  # not the first one: another program may have the address
        if len(opened) == 3:
            raise OSError(errno.EADDRINUSE, "in use")
        opened.append(bind(host, port, shared=shared))
        return opened[-1]

    monkeypatch.setattr("entra_fast.sidecar.http.listener.bind", limited)
    with pytest.raises(ConfigurationError, match="X: cannot listen on 127") as caught:
        listen_together("127.0.0.1", 0, "X", 4)
    assert (caught.value.code, caught.value.setting) == ("address_unusable", "X")
    assert [each.fileno() for each in opened] == [-1, -1, -1]


def test_sockets_that_share_an_address_are_closed_if_one_cannot_be_opened() -> None:
    """Here because the process has no file descriptor left for the last one."""
    before = set(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, before)) + 2, hard))
    spare = 64 + len(before)
    try:
        with pytest.raises(ConfigurationError) as caught:
            listen_together("127.0.0.1", 0, "BIND_ADDRESS", max(map(int, before)) + spare)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.code == "address_unusable"
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_waiting_for_established_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing accepts the connection that waits, the end of the server does not wait for it for
    ever."""
    monkeypatch.setattr(listener_module, "_LONGEST_WAIT", 0.02)
    listener = listen("127.0.0.1", 0, "BIND_ADDRESS")
    with socket.create_connection(listener.getsockname()):
        async with asyncio.timeout(60):
            await stop_accepting(listener)
        connection, _ = listener.accept()  # it is still there
        connection.close()
    listener.close()


def test_the_limit_of_open_files_is_raised_as_far_as_possible() -> None:
    """The number of connections that is asked for needs file descriptors, and some stay free for requests to
    the provider."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(map(int, os.listdir("/proc/self/fd"))) + 1
    low = used + SPARE_FILES
    assert low + 100 <= hard or hard == resource.RLIM_INFINITY
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        assert possible_connections(used + 50) == used + 50
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == used + 50 + SPARE_FILES
        assert possible_connections(1) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
