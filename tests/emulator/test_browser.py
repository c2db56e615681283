"""The page of the emulator in headless Chromium."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from emulated import BOTH, COMPAT, HOST, PROVIDER, TOKEN, hi, send

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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
    driver = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: see the dependency group `browser`"
    )
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("the command `chromium` is not installed; Debian has a package of the same name")
    with driver.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open the page of an emulator. Script errors and requests to other hosts fail the test."""
    troubles: list[str] = []
    contexts = []

    def open_page(emulator: Emulator, *, scheme: str = "light", width: int = 1280) -> Any:
        context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        # Chromium also reports that the emulator is down. The tests expect that report.
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
    """Wait in Python, because the page's security policy does not let Playwright wait in the page."""
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, page.locator("body").inner_text()
        page.wait_for_timeout(20)


def cells(page: Any, number: int = 0) -> list[str]:
    return page.locator(".row").nth(number).locator("td").all_inner_texts()


class TestInTheBrowser:
    def test_exchange_appears_without_reload_and_opens_on_click(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            assert page.locator("#posix").inner_text().count("export ") == len(emulator.environ)
            assert page.locator("#powershell").inner_text().count("$env:") == len(emulator.environ)
            headers = TOKEN | {"cf-aig-cache-key": "k"}
            body = hi(ATTACK) | {"model": "deepseek/deepseek-flash"}
            send(emulator, f"{HOST}/compat/chat/completions", headers, body)
            page.wait_for_selector(".row")
            assert not page.locator("#posix").is_visible()
            until(page, lambda: cells(page)[6].endswith("ms"))
            clock, *shown, duration = cells(page)
            assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
            assert shown[:4] == [
                "compat /chat/completions",
                f"deepseek/deepseek-flash → deepseek-flash\n{ATTACK}",
                "200",
                "MISS",
            ]
            assert re.fullmatch(r"\d+ / \d+", shown[4])
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

    def test_keyboard_opens_and_closes_an_exchange(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi())
            page = visit(emulator)
            button = page.locator(".row button")
            page.wait_for_selector(".row")
            button.focus()
            for expanded in ("true", "false", "true"):
                page.keyboard.press("Enter")
                assert button.get_attribute("aria-expanded") == expanded
            assert page.locator(f"#{button.get_attribute('aria-controls')}").is_visible()

    def test_stream_is_shown_from_its_beginning_and_ends_in_its_row(
        self, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        go_on = threading.Event()

        def held(reply: Any, _: float) -> Iterator[tuple[bytes, float]]:
            first, *others = ((chunk, 0.0) for chunk in reply.chunks)
            yield first
            while not go_on.is_set():
                yield b": keep-alive\n\n", 0.01
            yield from others

        monkeypatch.setattr("deepseek_gateway.emulator._application._pieces", held)
        with Emulator() as emulator:
            page = visit(emulator)
            caller = threading.Thread(target=send, args=(emulator, PROVIDER, BOTH, hi(stream=True)))
            caller.start()
            page.locator(".row").click()
            until(page, lambda: cells(page)[3:] == ["200 streaming", "MISS", "\N{EN DASH}", "…"])
            until(page, lambda: "(not ended yet)" in page.locator(".parts").inner_text())
            go_on.set()
            caller.join()
            until(page, lambda: cells(page)[3:6] == ["200 stream", "MISS", "5 / 29"])
            until(page, lambda: "[DONE]" in page.locator(".parts").inner_text())
            assert page.locator(".row").count() == 1

    def test_page_reconnects_and_shows_each_exchange_once_newest_first(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            port = int(emulator.url.rpartition(":")[2])
        emulator = Emulator(port=port)
        with emulator:
            send(emulator, PROVIDER, BOTH, hi())
            page = visit(emulator)
            page.wait_for_selector(".row")
            page.locator(".row").click()
        until(page, lambda: page.locator("#state").inner_text() == "Reconnecting")
        with emulator:
            send(emulator, PROVIDER, {}, hi())
            page.wait_for_selector("#state.live")
            send(emulator, "/", BOTH)
            until(page, lambda: page.locator(".status").all_inner_texts() == ["400 2008", "401 2009", "200"])
            assert page.locator(".panel").nth(2).is_visible()
        until(page, lambda: page.locator("#state").inner_text() == "Reconnecting")
        with Emulator(port=port) as another:
            page.wait_for_selector("#state.live")
            page.wait_for_selector("#posix")
            assert page.locator("#none").inner_text() == "No exchanges yet."
            send(another, PROVIDER, BOTH, hi())
            until(page, lambda: page.locator(".row").count() == 1)

    def test_rows_beyond_the_limit_are_removed(
        self, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("deepseek_gateway.emulator._page.MOST_EXCHANGES", 3)
        with Emulator() as emulator:
            page = visit(emulator)
            for path in ("/1", "/2", "/3", "/4", "/5"):
                send(emulator, path, BOTH)
            until(page, lambda: page.locator(".row").count() and cells(page)[1] == "GET /5")
            assert [cells(page, number)[1] for number in range(3)] == ["GET /5", "GET /4", "GET /3"]
            assert page.locator("tbody tr").count() == 6

    def test_filters_combine_status_route_and_text(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            emulator.fail_next(status=503)
            emulator.fail_next(2003)
            for text in ("apple", "banana", "Apple pie"):
                send(emulator, PROVIDER, BOTH, hi(text))
            send(emulator, COMPAT, BOTH, hi("apple") | {"model": "deepseek/deepseek-flash"})
            until(page, lambda: page.locator(".row").count() == 4)

            def shows(*numbers: int) -> bool:
                visible = [row.locator("button") for row in page.locator(".row").all() if row.is_visible()]
                return [each.get_attribute("aria-controls") for each in visible] == [f"exchange-{n}" for n in numbers]

            text, status, route = (page.locator(f"[name={name}]") for name in ("text", "status", "route"))
            text.fill(" APPLE ")
            until(page, lambda: shows(4, 3, 1))
            status.select_option("2")
            until(page, lambda: shows(4, 3))
            route.select_option("provider")
            until(page, lambda: shows(3))
            text.fill("")
            status.select_option("4")
            until(page, lambda: shows(2))
            text.fill("2003")
            until(page, lambda: shows(2))
            text.fill("nowhere")
            until(page, lambda: shows() and page.locator("#none").inner_text() == "No exchange matches.")
            send(emulator, PROVIDER, BOTH, hi("later"))
            text.fill("")
            status.select_option("")
            until(page, lambda: shows(5, 3, 2, 1))

    def test_filter_finds_broken_exchanges_and_hides_an_open_panel(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            emulator.fail_next(cut_after=300)
            with pytest.raises(http.client.HTTPException):
                send(emulator, PROVIDER, BOTH, hi())
            send(emulator, PROVIDER, BOTH, hi())
            page.locator(".row").first.click()
            page.wait_for_selector(".parts pre")
            page.locator("[name=status]").select_option("broken")
            until(page, lambda: not page.locator(".panel").first.is_visible())
            assert page.locator(".status:visible").all_inner_texts() == ["200 cut off"]
            page.locator("[name=status]").select_option("")
            until(page, page.locator(".panel").first.is_visible)

    def test_clear_removes_the_rows_for_good_and_later_ones_appear(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            send(emulator, PROVIDER, BOTH, hi())
            page.wait_for_selector(".row")
            page.locator("#clear").click()
            assert page.locator(".row").count() == 0
            assert page.locator("#none").inner_text() == "No exchanges yet."
            send(emulator, PROVIDER, BOTH, hi())
            until(page, lambda: page.locator(".row").count() == 1)
            page.reload()
            page.wait_for_selector(".row")
            assert page.locator(".row").count() == 1
            assert len(emulator.requests) == 2

    def test_settings_can_be_opened_at_any_time(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi())
            page = visit(emulator)
            page.wait_for_selector(".row")
            assert not page.locator("#posix").is_visible()
            page.locator("#connection > summary").click()
            assert emulator.url in page.locator("#posix").inner_text()

    def test_copied_curl_command_names_the_variables(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            send(emulator, PROVIDER, BOTH, hi("It's me"))
            page = visit(emulator)
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            page.locator(".row").click()
            page.get_by_role("button", name="Copy as curl").click()
            page.get_by_role("button", name="Copied").wait_for()
            command = page.evaluate("navigator.clipboard.readText()")
        assert re.match(rf"curl http://127\.0\.0\.1:\d+{PROVIDER} ", command)
        assert '-H "authorization: Bearer $DEEPSEEK_API_KEY"' in command
        assert emulator.api_key not in command

    def test_tries_of_one_call_stay_together_below_the_last(self, visit: Callable[..., Any]) -> None:
        with Emulator() as emulator:
            page = visit(emulator)
            emulator.fail_next(2003)
            for count, text in (("0", "retried"), ("0", "other"), ("1", "retried"), ("0", "newest")):
                send(emulator, PROVIDER, BOTH | {"x-stainless-retry-count": count}, hi(text))
            until(page, lambda: page.locator(".row").count() == 4)
            until(page, lambda: page.locator(".status").all_inner_texts() == ["200", "200", "200 try 2", "429 2003"])
            prompts = page.locator(".prompt").all_inner_texts()
            assert prompts == ["newest", "other", "retried", "retried"]
            tried = [name for row in page.locator(".row").all() if "tried" in (name := row.get_attribute("class"))]
            assert len(tried) == 1
            assert "tried" in page.locator(".row").nth(3).get_attribute("class")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [1280, 400])
    def test_page_is_readable_light_or_dark_and_wide_or_narrow(
        self, visit: Callable[..., Any], scheme: str, width: int, tmp_path: Path
    ) -> None:
        """The variable SCREENSHOTS names a folder for screenshots to look at."""
        folder = os.environ.get("SCREENSHOTS", str(tmp_path))
        with Emulator(cache_ttl=60) as emulator:
            page = visit(emulator, scheme=scheme, width=width)
            assert page.evaluate(CONTRAST) == []
            page.screenshot(path=f"{folder}/empty-{scheme}-{width}.png")
            emulator.fail_next(2003)
            emulator.fail_next(status=503)
            for count in "01":
                send(emulator, PROVIDER, BOTH | {"x-stainless-retry-count": count}, hi("Again"))
            bodies = [hi(), hi(), hi(stream=True), hi("so " * 200) | {"messages": hi("so " * 900)["messages"] * 2}]
            for body in [*bodies, hi(), hi() | {"model": "a-model-that-has-a-rather-long-name-and-does-not-exist"}]:
                send(emulator, PROVIDER, BOTH, body)
            send(emulator, "/compat/chat/completions", TOKEN, hi() | {"model": "dynamic/support"})
            until(page, lambda: page.locator(".row").count() == 9)
            until(page, lambda: cells(page)[6].endswith("ms"))
            page.locator(".row").first.click()
            page.wait_for_selector(".parts pre")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(CONTRAST) == []
            page.screenshot(path=f"{folder}/rows-{scheme}-{width}.png", full_page=True)
