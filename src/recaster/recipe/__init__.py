"""The recipe's schema and its reading."""
