"""The log and the answers say that Redis is too old, not only that it is unreachable."""

from __future__ import annotations

from pathlib import Path

from tests.servers import Daemon, Redis, stopping, wait_until

#: A real Redis of today without a command that came with 7.0 is, to who asks for it, an older one.
AS_BEFORE_7 = ("--rename-command", "PEXPIRETIME", "")


def test_a_redis_that_is_too_old_is_refused_until_it_is_a_newer_one(private_folder: Path) -> None:
    redis = Redis(private_folder / "redis", *AS_BEFORE_7)
    daemon = Daemon(private_folder, "--redis-timeout", "1", redis=redis, starts="waiting for the store")
    with stopping(daemon, redis), daemon.client() as http:
        wait_until(lambda: "it is too old; update it to Redis 7.0" in daemon.log)
        refused = http.post("/q/x", data={"value": "y"})
        assert refused.status_code == 503
        assert refused.headers["Retry-After"]
        assert "Redis 7.0 or newer" in refused.json()["error"]
        assert http.get("/readyz").status_code == 503
        redis.stop()
        redis.options = ()
        redis.start()
        wait_until(lambda: http.get("/readyz").status_code == 200)
        assert http.post("/q/x", data={"value": "y"}).text == "x:1\r\n"
        assert daemon.log.count("is too old") == 1


def test_a_redis_user_who_may_not_ask_for_commands_is_let_in(private_folder: Path, private_redis: Redis) -> None:
    private_redis.command("ACL", "SETUSER", "some", "on", ">secret", "~*", "&*", "+@all", "-command")
    account = ("--redis-username", "some", "--redis-password", "secret")
    daemon = Daemon(private_folder, *account, redis=private_redis)
    with stopping(daemon), daemon.client() as http:
        assert http.post("/q/x", data={"value": "y"}).text == "x:1\r\n"
