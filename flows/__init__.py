"""Prefect flows: in what order."""
