"""Benchmarks: ``python -m benchmarks.NAME``; each prints a table, and one JSON object with ``--json``."""
