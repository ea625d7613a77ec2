#!lua
-- Does nothing. Redis refuses to run it whenever it would refuse a write: as a replica, or when it is full, cannot save,
-- or has too few replicas.
return 1
