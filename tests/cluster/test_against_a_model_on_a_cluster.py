from tests.integration.test_against_a_model import *  # noqa: F403
