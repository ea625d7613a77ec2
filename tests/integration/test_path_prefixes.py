"""RestMQ under a path of real proxies, changed as docs/deploy.md says. tests/e2e has nginx, with a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

from tests.integration.test_proxies import TRAEFIK_NEEDS, Apache, Caddy, HAProxy, Proxy, Traefik
from tests.servers import ROOT, Comet, Daemon, Redis, listeners, stopping, wait_until

PAGE = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Under a path\n")[2].partition("\n## ")[0]


def snippet(pattern: str) -> str:
    """A line of the page's code."""
    (found,) = re.findall(pattern, PAGE, re.MULTILINE)
    return str(found)


class UnderAPath(Proxy):
    @property
    def url(self) -> str:  # type: ignore[override]
        return f"http://127.0.0.1:{self.port}/mq"


class PathOfCaddy(UnderAPath, Caddy):
    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        text = super().adapted(name, *replacements)
        block = snippet(r"^handle_path .*$")
        return text.replace("\treverse_proxy ", f"{block}\n\treverse_proxy ", 1) + "}\n"


class PathOfHAProxy(UnderAPath, HAProxy):
    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        text = super().adapted(name, *replacements)
        rule = snippet(r"^    http-request .*$")
        return text.replace("    use_backend ", f"{rule}\n    use_backend ", 1)


class PathOfApache(UnderAPath, Apache):
    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        assert "`ProxyPass /mq/c/ http://127.0.0.1:8888/c/ …`" in PAGE
        return super().adapted(name, *replacements).replace("ProxyPass /", "ProxyPass /mq/")


class PathOfTraefik(UnderAPath, Traefik):
    def adapted(self, name: str, *replacements: tuple[str, str]) -> str:
        text = super().adapted(name, *replacements)
        assert "``PathPrefix(`/mq/`)``" in PAGE
        text = text.replace("PathPrefix(`/`)", "PathPrefix(`/mq/`)").replace("[retry]", "[mq, retry]")
        return text.replace("  middlewares:\n", f"  middlewares:\n    {snippet('^mq: .*$')}\n")


KINDS = [
    pytest.param(PathOfCaddy, id="caddy", marks=pytest.mark.needs("caddy")),
    pytest.param(PathOfHAProxy, id="haproxy", marks=pytest.mark.needs("haproxy")),
    pytest.param(PathOfApache, id="apache", marks=pytest.mark.needs("apache2")),
    pytest.param(PathOfTraefik, id="traefik", marks=TRAEFIK_NEEDS),
]


@pytest.fixture(params=KINDS)
def proxy(request: pytest.FixtureRequest, private_folder: Path, redis: Redis) -> Iterator[Proxy]:
    daemon = Daemon(private_folder / "daemon", redis=redis)
    made: Proxy = request.param(private_folder / "proxy", daemon)
    with stopping(daemon, made):
        yield made


def test_pages_and_all_that_they_need_are_under_the_path(proxy: Proxy) -> None:
    with httpx.Client(trust_env=False, follow_redirects=True) as http:
        for path in ("/", "/dashboard", "/q/", "/queue", "/api"):
            page = http.get(proxy.url + path, headers={"Accept": "text/html"})
            assert page.status_code == 200, path
            links = re.findall(r'(?:href|src)="([^"#]+)"', page.text)
            assert links, path
            for link in links:
                there = urljoin(str(page.url), link)
                assert there.startswith((proxy.url + "/", "http://www.", "https://")), (path, link)
                if there.startswith(proxy.url):
                    assert http.get(there).status_code == 200, (path, link)


def test_messages_and_streams_pass_through_under_the_path(proxy: Proxy, redis: Redis, queue: str) -> None:
    with httpx.Client(base_url=proxy.url, trust_env=False) as http:
        for name in ("a%2Fb", "a%20b", "%C3%A4"):
            assert http.post(f"q/{queue}{name}", data={"value": name}).status_code == 200
            assert http.get(f"q/{queue}{name}").json()["value"] == name
        stream = Comet(proxy, f"/mq/c/{queue}")  # type: ignore[arg-type]
        wait_until(lambda: listeners(redis, queue))
        http.post(f"q/{queue}", data={"value": "live"})
        assert b"live" in stream.lines(1)[0]
        stream.close()
