"""Open models in: from a MODEL reference to a checked folder that everything else reads."""
