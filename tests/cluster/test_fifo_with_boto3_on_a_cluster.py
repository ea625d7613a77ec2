from tests.sqs.conftest import sqs  # noqa: F401
from tests.sqs.test_fifo import *  # noqa: F403
