"""Export of a trained run to one file that runs without JAX (`docs/export.md`)."""
