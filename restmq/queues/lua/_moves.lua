-- Tasks of SQS that move messages of a dead-letter queue to other queues. MOVES has them in JSON by their ids, and the id
-- of the one that runs as `active`. While a task runs, DUE has the queue's name with MOVE at the end, which no queue's name
-- can have: the time of the task's next step. A daemon that begins a step sets it to CLAIM_MS later. So another daemon
-- goes on with the task if that daemon dies, and nothing is polled if there are no tasks.
local MOVE = '\nmove'
