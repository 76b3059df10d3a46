"""How copies of a model agree: what they send each other, how small and how often."""
