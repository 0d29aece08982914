"""Listening sockets: opening them, and closing them without losing a connection.

What belongs here: what the kernel does between a client's SYN and our accept. What must never be here: the
bytes of a connection.

The kernel establishes a connection before it is accepted, so its client may have sent a request already.
Closing a listening socket resets every connection in its queue. So first new connections are stopped (their
SYNs are dropped, and the clients' retransmission a second later finds the port closed), then the queue is
emptied, then the socket is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import sys

BACKLOG = 1024
RECEIVE_BUFFER_BYTES = 32_768
"""What a client can send before it is read, roughly: it is also the most that one read returns, and what a
connection holds while it waits for its turn. The kernel's own limit is megabytes, for each connection."""

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket module does not have it
_ACCEPT_QUEUE = struct.Struct("=24xI")  # linux/tcp.h: tcp_info.tcpi_unacked is the queue's length here
_LONGEST_WAIT, _PAUSE = 1.0, 0.005

# Classic BPF over the TCP header: drop what has SYN set and ACK not set, pass all else.
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening TCP socket.

    Args:
        shared: further sockets may listen on the same address, and the kernel spreads connections over them
            (SO_REUSEPORT).

    Raises:
        OSError: the address cannot be resolved or used. `reason` says why.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":  # pragma: no cover - tests run on other systems
            # There, SO_REUSEADDR would let any other process listen on the same address.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Before `listen`: the window scale of a connection follows from it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listener.bind(address)
        # Two sockets may be bound to an address with SO_REUSEADDR; only `listen` shows whether it is free.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def reason(error: OSError) -> str:
    """Why `bind` failed, for a sentence about the address."""
    return "the address is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)


async def stop_accepting(listener: socket.socket) -> None:
    """Refuse new connections, and wait until every established one has been accepted. The event loop must
    keep accepting in the meantime. Does nothing on systems that do not support this."""
    if sys.platform != "linux":  # pragma: no cover - other operating systems
        return
    import ctypes  # noqa: PLC0415 - takes memory, and is used once

    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _NO_NEW_CONNECTIONS)
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HL", len(_NO_NEW_CONNECTIONS), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        deadline = asyncio.get_running_loop().time() + _LONGEST_WAIT
        while asyncio.get_running_loop().time() < deadline:
            information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACCEPT_QUEUE.size)
            if _ACCEPT_QUEUE.unpack(information)[0] == 0:
                break
            await asyncio.sleep(_PAUSE)
