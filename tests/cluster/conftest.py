"""The fixtures of the other tests, with a Redis Cluster in place of the Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from restmq.core import RedisOperations
from tests.clusters import Cluster, ClusterAsRedis
from tests.integration.conftest import Run, clock, operations, run, timed
from tests.servers import Daemon

__all__ = ["clock", "run", "timed"]


#: Tests of a server, or of its commands, that a cluster does not have.
OF_ONE_REDIS = {
    "test_a_dead_daemon_is_removed_from_the_turns",
    "test_a_full_redis_rejects_messages_with_its_reason",
    "test_a_thousand_idle_consumers_cause_few_calls_to_redis",
    "test_a_waiter_that_died_is_skipped",
    "test_a_token_must_be_for_all_of_the_queues_and_its_end_ends_the_stream",
    "test_a_tap_needs_the_right_to_read",
    "test_a_watcher_that_reads_nothing_does_not_hold_up_another_one",
    "test_adds_of_one_reactor_turn_are_one_call_and_keep_their_order",
    "test_an_invalid_name_in_old_data_does_not_hide_the_other_queues",
    "test_clients_that_disconnect_while_redis_hangs_take_nothing_and_the_order_stays",
    "test_data_is_kept_apart_by_database_number",
    "test_messages_put_back_in_one_turn_are_one_call",
    "test_messages_written_with_redis_cli_are_delivered",
    "test_of_messages_that_come_to_several_queues_at_once_the_first_is_taken",
    "test_queues_that_redis_refuses_do_not_delay_the_others",
    "test_redis_may_require_a_password",
    "test_tokens",
    "test_two_databases_of_one_redis_do_not_share_channels",
    "test_with_a_wrong_password_the_store_is_unavailable",
    "test_without_its_password_redis_is_not_used",
    "test_without_redis_calls_fail_at_once_and_work_again_when_it_is_back",
    "test_without_redis_promote_is_refused_and_works_when_it_is_back",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    left_out = [item for item in items if item.path.parent == here and item.name.partition("[")[0] in OF_ONE_REDIS]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def redis(folder: Path) -> Iterator[ClusterAsRedis]:
    """A cluster for tests that only need queues of their own."""
    server = ClusterAsRedis(folder / "cluster")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def daemon(folder: Path, redis: ClusterAsRedis) -> Iterator[Daemon]:
    """A daemon for tests that only need queues of their own."""
    server = Daemon(folder / "daemon-on-cluster", redis=redis)
    yield server
    server.stop()
    server.assert_no_tracebacks()


@pytest.fixture(scope="session")
def _lent(folder: Path) -> Iterator[ClusterAsRedis]:
    server = ClusterAsRedis(folder / "lent-cluster", replicas=0)
    yield server
    server.stop()


@pytest.fixture
def private_redis(_lent: ClusterAsRedis) -> ClusterAsRedis:
    """An empty cluster that the test has for itself, and leaves as it was but for its data."""
    _lent.flush()
    return _lent


@pytest.fixture
def private_cluster(private_folder: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster that the test may damage: three primaries, each with a replica. A parameter names the program."""
    cluster = Cluster(private_folder / "cluster", program=getattr(request, "param", None))
    yield cluster
    cluster.stop()


@pytest.fixture
def private_core(run: Run, private_redis: ClusterAsRedis) -> Iterator[RedisOperations]:
    yield from operations(run, private_redis, call_timeout_seconds=3.0)


@pytest.fixture
def core(run: Run, redis: ClusterAsRedis) -> Iterator[RedisOperations]:
    yield from operations(run, redis)
