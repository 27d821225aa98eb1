"""The server of an exported network: photos by HTTP, predictions as JSON. Imports no JAX."""
