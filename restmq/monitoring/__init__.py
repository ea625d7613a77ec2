"""What people and Prometheus are shown: consumers, counters of queues, requests and workers, the access log."""
