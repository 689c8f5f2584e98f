"""Bytes that may be anything, through all that reads text: `python -m tests.fuzz --help`, docs/testing.md."""
