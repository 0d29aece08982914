"""Imports that are made when something is first needed.

What belongs here: the lock that keeps a process from forking meanwhile. What must never be here: what is
imported.

A module that another thread was importing stays locked in a child process for ever, and with it every thread
there that needs the module.
"""

from __future__ import annotations

import os
import threading

importing = threading.RLock()
"""Held while a thread imports a module of this package late. No thread forks the process until then."""

if hasattr(os, "register_at_fork"):  # pragma: no branch - only Windows has no fork
    os.register_at_fork(
        before=importing.acquire, after_in_parent=importing.release, after_in_child=importing.release
    )
