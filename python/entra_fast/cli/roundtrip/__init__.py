"""`entra-fast roundtrip`: does every identity provider of a sidecar work?

`command` has the options and what is printed, `steps` the six round trips, `local` the local system that they
run against on request. The sidecar may also be Texas: only the documented API is used.
"""

from entra_fast.cli.roundtrip.command import add_commands

__all__ = ["add_commands"]
