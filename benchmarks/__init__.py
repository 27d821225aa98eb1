"""Benchmarks: one command per module, or all of them with `python -m benchmarks`."""
