"""Who may see the dashboard, who may act, and what a browser is told about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faces.dashboard.kit import KEY, Shown, shown

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
DATA = ("/llm-proxy/summary", "/llm-proxy/calls", "/llm-proxy/calls/x", "/llm-proxy/events", "/metrics")
SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shown")


@pytest.fixture(scope="module")
def page(folder: Path) -> Iterator[Shown]:
    with shown(folder / "open") as found:
        yield found


@pytest.fixture(scope="module")
def locked(folder: Path) -> Iterator[Shown]:
    with shown(folder / "locked", keys=(KEY,)) as found:
        yield found


class TestPage:
    def test_is_for_browsers_alone(self, page: Shown):
        assert page.get("/", accept=HTML).headers["content-type"] == "text/html; charset=utf-8"
        for accept in ("*/*", "application/json"):
            reply = page.get("/", accept=accept)
            assert b"<html" not in reply.body, "it passed on to the backend"

    def test_needs_no_key_and_holds_no_data(self, locked: Shown):
        locked.ask("what is my secret?")
        reply = locked.get("/", accept=HTML, authorization="")
        assert reply.status == 200
        assert KEY.encode() not in reply.body

    def test_is_not_for_a_name_that_somebody_lets_point_here(self, page: Shown):
        assert page.get("/", accept=HTML, host="evil.example").status == 403
        assert page.get("/", accept=HTML, host="localhost").status == 200

    def test_may_have_a_name_where_keys_are_needed(self, locked: Shown):
        assert locked.get("/", accept=HTML, host="proxy.example").status == 200

    def test_may_be_led_to_by_a_link(self, page: Shown):
        assert page.get("/", accept=HTML, sec_fetch_site="cross-site").status == 200

    def test_has_no_body_for_head(self, page: Shown):
        reply = page.send("HEAD", "/", accept=HTML)
        assert (reply.status, reply.body) == (200, b"")


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", "/llm-proxy/summary", "/llm-proxy/calls", "/metrics", "/llm-proxy/none"])
    def test_are_on_every_answer(self, page: Shown, path: str):
        reply = page.get(path, accept=HTML)
        assert SAFE.items() <= reply.headers.items()
        assert "access-control-allow-origin" not in reply.headers
        assert "date" in reply.headers

    def test_let_the_page_load_nothing(self, page: Shown):
        policy = page.get("/", accept=HTML).headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


class TestKeys:
    @pytest.mark.parametrize("path", DATA)
    @pytest.mark.parametrize("key", ["", "Bearer wrong", f"Bearer {KEY}x"])
    def test_are_needed(self, locked: Shown, path: str, key: str):
        reply = locked.get(path, authorization=key)
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"

    def test_are_needed_to_act(self, locked: Shown):
        assert locked.undo("x", authorization="").status == 401

    @pytest.mark.parametrize("path", [path for path in DATA if not path.endswith(("x", "events"))])
    def test_let_in(self, locked: Shown, path: str):
        assert locked.get(path).status == 200

    def test_are_not_shown(self, locked: Shown):
        locked.ask("one")
        for path in ("/llm-proxy/summary", "/llm-proxy/calls", "/metrics"):
            assert KEY.encode() not in locked.get(path).body


class TestOtherPages:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "same-site"},
            {"origin": "http://localhost:3000"},  # another program of this machine
            {"host": "evil.example"},
        ],
    )
    @pytest.mark.parametrize("path", ["/llm-proxy/summary", "/llm-proxy/events", "/llm-proxy/calls"])
    def test_get_nothing(self, page: Shown, path: str, headers: dict[str, str]):
        assert page.get(path, **headers).status == 403

    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"sec_fetch_site": "cross-site"},
            {"sec_fetch_site": "same-site"},
            {"x_llm_proxy_dashboard": ""},
        ],
    )
    def test_can_not_act(self, page: Shown, locked: Shown, headers: dict[str, str]):
        assert page.undo("x", **headers).status == 403
        assert locked.undo("x", **headers).status == 403

    def test_the_own_page_may(self, page: Shown):
        origin = {"origin": page.url, "host": f"127.0.0.1:{page.port}"}
        assert page.get("/llm-proxy/calls", **origin).status == 200
        assert page.undo("x", **origin, sec_fetch_site="same-origin").status == 409, "only that nobody knows it"

    def test_get_no_leave_by_a_preflight(self, page: Shown):
        reply = page.send("OPTIONS", "/llm-proxy/undo", origin=page.url, access_control_request_method="POST")
        assert reply.status in {403, 405}
        assert not any(name.startswith("access-control") for name in reply.headers)


class TestMethods:
    @pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
    def test_others_are_refused(self, page: Shown, method: str):
        assert page.send(method, "/llm-proxy/summary").status == 405

    def test_undo_is_no_get(self, page: Shown):
        assert page.get("/llm-proxy/undo").status == 405


class TestSettings:
    def test_the_dashboard_can_be_off(self, tmp_path: Path):
        with shown(tmp_path, server={"dashboard": False}) as page:
            assert b"<html" not in page.get("/", accept=HTML).body
            assert "x-frame-options" not in page.get("/llm-proxy/summary").headers
            assert page.get("/metrics").status == 200

    def test_metrics_can_be_off(self, tmp_path: Path):
        with shown(tmp_path, server={"metrics": False}) as page:
            assert b"llm_proxy_requests_total" not in page.get("/metrics").body
            assert page.get("/llm-proxy/summary").status == 200

    def test_both_can_be_off(self, tmp_path: Path):
        with shown(tmp_path, server={"metrics": False, "dashboard": False}) as page:
            page.ask("one")
            assert "x-frame-options" not in page.get("/metrics").headers


def test_metrics(page: Shown):
    page.ask("count me")
    page.runtime.ledger.flush()
    reply = page.get("/metrics")
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = reply.body.decode().splitlines()
    assert 'llm_proxy_requests_total{outcome="miss",kind="",route="",model="m",backend="main",api="chat"} 1' in lines
    assert 'llm_proxy_ledger_requests_total{outcome="miss",kind=""} 1' in lines
    assert page.send("HEAD", "/metrics").body == b""
