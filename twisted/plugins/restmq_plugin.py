# Names only: twistd imports this file at every start, whatever it is to run.
from twisted.application.service import ServiceMaker

restmq = ServiceMaker(
    "RestMQ", "restmq.server.tap.restmq", "A message queue that speaks HTTP and keeps its data in Redis.", "restmq"
)
collectd = ServiceMaker(
    "RestMQ collectd", "restmq.server.tap.collectd", "RestMQ with a place for collectd.", "collectd"
)
syslogd = ServiceMaker(
    "RestMQ syslogd", "restmq.server.tap.syslogd", "Puts syslog lines into RestMQ's queues.", "syslogd"
)
