"""Compares the integrations of entra_fast with other libraries: `make bench-peers`.

`apps/` has the same service once bare, once with entra_fast, and once with each other library, written as its
documentation shows. `situations` asks each service what it answers; `load` measures requests per second.
"""
