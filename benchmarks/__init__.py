"""Things compared in turns within one process: a command each, or all by `python -m benchmarks`."""
