"""Stages, the compiled step, the training loop and the feature cache."""
