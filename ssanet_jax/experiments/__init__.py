"""The paper's tables: rows, series of runs and comparisons."""
