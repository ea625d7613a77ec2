"""Tasks for a Celery worker on RestMQ. As a script it sends some of them. Each run adds a line to the file DONE.

The environment has PORT, QUEUE and DONE.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta

from celery import Celery

app = Celery("tasks", broker=f"sqs://any:any@127.0.0.1:{os.environ['PORT']}//")
app.conf.update(
    broker_transport_options={
        "is_secure": False,
        "region": "us-east-1",
        "visibility_timeout": 60,
        "polling_interval": 0.1,
    },
    task_default_queue=os.environ.get("QUEUE", "celery"),
    task_acks_late=True,
    worker_enable_remote_control=False,
)


def note(line: str) -> None:
    with open(os.environ["DONE"], "a") as done:
        done.write(line + "\n")


@app.task(name="work", bind=True, max_retries=2)  # type: ignore[untyped-decorator]
def work(self, number: int) -> None:  # type: ignore[no-untyped-def]
    """Each tenth task fails once, and is retried after a second."""
    if number % 10 == 0 and self.request.retries == 0:
        note(f"retry {number}")
        raise self.retry(countdown=1)
    note(f"done {number}")


@app.task(name="later")  # type: ignore[untyped-decorator]
def later(due: float) -> None:
    now = datetime.now(UTC).timestamp()
    note("late enough" if now >= due - 0.1 else f"too early by {due - now}")


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        work.delay(number)
    eta = datetime.now(UTC) + timedelta(seconds=3)
    for _ in range(10):
        later.apply_async((eta.timestamp(),), eta=eta)
