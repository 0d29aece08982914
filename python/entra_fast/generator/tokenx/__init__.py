"""The token generator for TokenX: users log in at ID-porten, and TokenX exchanges their tokens.

Like the one for Entra ID, it is an ordinary application at its providers, configured by the variables that
NAIS would give it.
"""
