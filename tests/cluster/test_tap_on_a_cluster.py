"""The tests of taps, with queues on several nodes."""

from tests.integration.test_tap import *  # noqa: F403
