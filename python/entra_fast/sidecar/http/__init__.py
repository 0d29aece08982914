"""HTTP: the only package that uses private parts of aiohttp (internals.py lists them)."""
