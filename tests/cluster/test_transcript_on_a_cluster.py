from tests.integration.test_transcript import *  # noqa: F403
