"""The command line. Uses the public API only."""
