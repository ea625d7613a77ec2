from tests.integration.test_dashboard import *  # noqa: F403
