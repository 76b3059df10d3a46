"""Hyper-parameter search: what to try next, what to stop, what mattered."""
