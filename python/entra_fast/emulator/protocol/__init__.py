"""What Entra ID decides and issues; knows no HTTP."""
