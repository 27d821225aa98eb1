"""Accuracy, robustness, key points and drawings of a trained network."""
