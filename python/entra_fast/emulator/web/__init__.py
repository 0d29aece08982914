"""The emulator's HTTP server and pages; decides nothing."""
