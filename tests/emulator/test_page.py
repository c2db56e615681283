"""The emulator's page: what it is told, over real sockets, and what a person sees, in headless Chromium."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from deepseek_gateway.emulator import Emulator, Row, _record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HTML = {"accept": "text/html,application/xhtml+xml"}
BOTH = {"authorization": "Bearer emulator-deepseek-key", "cf-aig-authorization": "Bearer emulator-gateway-token"}
HOST = f"/v1/{'e' * 32}/emulator-gateway"
PROVIDER = f"{HOST}/deepseek/chat/completions"
AI = f"/client/v4/accounts/{'e' * 32}/ai/v1"
TOKEN = {"cf-aig-authorization": "Bearer emulator-gateway-token"}
REST = {"authorization": "Bearer emulator-gateway-token"}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: str


def send(emulator: Emulator, path: str, headers: dict[str, str] = BOTH, body: Any = None, method: str = "") -> Answer:
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method or ("GET" if content is None else "POST"), path, content, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read().decode())
    finally:
        connection.close()


def ask(text: str = "Hi", **more: Any) -> dict[str, Any]:
    return {"model": "deepseek-flash", "messages": [{"role": "user", "content": text}], **more}


class Events:
    """The stream of rows, read event by event."""

    def __init__(self, emulator: Emulator, last: str = "") -> None:
        self._connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=5)
        self._connection.request("GET", "/_exchanges", headers={"last-event-id": last} if last else {})
        self._response = self._connection.getresponse()
        assert self._response.headers["content-type"].startswith("text/event-stream")
        self.last = last
        self.about = self.next("run")

    def next(self, kind: str = "message") -> dict[str, Any]:
        fields = {"event": "message"}
        while line := self._response.readline().decode().rstrip("\n"):
            name, _, fields[name] = line.partition(": ")
        assert fields["event"] == kind
        self.last = fields.get("id", self.last)
        return json.loads(fields["data"])

    def ended(self, number: int) -> dict[str, Any]:
        """The row of an exchange once it has ended; whatever comes before is skipped."""
        while (row := self.next())["number"] != number or row["seconds"] is None:
            pass
        return row

    def close(self) -> None:
        self._response.close()
        self._connection.close()


@contextmanager
def events(emulator: Emulator, last: str = "") -> Iterator[Events]:
    stream = Events(emulator, last)
    try:
        yield stream
    finally:
        stream.close()


def parts_of(emulator: Emulator, number: int = 1) -> list[dict[str, Any]]:
    with events(emulator) as stream:
        stream.ended(number)
    return json.loads(send(emulator, f"/_exchanges/{number}").body)


def everything(emulator: Emulator, number: int = 1) -> str:
    """All that the page could ever show of an exchange."""
    with events(emulator) as stream:
        return json.dumps([stream.ended(number), parts_of(emulator, number)])


class TestServing:
    def test_browsers_get_the_page_and_others_the_gateway(self) -> None:
        with Emulator() as emulator:
            emulator.fail_next(2003)
            page = send(emulator, "/", HTML)
            assert (page.status, page.headers.get_content_type()) == (200, "text/html")
            assert send(emulator, "/_exchanges/1", HTML).status == 404
            assert (emulator.requests, emulator.pending) == ([], 1)
            assert send(emulator, "/", BOTH).status == 429
            assert json.loads(send(emulator, "/", BOTH).body)["internalCode"] == 2008
            assert send(emulator, "/", HTML, b"{}").status == 401
            assert len(emulator.requests) == 3

    def test_it_may_load_and_run_nothing_but_itself(self) -> None:
        with Emulator() as emulator:
            page, again = (send(emulator, "/", HTML) for _ in range(2))
        policy = page.headers["content-security-policy"]
        nonce = re.search(r"script-src 'nonce-([\w-]{22})'", policy)
        assert nonce is not None
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules == {
            "default-src": "'none'",
            "script-src": f"'nonce-{nonce[1]}'",
            "style-src": f"'nonce-{nonce[1]}'",
            "connect-src": "'self'",
            "img-src": "data:",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert page.headers["cache-control"] == "no-store"
        assert page.body.count(f'nonce="{nonce[1]}"') == page.body.count("<style") + page.body.count("<script") == 2
        assert nonce[1] not in again.body
        assert "innerHTML" not in page.body
        assert set(re.findall(r"https?://[^/'\"]+", page.body)) == {"http://www.w3.org"}  # the namespace of SVG

    @pytest.mark.parametrize(
        ("host", "status"),
        [
            ("127.0.0.1", 200),
            ("127.0.0.1:8787", 200),
            ("127.9.9.9:1", 200),
            ("localhost:8787", 200),
            ("LOCALHOST", 200),
            ("page.localhost:1", 200),
            ("[::1]:8787", 200),
            ("evil.example", 403),
            ("evil.example:8787", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost.evil.example", 403),
            ("127.0.0.1@evil.example", 403),
            ("10.0.0.1", 403),
            ("[::2]", 403),
            ("[", 403),
            ("", 403),
        ],
    )
    def test_a_name_that_is_not_loopback_gets_nothing(self, host: str, status: int) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, ask())
            page = send(emulator, "/", HTML | {"host": host})
            assert page.status == send(emulator, "/_exchanges/1", {"host": host}).status == status
            if status == 403:
                assert send(emulator, "/_exchanges", {"host": host}).status == 403
                assert "loopback name only" in page.body
                assert page.headers["x-content-type-options"] == "nosniff"
            assert send(emulator, PROVIDER, BOTH | {"host": host}, ask()).status == 200  # a custom domain

    @pytest.mark.parametrize("number", ["2", "0", "-1", "x", "1/2", "%D9%A1", "9" * 5000])
    def test_what_is_not_kept_is_not_found(self, number: str) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, ask())
            assert send(emulator, f"/_exchanges/{number}").status == 404

    def test_the_settings_are_shown_but_no_secret_of_ones_own(self) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            endpoint = f"{emulator.url}/v1/{'e' * 32}/emulator-gateway"
            assert emulator.environ == {
                "DEEPSEEK_GATEWAY_ENDPOINT": endpoint,
                "CF_AIG_TOKEN": "emulator-gateway-token",
                "DEEPSEEK_API_KEY": "emulator-deepseek-key",
            }
            pasted = [f"export {name}='{value}'" for name, value in emulator.environ.items()]
            assert stream.about["settings"].splitlines() == pasted
        with Emulator(api_key="my-own-key", authenticated=False) as emulator, events(emulator) as stream:
            assert set(emulator.environ) == {"DEEPSEEK_GATEWAY_ENDPOINT", "DEEPSEEK_API_KEY"}
            assert "export DEEPSEEK_API_KEY='...'" in stream.about["settings"]
            assert "my-own-key" not in stream.about["settings"]


class TestRows:
    @pytest.mark.parametrize(
        ("path", "headers", "body", "expected"),
        [
            (
                PROVIDER,
                BOTH,
                ask(),
                {"method": "POST", "path": PROVIDER, "route": "provider", "endpoint": "/chat/completions"}
                | {"asked": "deepseek-flash", "sent": "deepseek-flash", "status": 200, "cache": ""}
                | {"tokens": [5, 29, 0], "streamed": False, "complete": True},
            ),
            (
                f"{HOST}/compat/chat/completions",
                TOKEN,
                ask() | {"model": "deepseek/deepseek-flash"},
                {"route": "compat", "asked": "deepseek/deepseek-flash", "sent": "deepseek-flash"},
            ),
            (
                "/compat/chat/completions",
                TOKEN,
                ask() | {"model": "dynamic/support"},
                {"route": "compat", "asked": "dynamic/support", "sent": "deepseek-v4-pro"},
            ),
            (
                f"{AI}/chat/completions",
                REST,
                ask() | {"model": "deepseek/deepseek-flash"},
                {"route": "rest", "endpoint": "/v1/chat/completions", "sent": "deepseek-flash"},
            ),
            (
                f"{HOST}/deepseek/models",
                BOTH,
                None,
                {"method": "GET", "endpoint": "/models", "asked": "", "sent": "", "tokens": None, "status": 200},
            ),
            (
                PROVIDER,
                BOTH,
                ask(stream=True) | {"messages": ask("so " * 200)["messages"] * 2},
                {"streamed": True, "complete": True, "tokens": [410, 129, 128]},
            ),
            (
                f"{HOST}/deepseek/responses",
                BOTH,
                {"model": "deepseek-flash", "input": "Hi", "stream": True},
                {"endpoint": "/responses", "streamed": True, "tokens": [9, 29, 0]},
            ),
            (PROVIDER, TOKEN | {"cf-aig-cache-key": "k"}, ask(), {"cache": "MISS"}),
            (PROVIDER, {}, ask(), {"status": 401, "sent": None, "tokens": None, "complete": True}),
            (f"{HOST}/openai/x", BOTH, ask(), {"status": 400, "route": "", "endpoint": f"{HOST}/openai/x"}),
            (PROVIDER, BOTH, b"\xff", {"status": 400, "asked": "", "sent": ""}),
            (PROVIDER, BOTH, b'{"model": ["\\ud800"]}', {"status": 400, "asked": "['\\ud800']"}),
        ],
        ids=[
            "provider",
            "compat",
            "dynamic",
            "rest",
            "models",
            "stream",
            "responses",
            "cached",
            "refused",
            "elsewhere",
            "bytes",
            "odd",
        ],
    )
    def test_a_row_tells_an_exchange(
        self, path: str, headers: dict[str, str], body: Any, expected: dict[str, Any]
    ) -> None:
        ended: list[Row] = []
        with Emulator(on_exchange=ended.append) as emulator, events(emulator) as stream:
            answer = send(emulator, path, headers, body)
            row = stream.ended(1)
        assert {name: row[name] for name in expected} == expected
        assert answer.status == row["status"]
        assert abs(row["began"] - time.time()) < 10
        assert 0 < row["seconds"] < 10
        assert [(each.number, each.status, each.seconds) for each in ended] == [(1, row["status"], row["seconds"])]

    def test_hits_name_no_model_that_was_sent(self) -> None:
        with Emulator(cache_ttl=60) as emulator, events(emulator) as stream:
            for _ in range(2):
                send(emulator, PROVIDER, BOTH, ask())
            rows = [stream.ended(number) for number in (1, 2)]
        assert [(row["cache"], row["sent"]) for row in rows] == [("MISS", "deepseek-flash"), ("HIT", None)]
        assert rows[0]["tokens"] == rows[1]["tokens"]

    @pytest.mark.parametrize(
        ("fault", "status"), [({"cut_after": 300}, 200), ({"reset": True}, None)], ids=["cut", "reset"]
    )
    def test_what_breaks_off_is_not_complete(self, fault: Any, status: int | None) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            emulator.fail_next(**fault)
            with pytest.raises((http.client.HTTPException, OSError)):
                send(emulator, PROVIDER, BOTH, ask())
            row = stream.ended(1)
            parts = parts_of(emulator)
        assert (row["status"], row["complete"], row["tokens"]) == (status, False, None)
        assert parts[-1]["line"] == f"{status or 'No status'} (cut off)"
        assert len(parts[-1]["body"]) == (300 if status else 0)

    def test_a_stream_is_there_while_it_goes_on(self) -> None:
        with Emulator() as emulator, events(emulator) as stream:
            emulator.fail_next(stall_after=500)
            address = emulator.url.removeprefix("http://")
            connection = http.client.HTTPConnection(address, timeout=10)
            connection.request("POST", PROVIDER, json.dumps(ask(stream=True)), BOTH)
            row = stream.next()
            while row["status"] is None:
                row = stream.next()
            assert (row["status"], row["streamed"], row["seconds"]) == (200, True, None)
            assert "(not ended yet)" in json.loads(send(emulator, "/_exchanges/1").body)[-1]["line"]
            connection.sock.close()
            connection.close()
            assert stream.ended(1)["complete"] is False


class TestReconnecting:
    def test_nothing_is_lost_and_nothing_comes_twice(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, ask())
            with events(emulator) as stream:
                assert not stream.about["empty"]
                stream.ended(1)
                last = stream.last
            for _ in range(3):
                send(emulator, PROVIDER, BOTH, ask())
            with events(emulator, last) as again:
                numbers = []
                while 4 not in numbers:
                    if (row := again.next())["seconds"] is not None:
                        numbers.append(row["number"])
            assert numbers == [2, 3, 4]
            assert again.about["run"] == stream.about["run"]

    @pytest.mark.parametrize("last", ["", "other.999", "999", "{run}.", "{run}.x", "{run}." + "9" * 16])
    def test_who_comes_from_elsewhere_gets_everything(self, last: str) -> None:
        with Emulator() as emulator:
            with events(emulator) as stream:
                run = stream.about["run"]
                assert stream.about["empty"]
            send(emulator, PROVIDER, BOTH, ask())
            with events(emulator, last.format(run=run)) as stream:
                assert stream.ended(1)["status"] == 200

    def test_another_emulator_is_another_run_but_a_second_block_is_not(self) -> None:
        runs = []
        emulator = Emulator()
        for each in (emulator, emulator, Emulator()):
            with each, events(each) as stream:
                runs.append(stream.about["run"])
        assert runs[0] == runs[1] != runs[2]

    def test_an_open_page_does_not_keep_the_emulator_from_stopping(self) -> None:
        with Emulator() as emulator:
            streams = [Events(emulator) for _ in range(3)]
            began = time.monotonic()
        assert time.monotonic() - began < 1
        for stream in streams:
            stream.close()

    def test_who_has_left_is_forgotten(self) -> None:
        with Emulator() as emulator:
            watchers = emulator._record.watchers  # noqa: SLF001  # nothing public tells
            with events(emulator):
                assert len(watchers) == 1
            deadline = time.monotonic() + 5
            while watchers and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not watchers


class TestDetails:
    def test_both_requests_and_the_answer_are_told_with_headers_and_bodies(self) -> None:
        with Emulator() as emulator:
            body = {"model": "deepseek/deepseek-flash", "messages": [{"role": "user", "content": "云 \u2028"}]}
            more = TOKEN | {"cf-aig-metadata": "{}"}
            answer = send(emulator, "/compat/chat/completions?a=b", more, body)
            caller, upstream, answered = parts_of(emulator)
        assert [caller["title"], upstream["title"], answered["title"]] == [
            "Caller to gateway",
            "Gateway to DeepSeek",
            "Answer",
        ]
        assert caller["line"] == "POST /compat/chat/completions?a=b"
        assert upstream["line"] == "POST /chat/completions?a=b"
        assert answered["line"] == "200"
        assert ["cf-aig-metadata", "{}"] in caller["headers"]
        assert ["host", "api.deepseek.com"] in upstream["headers"]
        assert "cf-aig-metadata" not in dict(upstream["headers"])
        assert dict(answered["headers"])["cf-ray"] == answer.headers["cf-ray"]
        assert caller["body"] == json.dumps(body, indent=2, ensure_ascii=False)
        assert json.loads(upstream["body"])["model"] == "deepseek-flash"
        assert json.loads(answered["body"]) == json.loads(answer.body)
        assert [part["note"] for part in (caller, upstream, answered)] == ["", "", ""]

    def test_tries_are_counted_and_silence_upstream_is_told(self) -> None:
        with Emulator() as emulator:
            emulator.fail_next(status=503, times=2)
            send(emulator, PROVIDER, BOTH | {"cf-aig-max-attempts": "3", "cf-aig-retry-delay": "1"}, ask())
            send(emulator, PROVIDER, {}, ask())
            assert parts_of(emulator, 1)[1]["title"] == "Gateway to DeepSeek (3 tries)"
            assert parts_of(emulator, 2)[1]["line"] == "Not sent: the gateway answered by itself."

    def test_long_bodies_are_cut_and_odd_ones_shown_as_they_are(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, ask("x" * 70_000))
            send(emulator, PROVIDER, BOTH, b"\xffnot json \x1b[2J")
            send(emulator, PROVIDER, BOTH, b"[" * 5000)
            caller, *_ = parts_of(emulator, 1)
            assert len(caller["body"]) == 65_536
            assert re.fullmatch(r"The first 65,536 of 70,\d{3} characters\.", caller["note"])
            assert parts_of(emulator, 2)[0]["body"] == "\ufffdnot json \x1b[2J"
            assert parts_of(emulator, 3)[0]["body"] == "[" * 5000


class TestSecrets:
    @pytest.mark.parametrize(
        ("path", "headers", "secret"),
        [
            (PROVIDER, BOTH, "emulator-deepseek-key"),
            (PROVIDER, BOTH, "emulator-gateway-token"),
            (PROVIDER, TOKEN, "emulator-deepseek-key"),
            (PROVIDER, {"authorization": "Bearer a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "bearer   a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"authorization": "Bearer two words-of-it"}, "words-of-it"),
            (PROVIDER, TOKEN | {"authorization": "Bearer a-real-key-by-mistake"}, "stake"),
            (PROVIDER, TOKEN | {"authorization": 'Bearer a"quoted\\key'}, "quoted"),
            (PROVIDER, TOKEN | {"authorization": "Bearer short"}, "short"),
            (PROVIDER, TOKEN | {"x-api-key": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"cookie": "session=abc"}, "abc"),
            (PROVIDER, TOKEN | {"cf-access-client-secret": "a-real-key-by-mistake"}, "a-real-key-by-mistake"),
            (PROVIDER, TOKEN | {"x-whatever": "Bearer a-real-key-by-mistake"}, "a-real-key-by-mistake"),
        ],
    )
    def test_credentials_of_headers_are_masked(self, path: str, headers: dict[str, str], secret: str) -> None:
        with Emulator() as emulator:
            send(emulator, path, headers, ask())
            assert secret not in everything(emulator)

    @pytest.mark.parametrize(
        "secret", ["emulator-deepseek-key", "emulator-gateway-token", 'brought/a+long"one', "alias-key"]
    )
    def test_secrets_are_masked_wherever_they_are_repeated(self, secret: str) -> None:
        spelled = secret.replace("/", "%2F").replace("+", "%2B").replace('"', "%22")
        with Emulator(stored_keys={"other": "alias-key"}) as emulator:
            headers = BOTH | {"x-mine": 'Bearer brought/a+long"one', "cf-aig-metadata": json.dumps({"a": secret})}
            body = ask(f"my key is {secret}\n{secret}") | {"model": secret, secret: 1}
            send(emulator, f"{PROVIDER}/{spelled}?key={spelled}", headers, body)
            shown = everything(emulator)
        for spelling in (secret, spelled, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]):
            assert spelling not in shown
        assert f"[{len(secret)} characters]" in shown

    def test_scheme_and_length_stay(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, TOKEN | {"authorization": "Basic abc"}, ask())
            headers = dict(parts_of(emulator)[0]["headers"])
        assert headers["authorization"] == "Basic [3 characters]"
        assert headers["cf-aig-authorization"] == "Bearer [22 characters]"

    def test_ordinary_text_is_left_alone(self) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, TOKEN | {"authorization": "Bearer a", "cf-aig-cache-key": "k"}, ask("a cat"))
            caller = parts_of(emulator)[0]
        assert '"content": "a cat"' in caller["body"]
        assert dict(caller["headers"])["cf-aig-cache-key"] == "k"


class TestMemory:
    def test_only_the_last_exchanges_are_kept(self) -> None:
        with Emulator() as emulator:
            for _ in range(_record.MOST_EXCHANGES + 3):
                send(emulator, "/")
            with events(emulator) as stream:
                assert stream.about["most"] == _record.MOST_EXCHANGES
                assert stream.next()["number"] == 4
            assert send(emulator, "/_exchanges/3").status == 404
            assert len(emulator.requests) == _record.MOST_EXCHANGES + 3

    def test_old_ones_go_when_all_are_too_large_but_the_newest_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_record, "_MOST_BYTES", 23_000)
        with Emulator() as emulator, events(emulator) as stream:
            for number, size in enumerate((1000, 1000, 8000, 30_000), 1):
                send(emulator, PROVIDER, BOTH, ask("x" * size))
                stream.ended(number)
                if number == 3:
                    assert [send(emulator, f"/_exchanges/{n}").status for n in (1, 2, 3)] == [404, 200, 200]
            assert [send(emulator, f"/_exchanges/{n}").status for n in (3, 4)] == [404, 200]


CONTRAST = """() => {
    const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => channels(colour).slice(0, 3).map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = (element) => {
        const colour = element ? getComputedStyle(element).backgroundColor : "rgb(255, 255, 255)";
        return channels(colour)[3] === 0 ? behind(element.parentElement) : colour;
    };
    const faint = [];
    for (const element of document.querySelectorAll("body *")) {
        const said = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!said || !element.checkVisibility()) continue;
        const [text, page] = [getComputedStyle(element).color, behind(element)].map(light);
        const ratio = (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
        if (ratio < 4.5) faint.push(`${element.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
    }
    return faint;
}"""
ATTACK = "<img src=x onerror='window.run = 1'><script>window.run = 2</script></pre></td>"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: see the extra `browser`")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("there is no command `chromium`, a package of that name in Debian")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open the page of an emulator, of which nothing may be wrong with its scripts, and nothing be loaded elsewhere."""
    troubles: list[str] = []
    contexts = []

    def open_page(emulator: Emulator, *, scheme: str = "light", width: int = 1280) -> Any:
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        # Chromium reports that the emulator is down, too.
        page.on("console", lambda said: None if "net::ERR_" in said.text else troubles.append(said.text))
        page.on("request", lambda request: troubles.append(request.url) if not request.url.startswith(at) else None)
        at = emulator.url
        page.goto(at)
        page.wait_for_selector("#state.live")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def until(page: Any, holds: Callable[[], Any]) -> None:
    """Wait in the test: Playwright would wait in the page, whose policy forbids that."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, page.locator("body").inner_text()
        page.wait_for_timeout(20)


def cells(page: Any, number: int = 0) -> list[str]:
    return page.locator(".row").nth(number).locator("td").all_inner_texts()


class TestInTheBrowser:
    def test_an_exchange_appears_by_itself_and_opens_on_click(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            assert page.locator("#empty").is_visible()
            assert page.locator("#settings").inner_text().count("export ") == 3
            headers = TOKEN | {"cf-aig-cache-key": "k"}
            body = ask(ATTACK) | {"model": "deepseek/deepseek-flash"}
            send(emulator, f"{HOST}/compat/chat/completions", headers, body)
            page.wait_for_selector(".row")
            assert not page.locator("#empty").is_visible()
            until(page, lambda: cells(page)[6].endswith("ms"))
            clock, *told, duration = cells(page)
            assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
            assert told[:4] == [
                "compat /chat/completions",
                "deepseek/deepseek-flash → deepseek-flash",
                "200",
                "MISS",
            ]
            assert re.fullmatch(r"\d+ / \d+", told[4])
            assert re.fullmatch(r"\d+ ms", duration)
            assert not page.locator(".panel").is_visible()
            page.locator(".row .model").click()
            page.wait_for_selector(".parts pre")
            caller, upstream, answer = page.locator(".parts section").all_inner_texts()
            assert "cf-aig-authorization: Bearer [22 characters]" in caller
            assert "authorization: Bearer [21 characters]" in upstream
            assert "cf-aig-cache-status: MISS" in answer
            assert all(ATTACK in part for part in (caller, upstream, answer))
            content = page.content()
            assert page.evaluate("window.run") is None
            assert page.locator("td img, td script").count() == 0
            page.locator(".row .model").click()
            assert not page.locator(".panel").is_visible()
            assert [request.path for request in emulator.requests] == [f"{HOST}/compat/chat/completions"]
        body_of_page = content[content.index("<tbody") :]
        assert emulator.api_key not in body_of_page
        assert emulator.gateway_token not in body_of_page

    def test_the_keyboard_opens_it_too(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, ask())
            page = visit(emulator)
            button = page.locator(".row button")
            page.wait_for_selector(".row")
            page.keyboard.press("Tab")
            for expanded in ("true", "false", "true"):
                page.keyboard.press("Enter")
                assert button.get_attribute("aria-expanded") == expanded
            assert page.locator(f"#{button.get_attribute('aria-controls')}").is_visible()

    def test_a_stream_is_shown_from_its_beginning_and_ends_in_its_row(
        self, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()

        def held(reply: Any) -> Iterator[tuple[bytes, float]]:
            first, *others = ((chunk, 0.0) for chunk in reply.chunks)
            yield first
            while not go_on.is_set():
                yield b": keep-alive\n\n", 0.01
            yield from others

        monkeypatch.setattr("deepseek_gateway.emulator._server._pieces", held)
        with Emulator() as emulator:
            page = visit(emulator)
            caller = threading.Thread(target=send, args=(emulator, PROVIDER, BOTH, ask(stream=True)))
            caller.start()
            page.locator(".row").click()
            until(page, lambda: cells(page)[3:] == ["200 streaming", "\N{EN DASH}", "\N{EN DASH}", "…"])
            until(page, lambda: "(not ended yet)" in page.locator(".parts").inner_text())
            go_on.set()
            caller.join()
            until(page, lambda: cells(page)[3:6] == ["200 stream", "\N{EN DASH}", "5 / 29"])
            until(page, lambda: "[DONE]" in page.locator(".parts").inner_text())
            assert page.locator(".row").count() == 1

    def test_it_reconnects_and_shows_everything_once_with_the_newest_on_top(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            port = int(emulator.url.rpartition(":")[2])
        emulator = Emulator(port=port)
        with emulator:
            send(emulator, PROVIDER, BOTH, ask())
            page = visit(emulator)
            page.wait_for_selector(".row")
            page.locator(".row").click()
        until(page, lambda: page.locator("#state").inner_text() == "Reconnecting")
        with emulator:
            send(emulator, PROVIDER, {}, ask())
            page.wait_for_selector("#state.live")
            send(emulator, "/", BOTH)
            until(page, lambda: page.locator(".status").all_inner_texts() == ["400", "401", "200"])
            assert page.locator(".panel").nth(2).is_visible()
        until(page, lambda: page.locator("#state").inner_text() == "Reconnecting")
        with Emulator(port=port) as another:
            page.wait_for_selector("#state.live")
            page.wait_for_selector("#empty")
            send(another, PROVIDER, BOTH, ask())
            until(page, lambda: page.locator(".row").count() == 1)

    def test_rows_beyond_the_limit_go(self, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("deepseek_gateway.emulator._page.MOST_EXCHANGES", 3)
        with Emulator() as emulator:
            page = visit(emulator)
            for path in ("/1", "/2", "/3", "/4", "/5"):
                send(emulator, path, BOTH)
            until(page, lambda: page.locator(".row").count() and cells(page)[1] == "GET /5")
            assert [cells(page, number)[1] for number in range(3)] == ["GET /5", "GET /4", "GET /3"]
            assert page.locator("tbody tr").count() == 6

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 400])
    def test_it_can_be_read_in_light_and_dark_wide_and_narrow(
        self, visit: Callable[..., Any], scheme: str, width: int, tmp_path: Path
    ) -> None:
        """The screenshots are for a person: in SCREENSHOTS, if that names a folder."""
        folder = os.environ.get("SCREENSHOTS", str(tmp_path))
        with Emulator(cache_ttl=60) as emulator:
            page = visit(emulator, scheme=scheme, width=width)
            assert page.evaluate(CONTRAST) == []
            page.screenshot(path=f"{folder}/empty-{scheme}-{width}.png")
            emulator.fail_next(2003)
            emulator.fail_next(status=503)
            bodies = [ask(), ask(), ask(stream=True), ask("so " * 200) | {"messages": ask("so " * 900)["messages"] * 2}]
            for body in [*bodies, ask(), ask() | {"model": "a-model-that-has-a-rather-long-name-and-does-not-exist"}]:
                send(emulator, PROVIDER, BOTH, body)
            send(emulator, "/compat/chat/completions", TOKEN, ask() | {"model": "dynamic/support"})
            until(page, lambda: page.locator(".row").count() == 7)
            until(page, lambda: cells(page)[6].endswith("ms"))
            page.locator(".row").first.click()
            page.wait_for_selector(".parts pre")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(CONTRAST) == []
            page.screenshot(path=f"{folder}/rows-{scheme}-{width}.png", full_page=True)
