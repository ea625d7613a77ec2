"""``restmq servers`` and ``ping``: the servers of RestMQ on one Redis, and whether one of them takes messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from restmq.cli.arguments import Commands
from restmq.cli.output import print_error, print_json, print_table, print_text
from restmq.cli.queues import duration
from restmq.client import Client

_SPARE = ("TAPS", "PID", "WORKER", "HOST", "VERSION", "WAITERS")
_SPARE_OF_REDIS = ("VERSION", "SLOTS", "CLIENTS", "UP", "WHEN FULL", "DISK")
_ALMOST_FULL = 0.9
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def add_to(commands: Commands) -> None:
    more = (
        "Shows each server's processes with their clients, and each server of Redis with its role, memory and "
        "persistence. A token must be one for all queues (*)."
    )
    commands.add("servers", run_servers, "show all servers on the same Redis, and the servers of Redis", more)
    more = (
        "Prints the time that the answer took. Exits with status 5 if the server is away or its store takes no writes."
    )
    commands.add("ping", run_ping, "check that the server and its store take messages", more)


def run_servers(args: SimpleNamespace, client: Client) -> int:
    found = client.servers()
    if args.json:
        print_json(found)
        return 0
    processes = [_process(server, worker) for server in found["servers"] for worker in server["workers"]]
    _print(processes, _SPARE)
    print_text("")
    _print([_node(node) for node in found["redis"]["nodes"]], _SPARE_OF_REDIS)
    for trouble in _troubles(found["missing"], found["redis"]):
        print_error(trouble)
    return 0


def _print(rows: Sequence[dict[str, object]], spare: Sequence[str]) -> None:
    """Prints a table of rows with the same members, without columns that are empty in all of them."""
    head = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)] if rows else []
    cells = [["-" if row[name] in (None, "") else row[name] for name in head] for row in rows]
    print_table(head, cells, [name for name in spare if name in head])


def _process(server: dict[str, Any], worker: dict[str, Any]) -> dict[str, object]:
    return {
        "SERVER": " ".join(server["listens_on"]),
        "HOST": server["host"],
        "WORKER": worker["worker"] if len(server["workers"]) > 1 else None,
        "PID": worker["pid"],
        "VERSION": server["version"],
        "UP": duration(worker["uptime_seconds"]),
        **{name.upper(): worker[name] for name in ("connections", "consumers", "waiters", "taps")},
    }


def _node(node: dict[str, Any]) -> dict[str, object]:
    appends = node.get("append_only_file")
    clients, up, lag = (node.get(name) for name in ("clients", "uptime_seconds", "lag_seconds"))
    return {
        "REDIS": node["address"],
        "ROLE": f"replica of {node['primary']}" if "primary" in node else node["role"],
        "STATE": node["state"],
        "VERSION": node.get("version"),
        "UP": None if up is None else duration(up),
        "MEMORY": _memory(node),
        "WHEN FULL": node.get("eviction_policy"),
        "DISK": None if appends is None else "append-only file" if appends else "snapshots only",
        "CLIENTS": None if clients is None else f"{clients}/{node['clients_max']}",
        "SLOTS": node.get("slots") or None,
        "LAG": None if lag is None else duration(lag),
    }


def _memory(node: dict[str, Any]) -> str | None:
    if "memory_bytes" not in node:
        return None
    limit = node.get("memory_max_bytes")
    return f"{_size(node['memory_bytes'])} of {_size(limit)}" if limit else f"{_size(node['memory_bytes'])}, no limit"


def _size(size_bytes: float) -> str:
    unit = 0
    while size_bytes >= 1024 and unit + 1 < len(_UNITS):
        size_bytes, unit = size_bytes / 1024, unit + 1
    return f"{size_bytes:.{1 if unit else 0}f} {_UNITS[unit]}"


def _troubles(missing: int | None, redis: dict[str, Any]) -> Iterator[str]:
    """Problems that an operator should know of, a sentence each."""
    if missing is None:
        yield "Redis does not answer, so other servers cannot be asked; only the one that answered is shown."
    elif missing:
        yield f"{missing} RestMQ processes did not answer in time."
    problems = {node["address"]: node["problem"] for node in redis["nodes"] if "problem" in node}
    if "problem" in redis and redis["problem"] not in problems.values():
        yield f"Redis: {redis['problem']}"
    for address, problem in problems.items():
        yield f"Redis at {address}: {problem}"
    for node in redis["nodes"]:
        where = f"Redis at {node['address']}"
        for what in node.get("failed_writes", ()):
            yield f"{where}: {what} failed; see its log."
        limit, policy = node.get("memory_max_bytes"), node.get("eviction_policy", "noeviction")
        if limit and policy != "noeviction":
            yield f"{where} drops messages when its memory is full; set maxmemory-policy to noeviction."
        elif limit and node["memory_bytes"] > _ALMOST_FULL * limit:
            yield f"{where} is almost full; while it is full, new messages are refused."
        if node.get("evicted_keys"):
            yield f"{where} has dropped {node['evicted_keys']} keys, because its memory was full."


def run_ping(args: SimpleNamespace, client: Client) -> int:
    if not args.retry_given:
        client.retry_seconds = 0
    began = time.perf_counter()
    answer = client.ready()
    took_ms = round(1000 * (time.perf_counter() - began), 1)
    if args.json:
        print_json({"url": client.server.url, **answer, "ms": took_ms})
    else:
        parts = f" ({answer['parts']} parts of the cluster)" if "parts" in answer else ""
        print_text(f"{client.server.url} is {answer['status']}{parts}: {took_ms} ms")
    return 0
