"""Held-out metrics and plots."""
