from tests.integration.test_fanout import *  # noqa: F403
