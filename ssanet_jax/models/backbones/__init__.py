"""Backbones: modules that map images to feature maps."""
