"""The local TokenX: tokens of users, exchanged from application to application (RFC 8693).

It behaves as tokendings, the token exchange service of NAIS, does: its checks, their order, its sentences.
"""
