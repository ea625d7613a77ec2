"""A Redis Cluster: ``store.ClusterStore`` has the guarantees of one Redis for each queue, whichever node has it."""
