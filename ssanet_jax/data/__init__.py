"""Data sets: readers, decoding, transforms and the input pipeline."""
