"""One module for each kind of work."""
