"""Everything that speaks to the provider: endpoints, keys, credentials, tokens."""
