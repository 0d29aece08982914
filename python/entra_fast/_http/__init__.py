"""Serving HTTP on a socket: what every listener of this package has in common.

What belongs here: listening sockets, limits and deadlines of connections, and requests that are refused
before an application sees them, with one sentence that repeats none of their bytes. What must never be here:
routes, tokens, pages, and anything that only one application needs.
"""
