"""Exported networks: reading their files, and predicting. Only `stablehlo_predictor` imports JAX."""
