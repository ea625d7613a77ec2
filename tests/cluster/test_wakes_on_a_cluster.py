from tests.integration.test_wakes import *  # noqa: F403
