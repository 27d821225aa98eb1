"""Processes and devices that train together."""
