"""How the ranks of a mesh share a model: copies, shards, parts of layers, stages."""
