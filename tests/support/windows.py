"""A system like Windows, as far as this package can tell: what CPython and asyncio lack there is hidden.

`PROGRAM` is `entra-fast` on such a system. It takes away modules, functions and constants that do not exist
on Windows, and the handling of signals by the event loop. Everything else is real.
"""

from __future__ import annotations

PROGRAM = """
import asyncio, os, signal, socket, sys

for name in ("fcntl", "grp", "pwd", "resource", "termios", "uvloop"):
    sys.modules[name] = None
for owner, names in (
    (os, ("O_NOFOLLOW", "fchmod", "fork", "getuid", "geteuid", "WNOHANG")),
    (signal, ("SIGCHLD", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2")),
    (socket, ("SO_REUSEPORT", "TCP_USER_TIMEOUT")),
):
    for name in names:
        if hasattr(owner, name):
            delattr(owner, name)

def not_implemented(*_):
    raise NotImplementedError

asyncio.SelectorEventLoop.add_signal_handler = not_implemented
asyncio.SelectorEventLoop.remove_signal_handler = not_implemented

from entra_fast.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
