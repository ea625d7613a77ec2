"""The records of workers in Redis: none is counted twice, and none is lost when old ones are merged."""

from __future__ import annotations

import json

from restmq.store import keys, scripts
from tests.servers import Redis

HASH = keys.one_redis().worker_counters("group").decode()


def write(redis: Redis, serial: int, counts: dict[str, list[float]], most: int = 3) -> dict[str, list[float]]:
    """Writes a worker's record and returns the sum over all."""
    script = scripts.load("worker_counters").source.decode()
    flat = redis.command("EVAL", script, 1, HASH, serial, json.dumps({"counts": counts}), most, 60, 1)
    total: dict[str, list[float]] = {}
    for record in flat[1::2]:
        for name, numbers in json.loads(record)["counts"].items():
            known = total.get(name, [0] * len(numbers))
            total[name] = [one + other for one, other in zip(known, numbers, strict=True)]
    return total


def test_a_record_replaces_the_one_before_it(private_redis: Redis) -> None:
    write(private_redis, 1, {"http": [1, 0.5]})
    assert write(private_redis, 1, {"http": [3, 0.75]}) == {"http": [3, 0.75]}
    assert write(private_redis, 2, {"http": [1, 0.25], "dropped": [1]}) == {"http": [4, 1.0], "dropped": [1]}


def test_the_oldest_records_are_merged_and_counted_once(private_redis: Redis) -> None:
    for serial in range(1, 11):
        total = write(private_redis, serial, {"http": [1, serial], f"worker{serial}": [1]})
        assert total["http"] == [serial, sum(range(1, serial + 1))]
    assert total == {"http": [10, 55]} | {f"worker{serial}": [1] for serial in range(1, 11)}
    assert private_redis.command("HLEN", HASH) <= 5
    assert write(private_redis, 2, {"http": [100, 100]})["http"] == [10, 55]
    assert 0 < private_redis.command("TTL", HASH) <= 60
