"""Benchmarks: one command per module, or all of them with `python -m benchmarks`.

`python -m benchmarks.chaos` is apart from them: it times nothing, but kills trainings and compares what they end with.
"""
