"""The tests of messages of SQS clients, and of what SQS and HTTP see of each other, on a cluster."""

from tests.sqs.conftest import *  # noqa: F403
from tests.sqs.test_interplay import *  # noqa: F403
from tests.sqs.test_messages import *  # noqa: F403
from tests.sqs.test_queues import *  # noqa: F403
