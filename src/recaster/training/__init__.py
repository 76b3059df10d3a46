"""The training engine: knows torch and nothing else of the stack."""
