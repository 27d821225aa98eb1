"""A web page that runs an exported network in the browser (`docs/web.md`)."""
