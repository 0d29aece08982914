"""`entra-fast bench`: how fast is a running sidecar, as its own clients see it?

`command` has the options and the order of things, `load` sends requests and measures, `figures` sums up what
was measured, `report` shows it.
"""

from entra_fast.cli.bench.command import add_commands

__all__ = ["add_commands"]
