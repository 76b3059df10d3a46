"""Ranks: launching, joining, wrapping."""
