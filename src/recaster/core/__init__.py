"""References, errors, atomic files, hashing, seeds, clock."""
