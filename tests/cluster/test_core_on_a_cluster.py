from tests.integration.test_core import *  # noqa: F403
