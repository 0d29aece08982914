"""What happens below an application, for servers that export no metrics."""

from __future__ import annotations

import logging

_log = logging.getLogger("entra_fast.http")


class LoggingObserver:
    """Writes lines at level INFO: they help a developer, and any client can cause any number of them."""

    def refused(self, status: int) -> None:
        _log.info("a request was refused with status %d before it reached the application", status)

    def connection_refused(self) -> None:
        _log.info("a connection was refused: too many are open")

    def not_received_in_time(self) -> None:
        _log.info("a request did not arrive in time")

    def worked(self) -> None:
        """Nobody has to know."""
