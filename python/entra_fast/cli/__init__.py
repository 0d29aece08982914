"""The `entra-fast` command."""
