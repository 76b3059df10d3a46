"""Prefect tasks: how often to try, what to show."""
