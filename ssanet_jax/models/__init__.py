"""Flax NNX modules and pure functions, without I/O."""
