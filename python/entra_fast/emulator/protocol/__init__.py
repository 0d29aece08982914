"""The decisions of Entra ID and the tokens that it issues, without HTTP."""
