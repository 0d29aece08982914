"""The local Maskinporten: tokens for organizations, for a JWT that the client signs (RFC 7523, section 2.1)."""
