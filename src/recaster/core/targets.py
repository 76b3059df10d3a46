"""Numbers that stand where a class number would."""

from __future__ import annotations

OUT_OF_SCOPE = -1
"""Target of a record to which none of the labels applies."""
