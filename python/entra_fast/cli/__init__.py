"""The `entra-fast` command.

An application: its Python modules are not public.
"""
