"""Recaster keeps open models fresh on a team's own data."""

__version__ = "0.1.0"
