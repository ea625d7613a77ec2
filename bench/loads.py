"""Loads of requests. They run in wrk if it is installed, otherwise in our own client, which needs more CPU."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass

from rig import VALUE, Meter, Missing, Run, Server, percentile

_FORM = "application/x-www-form-urlencoded"
#: Acks leased messages before it leases more. wrk calls request() once per request, for any connection.
_LEASE_AND_ACK = """
local leased = {}
function request()
  local message = table.remove(leased)
  if message then return wrk.format("DELETE", "/m/" .. message) end
  return wrk.format("GET", "/q/leased?lease=60")
end
function response(status, headers, body)
  local key, receipt = body:match('"key":"([^"]+)"'), body:match('"receipt":"([^"]+)"')
  if receipt then leased[#leased + 1] = key .. "?receipt=" .. receipt end
end
"""


@dataclass(slots=True, frozen=True)
class Load:
    """A request that is repeated on a number of connections.

    Attributes:
        script: a script for wrk, used instead of the request.
    """

    path: str
    method: str = "GET"
    body: str = ""
    media_type: str = _FORM
    connections: int = 32
    script: str = ""

    def wrk_script(self) -> str:
        if self.script or not self.body:
            return self.script
        # These JSON strings are valid Lua strings, because they contain only escapes that both languages have.
        return (
            f"wrk.method = {json.dumps(self.method)}\nwrk.body = {json.dumps(self.body)}\n"
            f'wrk.headers["Content-Type"] = {json.dumps(self.media_type)}\n'
        )

    def run(self, server: Server, seconds: float) -> Run:
        """Puts the load on a server. Raises Missing if the load needs wrk, and wrk is not installed."""
        meter = Meter(server)
        if shutil.which("wrk"):
            return meter.stop(self._with_wrk(server.url, seconds))
        if self.script:
            raise Missing("not installed (apt-get install wrk)")
        return meter.stop(asyncio.run(self._drive(server.url.removeprefix("http://"), seconds)))

    def _with_wrk(self, url: str, seconds: float) -> Run:
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(self.wrk_script())
            script.flush()
            command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds:g}s", "--latency", "-s", script.name]
            said = subprocess.run([*command, url + self.path], capture_output=True, text=True, check=True).stdout

        def latency_ms(share: str) -> float:
            number, unit = re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
            return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

        failures = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said)
        failed = int(failures[1]) if failures else 0
        failed += sum(map(int, errors.groups())) if errors else 0
        requests, took, unit = re.search(r"(\d+) requests in ([\d.]+)(m|s)", said).groups()  # type: ignore[union-attr]
        took_seconds = float(took) * {"s": 1, "m": 60}[unit]
        return Run(int(requests), took_seconds, latency_ms("50"), latency_ms("99"), failed)

    async def _drive(self, address: str, seconds: float) -> Run:
        host, _, port = address.partition(":")
        request = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: {self.media_type}\r\nContent-Length: {len(self.body)}\r\n\r\n{self.body}"
        ).encode()
        took_ms: list[float] = []
        failed = 0
        end = time.perf_counter() + seconds

        async def client() -> None:
            nonlocal failed
            reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
            while time.perf_counter() < end:
                began = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if length:
                    await reader.readexactly(int(length[1]))
                took_ms.append((time.perf_counter() - began) * 1000)
                failed += not head.startswith(b"HTTP/1.1 2")
            writer.close()

        await asyncio.gather(*(client() for _ in range(self.connections)))
        return Run(len(took_ms), seconds, percentile(took_ms, 0.5), percentile(took_ms, 0.99), failed)


def post(queue: str, connections: int = 32) -> Load:
    return Load(f"/q/{queue}", "POST", f"value={VALUE}", connections=connections)


def get(queue: str, connections: int = 32) -> Load:
    return Load(f"/q/{queue}", connections=connections)


def json_add(queue: str) -> Load:
    command = json.dumps({"cmd": "add", "queue": queue, "value": VALUE}, separators=(",", ":"))
    return Load("/queue", "POST", command, "application/json")


def add_batches(queue: str, batch: int) -> Load:
    lines = "\n".join([json.dumps(VALUE)] * batch)
    return Load(f"/q/{queue}", "POST", lines, "application/x-ndjson", connections=4)


def take_batches(queue: str, batch: int) -> Load:
    return Load(f"/q/{queue}?count={batch}", connections=4)


LEASE_AND_ACK = Load("/", script=_LEASE_AND_ACK)
