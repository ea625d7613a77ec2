-- A FIFO queue has no live consumers: several consumers would get messages of one group at once.
return {2, 0}
