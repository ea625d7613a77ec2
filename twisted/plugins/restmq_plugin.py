# Names only: twistd imports this file at every start, whatever it is to run.
from twisted.application.service import ServiceMaker

restmq = ServiceMaker("RestMQ", "restmq.tap", "A message queue that speaks HTTP and keeps its data in Redis.", "restmq")
