"""The open artifact and its card."""
