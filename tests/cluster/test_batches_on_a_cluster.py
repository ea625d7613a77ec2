"""Many clients at once, whose requests share script calls, while a node hangs or is killed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from tests.cluster.test_cluster_faults import all_taken, queue_of_each, takes_messages
from tests.clusters import Cluster, Node
from tests.servers import Daemon, stopping, wait_until

CLIENTS = 20


@pytest.fixture
def cluster(private_folder: Path) -> Iterator[Cluster]:
    """Nodes without replicas, so that no other one takes the place of a node that hangs."""
    made = Cluster(private_folder / "cluster", replicas=0)
    yield made
    made.stop()


@pytest.fixture
def http(private_folder: Path, cluster: Cluster) -> Iterator[httpx.Client]:
    daemon = Daemon(private_folder / "daemon", "--redis-cluster", cluster.addresses, "--redis-timeout", "300")
    with stopping(daemon), daemon.client() as http:
        yield http


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3 * CLIENTS) as threads:
        yield threads


Posts = dict[str, list["Future[httpx.Response]"]]


def post_to_all(clients: ThreadPoolExecutor, http: httpx.Client, queues: list[str]) -> Posts:
    """Posts to all queues at once, to each as many messages as there are clients."""
    posts: Posts = {queue: [] for queue in queues}
    for number in range(CLIENTS):
        for queue in queues:
            posts[queue].append(clients.submit(http.post, f"/q/{queue}", content=b"%d" % number))
    return posts


def hang_under_load(cluster: Cluster, http: httpx.Client, clients: ThreadPoolExecutor) -> tuple[Node, str, Posts]:
    """A node that hangs, its queue, and the posts to all nodes; those to other nodes are answered."""
    queues = queue_of_each(cluster)
    hung, hurt = next(iter(queues.items()))
    hung.pause()
    posts = post_to_all(clients, http, list(queues.values()))
    for queue in queues.values():
        if queue != hurt:
            wait(posts[queue], 60)
            keys = [post.result(0).text.strip() for post in posts[queue]]
            assert all_taken(http, queue) == sorted(keys, key=lambda key: int(key.rpartition(":")[2]))
    return hung, hurt, posts


def test_clients_of_a_node_that_hangs_are_answered_when_it_goes_on(
    cluster: Cluster, http: httpx.Client, clients: ThreadPoolExecutor
) -> None:
    hung, hurt, posts = hang_under_load(cluster, http, clients)
    hung.go_on()
    keys = {post.result().text.strip() for post in posts[hurt]}
    assert keys == {f"{hurt}:{number}" for number in range(1, CLIENTS + 1)}
    assert all_taken(http, hurt) == [f"{hurt}:{number}" for number in range(1, CLIENTS + 1)]


def test_clients_of_a_node_that_is_killed_while_it_hangs_get_one_503_each_and_none_is_added(
    cluster: Cluster, http: httpx.Client, clients: ThreadPoolExecutor
) -> None:
    hung, hurt, posts = hang_under_load(cluster, http, clients)
    hung.kill()
    assert [post.result().status_code for post in posts[hurt]] == [503] * CLIENTS
    hung.start()
    wait_until(lambda: takes_messages(http, hurt), 60)
    assert all_taken(http, hurt) == [f"{hurt}:1"]
