from tests.integration.test_promote import *  # noqa: F403
