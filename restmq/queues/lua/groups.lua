-- The groups of a queue that is no FIFO queue: none (see fifo/groups).
return {}
