"""Downloads of published data sets: `ssanet download`."""
