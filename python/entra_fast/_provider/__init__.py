"""Everything that talks to the provider: endpoints, keys, credentials, tokens."""
