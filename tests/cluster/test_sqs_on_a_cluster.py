from tests.integration.test_fifo_against_a_model import *  # noqa: F403
from tests.integration.test_fifo_queues import *  # noqa: F403
from tests.integration.test_move_tasks import *  # noqa: F403
from tests.integration.test_queues_of_sqs import *  # noqa: F403
