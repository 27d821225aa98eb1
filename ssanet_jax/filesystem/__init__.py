"""Paths as users write them, locks, and folders for temporary files."""
