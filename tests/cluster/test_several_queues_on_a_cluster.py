"""The tests of several queues at once, with queues on several nodes."""

from tests.integration.test_several_queues import *  # noqa: F403
