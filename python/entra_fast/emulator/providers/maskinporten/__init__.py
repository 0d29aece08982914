"""The local Maskinporten: tokens of organizations, for a JWT that a client signs (RFC 7523, section 2.1)."""
