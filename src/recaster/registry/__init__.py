"""Model versions, aliases, the gate."""
