"""A local Microsoft Graph: reading users and groups, behind tokens that are verified. No HTTP server."""
