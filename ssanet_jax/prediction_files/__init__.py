"""The files that `predict` writes: one module per format, and the journal that they are written from."""
