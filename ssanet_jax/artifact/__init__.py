"""Exported networks: reading their files, and predicting with onnxruntime. Imports no JAX."""
