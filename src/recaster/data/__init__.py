"""Raw records, contract, split, shards."""
