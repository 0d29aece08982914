"""The emulator's HTTP server and pages, without any decisions."""
