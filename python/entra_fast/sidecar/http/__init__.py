"""HTTP: the one place that uses internals of aiohttp and uvloop."""
