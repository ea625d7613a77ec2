"""A Redis that answers, but cannot serve: said once in the log, in ``/readyz`` and to clients, and mended by itself."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.proxy import Proxy
from tests.servers import ROOT, Comet, Daemon, Redis, free_port, redis_program, stopping, valkey_program, wait_until

WAITING = "waiting for the store"


def is_ready(http: httpx.Client) -> bool:
    return http.get("/readyz").status_code == 200


def not_ready(http: httpx.Client, reason: str) -> bool:
    answer = http.get("/readyz")
    return answer.status_code == 503 and reason in answer.json()["error"]


def with_port(folder: Path, *options: str) -> tuple[Redis, str]:
    port = str(free_port())
    at_once = ("--repl-diskless-sync-delay", "0")
    return Redis(folder, "--port", port, "--bind", "127.0.0.1", *at_once, *options), port


def connections(redis: Redis) -> int:
    """The number of clients, without the one that asks."""
    return len(redis.command("CLIENT", "LIST").splitlines()) - 1


# Which server it is


def test_a_replica_is_not_used_until_it_is_promoted(private_folder: Path) -> None:
    primary, port = with_port(private_folder / "one")
    replica = Redis(private_folder / "two", "--replicaof", "127.0.0.1", port)
    daemon = Daemon(private_folder, redis=replica, starts=WAITING)
    with stopping(daemon, replica, primary), daemon.client() as http:
        wait_until(lambda: not_ready(http, "it is a replica"))
        refused = http.post("/q/x", data={"value": "y"})
        assert (refused.status_code, "is a replica" in refused.json()["error"]) == (503, True)
        replica.command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: is_ready(http))
        assert http.post("/q/x", data={"value": "y"}).text == "x:1\r\n"
        assert daemon.log.count("it is a replica") == 1


def test_a_demoted_primary_is_no_longer_used_and_streams_stay_connected(private_folder: Path) -> None:
    redis, _ = with_port(private_folder / "one")
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon, redis), daemon.client() as http:
        stream = Comet(daemon, "/c/news")
        http.post("/q/x", data={"value": "before"})
        redis.command("REPLICAOF", "127.0.0.1", "1")
        for _ in range(20):
            refused = http.post("/q/x", data={"value": "meanwhile"})
            assert refused.status_code == 503
            assert "replica" in refused.json()["error"]
        assert not_ready(http, "it is a replica")
        assert daemon.log.count("READONLY") == 1
        assert daemon.log.count("it is a replica") == 1
        redis.command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: is_ready(http))
        assert http.get("/q/x?count=9").json()[0]["value"] == "before"
        wait_until(lambda: redis.command("PUBSUB", "NUMSUB", "news:PUBSUB")[1] == 1)
        http.post("/q/news", data={"value": "after"})
        assert b"after" in stream.lines(1)[0]
        wait_until(lambda: daemon.log.count("answers again") == 1)


def test_a_node_of_a_redis_cluster_is_named_as_such(private_folder: Path) -> None:
    ports = ("--port", str(free_port()), "--cluster-port", str(free_port()))
    redis = Redis(private_folder / "redis", "--cluster-enabled", "yes", *ports, "--appendonly", "no")
    daemon = Daemon(private_folder, redis=redis, starts=WAITING)
    with stopping(daemon, redis), daemon.client() as http:
        wait_until(lambda: not_ready(http, "Redis Cluster"))
        assert "is a cluster" in http.post("/q/x", data={"value": "y"}).json()["error"]
        assert daemon.log.count("Redis Cluster") == 1


# Readiness


def fills(redis: Redis) -> None:
    redis.command("CONFIG", "SET", "maxmemory", "1")


def lacks_replicas(redis: Redis) -> None:
    redis.command("CONFIG", "SET", "min-replicas-to-write", "1")


def cannot_save(redis: Redis) -> None:
    redis.command("CONFIG", "SET", "save", "3600 1")
    shutil.rmtree(redis.folder)
    redis.command("BGSAVE")
    wait_until(lambda: "rdb_last_bgsave_status:err" in redis.command("INFO", "persistence"))


@pytest.mark.parametrize(
    ("trouble", "code"), [(fills, "OOM"), (lacks_replicas, "NOREPLICAS"), (cannot_save, "MISCONF")]
)
def test_a_server_whose_writes_would_fail_is_not_ready(
    private_folder: Path, trouble: Callable[[Redis], None], code: str
) -> None:
    port = str(free_port())
    # The socket is not where the data is, as the folder of that is deleted.
    redis = Redis(private_folder / "data", "--appendonly", "no", "--port", port, "--bind", "127.0.0.1")
    daemon = Daemon(private_folder, "--redis-port", port)
    with daemon.client() as http, stopping(daemon):
        assert is_ready(http)
        kept = redis.folder.with_name("socket")
        Path(redis.socket_path).rename(kept)
        redis.socket_path = str(kept)
        trouble(redis)
        assert not_ready(http, code)
        assert http.head("/readyz").status_code == 503
        for name, value in (("maxmemory", "0"), ("min-replicas-to-write", "0"), ("save", "")):
            redis.command("CONFIG", "SET", name, value)
        assert is_ready(http)
        assert redis.keys() == set()  # nothing was written to find out
    redis.kill()


def test_only_clients_that_may_see_statistics_get_the_reason_why_a_server_is_not_ready(
    private_folder: Path, private_redis: Redis
) -> None:
    rules = private_folder / "acl.conf"
    rules.write_text("[rest:consumer]\nusername = alice\npassword = secret\n")
    daemon = Daemon(private_folder / "daemon", "--acl", str(rules), redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        fills(private_redis)
        told = http.get("/readyz", auth=("alice", "secret"))
        untold = http.get("/readyz")
        guessed = http.get("/readyz", auth=("alice", "wrong"))
        assert [told.status_code, untold.status_code, guessed.status_code] == [503, 503, 503]
        assert "OOM" in told.text
        assert "OOM" not in untold.text + guessed.text
        assert untold.headers["Retry-After"]


def test_operations_that_redis_rejects_are_logged_in_one_line(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        fills(private_redis)
        answers = [http.post("/q/x", data={"value": "y"}) for _ in range(30)]
        assert {answer.status_code for answer in answers} == {503}
        assert daemon.log.count("OOM") == 1


# Why it cannot be reached


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--redis-host", "no-such-host.invalid"), "its name cannot be resolved"),
        (("--redis-port", "1"), "Connection refused"),
        (("--redis-socket", "/nowhere/redis.sock"), "No such file or directory"),
        (("--redis-password", "wrong"), "it does not accept the user and password"),
        (("--redis-db", "99"), "database 99 (--redis-db) cannot be selected"),
    ],
)
def test_the_log_has_the_reason_why_redis_cannot_be_used_once(
    private_folder: Path, private_redis: Redis, options: tuple[str, ...], reason: str
) -> None:
    redis = private_redis if options[0] in ("--redis-password", "--redis-db") else None
    daemon = Daemon(private_folder, *options, redis=redis, starts=WAITING)
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: reason in daemon.log)
        lines = daemon.log.count("\n")
        wait_until(lambda: http.get("/readyz").status_code == 503)
        assert reason in http.get("/readyz").text
        assert reason not in http.post("/q/x", data={"value": "y"}).text
        assert daemon.log.count(reason) == 1
        assert daemon.log.count("\n") - lines <= 1  # requests are answered 503 from now on
        assert "wrong" not in daemon.log.replace("WRONGPASS", "")


def test_a_reason_that_changes_is_logged_again(private_folder: Path, private_redis: Redis) -> None:
    private_redis.stop()
    with stopping(Daemon(private_folder, redis=private_redis, starts=WAITING)) as daemon:
        wait_until(lambda: "cannot be used: " in daemon.log)
        start_locked(private_redis)
        wait_until(lambda: "it requires a password" in daemon.log)


def start_locked(redis: Redis) -> None:
    """Starts it with a password, and does not wait until it answers."""
    command = [redis.program, "--port", "0", "--unixsocket", redis.socket_path, "--dir", str(redis.folder)]
    redis.process = subprocess.Popen([*command, "--requirepass", "secret"], stdout=subprocess.DEVNULL)


def test_a_server_that_is_no_redis_is_named_as_such(private_folder: Path, daemon: Daemon) -> None:
    with stopping(Daemon(private_folder, "--redis-port", str(daemon.port), starts=WAITING)) as misled:
        wait_until(lambda: "it does not speak Redis' protocol" in misled.log)


def test_the_engine_prints_the_reason_why_redis_cannot_be_used(private_redis: Redis) -> None:
    command = [sys.executable, str(ROOT / "restmq_engine.py"), "-u", "--queue", "q", "--redis-timeout", "2"]
    arguments = ["--redis-socket", private_redis.socket_path, "--redis-password", "wrong"]
    ended = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "it does not accept the user and password" in ended.stderr


def test_a_server_that_was_suspended_still_reads_the_answers_of_redis(
    private_folder: Path, private_redis: Redis
) -> None:
    daemon = Daemon(private_folder, "--redis-timeout", "3", redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        assert http.get("/q/x").status_code == 204  # Redis knows the script from now on
        http.post("/q/x", data={"value": "y"})
        private_redis.pause()
        asking = daemon.get("/q/x")
        for _ in range(2):  # by then it has asked Redis
            http.get("/healthz")
        daemon.process.send_signal(signal.SIGSTOP)
        private_redis.go_on()
        wait_until(lambda: private_redis.command("EXISTS", "x:queue") == 0)
        threading.Event().wait(4)  # longer than the time limit
        daemon.process.send_signal(signal.SIGCONT)
        assert asking.recv(1000).startswith(b"HTTP/1.1 200 ")
        asking.close()


# Rights


def user(redis: Redis, *rules: str) -> tuple[str, ...]:
    redis.command("ACL", "SETUSER", "mq", "reset", "on", ">secret", *rules)
    return ("--redis-username", "mq", "--redis-password", "secret")


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (("~*", "&*", "+@all", "-hincrby"), "HINCRBY"),
        (("~*", "&*", "+@all", "-evalsha"), "runs no scripts"),
        (("~*", "+@all", "resetchannels"), "SUBSCRIBE on channels such as restmq:PUBSUB"),
        (("~*", "&*:PUBSUB", "+@all"), "PUBLISH on channels such as RESTMQ-DUE:0"),
        (("~*", "&*", "+@all", "-subscribe"), "SUBSCRIBE"),
        (("~QUEUESET", "&*", "+@all"), "QUEUEDUE"),
    ],
)
def test_a_right_that_is_missing_is_named_and_nothing_is_lost(
    private_folder: Path, private_redis: Redis, rules: tuple[str, ...], missing: str
) -> None:
    private_redis.commands([("SET", "x:1", "kept"), ("LPUSH", "x:queue", "x:1"), ("SADD", "QUEUESET", "x")])
    daemon = Daemon(private_folder, *user(private_redis, *rules), redis=private_redis, starts=WAITING)
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: not_ready(http, missing))
        assert http.get("/q/x").status_code == 503
        assert private_redis.command("GET", "x:1") == "kept"
        wait_until(lambda: missing in daemon.log)
        user(private_redis, "~*", "&*", "+@all")
        wait_until(lambda: is_ready(http))
        assert http.get("/q/x").json()["value"] == "kept"


def test_after_a_right_was_revoked_no_further_script_begins(private_folder: Path, private_redis: Redis) -> None:
    daemon = Daemon(private_folder, *user(private_redis, "~*", "&*", "+@all"), redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        for value in ("one", "two", "three"):
            http.post("/q/x", data={"value": value})
        user(private_redis, "~*", "&*", "+@all", "-zadd", "-hincrby")
        assert http.get("/q/x").status_code == 503
        wait_until(lambda: not_ready(http, "HINCRBY"))
        before = private_redis.command("LLEN", "x:queue")
        assert http.get("/q/x").status_code == 503
        assert private_redis.command("LLEN", "x:queue") == before >= 2


@pytest.mark.parametrize(
    ("rule", "missing"),
    [("resetchannels", "PUBLISH on channels such as"), ("resetkeys", "QUEUEDUE"), ("-zadd", "ZADD")],
)
def test_a_server_whose_rights_were_revoked_is_not_ready_even_before_a_request_fails(
    private_folder: Path, private_redis: Redis, rule: str, missing: str
) -> None:
    daemon = Daemon(private_folder, *user(private_redis, "~*", "&*", "+@all"), redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        wait_until(lambda: connections(private_redis) >= 10)
        assert is_ready(http)
        private_redis.command("ACL", "SETUSER", "mq", rule)
        assert not_ready(http, missing)
        user(private_redis, "~*", "&*", "+@all")
        wait_until(lambda: is_ready(http))


@pytest.mark.parametrize("options", [("--rename-command", "EVAL", ""), ("--rename-command", "CONFIG", "")])
def test_commands_that_are_not_needed_may_be_renamed(private_folder: Path, options: tuple[str, ...]) -> None:
    redis = Redis(private_folder / "redis", *options)
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon, redis), daemon.client() as http:
        assert http.post("/q/x", data={"value": "y"}).text == "x:1\r\n"
        assert is_ready(http)


def test_without_the_right_to_load_scripts_their_text_is_sent(private_folder: Path, private_redis: Redis) -> None:
    account = user(private_redis, "~*", "&*", "+@all", "-script", "-info", "-role", "-command")
    daemon = Daemon(private_folder, *account, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        assert http.post("/q/x", data={"value": "y"}).text == "x:1\r\n"


def test_a_command_that_was_renamed_is_named(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis", "--rename-command", "PUBLISH", "")
    daemon = Daemon(private_folder, redis=redis, starts=WAITING)
    with stopping(daemon, redis), daemon.client() as http:
        wait_until(lambda: not_ready(http, "PUBLISH"))
        wait_until(lambda: "the server has no command PUBLISH (it was renamed or disabled)." in daemon.log)


@pytest.mark.parametrize("program", [redis_program(), valkey_program()], ids=["redis", "valkey"])
def test_the_redis_user_that_the_engine_describes_has_all_needed_rights(private_folder: Path, program: str) -> None:
    command = [sys.executable, str(ROOT / "restmq_engine.py"), "--acl-user", "mq"]
    line = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    redis = Redis(private_folder / "redis", program=program)
    assert redis.command(*line.replace("PASSWORD", "secret").split()) == "OK"
    account = ("--redis-username", "mq", "--redis-password", "secret", "--workers", "2", "--redis-db", "3")
    daemon = Daemon(private_folder, *account, redis=redis, starts="workers are ready")
    with stopping(daemon, redis), daemon.client() as http:
        stream = Comet(daemon, "/c/news")
        http.post("/q/news", data={"value": "heard"})
        assert b"heard" in stream.lines(1)[0]
        http.post("/p/x", data={"max_deliveries": 1, "history": 5, "max_length": 100, "policy": "roundrobin"})
        http.post("/q/x", data={"value": "1", "ttl": 60}, headers={"Idempotency-Key": "k"})
        http.post("/q/x", data={"value": "2", "delay": 0.1})
        leased = http.get("/q/x?lease=5&wait=5").json()
        assert http.post(f"/m/{leased['key']}", data={"receipt": leased["receipt"], "lease": 0}).status_code < 300
        wait_until(lambda: len(http.get("/d/x").json()["messages"]) == 1)
        for method, path in (
            ("POST", "/d/x"), ("GET", "/q/x?wait=5"), ("GET", "/q/x?wait=5&lease=5"), ("GET", "/stats/"),
            ("GET", "/stats/x"), ("GET", "/metrics"), ("GET", "/j/x"), ("GET", "/q/?count=9"), ("DELETE", "/q/x"),
        ):  # fmt: skip
            assert http.request(method, path).status_code < 300, path
        assert "NOPERM" not in daemon.log
        assert [entry[7] for entry in redis.command("ACL", "LOG")] == []


# Few places


def test_a_redis_with_few_permitted_connections_serves_streams_first(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis")
    lone = Daemon(private_folder, redis=redis)
    with stopping(lone, redis), lone.client() as http:
        wait_until(lambda: connections(redis) >= 10)
        subscribers = connections(redis) - 10
    redis = Redis(private_folder / "small", "--maxclients", str(subscribers + 2))
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon, redis), daemon.client() as http:
        wait_until(lambda: "maxclients" in daemon.log)
        stream = Comet(daemon, "/c/news")
        assert http.post("/q/news", data={"value": "heard"}).status_code == 200
        assert b"heard" in stream.lines(1)[0]
        assert daemon.log.count("maxclients") == 1


def test_a_redis_without_an_append_only_file_causes_a_warning(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis", "--appendonly", "no")
    daemon = Daemon(private_folder, redis=redis)
    with stopping(daemon, redis):
        wait_until(lambda: "Redis keeps no append-only file" in daemon.log)


# Replicas


def waits(redis: Redis) -> list[str]:
    """The ids of the connections on which replicas are waited for."""
    clients = redis.command("CLIENT", "LIST").splitlines()
    fields = [dict(field.split("=", 1) for field in client.split(" ") if "=" in field) for client in clients]
    return [client["id"] for client in fields if client["cmd"] in ("wait", "publish")]


@pytest.mark.parametrize("knows_servers", [True, False])
def test_replicas_are_waited_for_only_on_the_server_that_has_the_message(
    private_folder: Path, knows_servers: bool
) -> None:
    """During a failover behind a proxy, only the connection that asks replicas is cut, and made to the new primary."""
    old, old_port = with_port(private_folder / "old")
    new, new_port = with_port(private_folder / "new", "--replicaof", "127.0.0.1", old_port)
    third = Redis(private_folder / "third", "--replicaof", "127.0.0.1", old_port)
    proxy = Proxy(int(old_port))
    account = user(old, "~*", "&*", "+@all", *(() if knows_servers else ("-info",)))
    user(new, "~*", "&*", "+@all", *(() if knows_servers else ("-info",)))
    options = ("--redis-port", str(proxy.port), "--durable", "--replicas", "1", *account)
    daemon = Daemon(private_folder, *options)
    with stopping(daemon, third, new, old, proxy), daemon.client() as http:
        wait_until(lambda: http.post("/q/x", data={"value": "before"}).status_code == 200)
        new.command("REPLICAOF", "NO", "ONE")
        third.command("REPLICAOF", "127.0.0.1", new_port)
        proxy.target = int(new_port)
        [asking] = waits(old)
        old.command("CLIENT", "KILL", "ID", asking)
        wait_until(lambda: connections(new) > 1)  # the third Redis, and the connection that asks

        def kept(number: int) -> bool:
            """Whether it was answered 200. Then it is in the new primary."""
            answer = http.post("/q/x", data={"value": str(number)})
            if answer.status_code == 503:
                return False
            assert answer.status_code == 200
            assert new.command("GET", answer.text.strip()) == str(number)
            return True

        results = [kept(number) for number in range(20)]
        if knows_servers:
            assert not any(results)
            old.command("CLIENT", "KILL", "TYPE", "normal")
        else:
            wait_until(lambda: kept(100))
        wait_until(lambda: kept(101))
