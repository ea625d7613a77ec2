"""Monitoring, for people and for Prometheus: consumers, counters of queues, requests and workers, the access log."""
