"""The gateway is down: calls go to DeepSeek itself if the settings say so, and nothing of Cloudflare's goes there."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import event
from calling import KEY, MESSAGES, TOKEN, chat, failing, one_by_one, streamed, warnings_in
from loopback import EVENTS, Answer, Loopback, completion, serve

from deepseek_gateway import _fallback, create_async_client, create_client, record_calls
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calling import Call, ConfigAt

    Settings = dict[str, Any]

ROUTES = ["provider", "compat", "rest"]
EDGE = {"server": "cloudflare", "cf-ray": "8f0-FRA", "content-type": "text/html"}


@pytest.fixture
def deepseek() -> Iterator[Loopback]:
    """Play DeepSeek itself."""
    with serve() as loopback:
        yield loopback


@pytest.fixture
def settings(deepseek: Loopback) -> Settings:
    return {"fallback": "direct", "direct_endpoint": deepseek.url}


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give an address at which connections are refused for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def unanswered() -> Iterator[str]:
    """Give an address at which connections are never accepted, so that connecting times out."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # they fill the backlog
            each.settimeout(0)
            each.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        for each in waiting:
            each.close()


def edge(status: int, text: str = "<html><title>Web server is down</title></html>") -> Callable[[Any], Answer]:
    return lambda _: Answer(text.encode(), status, EDGE)


def assert_no_cloudflare(request: Any) -> None:
    assert not [name for name, _ in request.headers if name.startswith("cf-")]
    assert TOKEN not in str(request.headers) + request.path + request.body.decode()


class TestDirectRoute:
    def test_direct_route_sends_only_the_key_and_a_bare_model_name(
        self, call: Call, deepseek: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(deepseek, route="direct", direct_endpoint=deepseek.url, endpoint=None, account_id="acct")
        headers = {"cf-aig-metadata": "{}", "CF-Access-Client-Secret": "x"}
        call(config, lambda client: chat(client, model="deepseek/deepseek-flash", extra_headers=headers))
        received = deepseek.last
        assert (received.path, received.json["model"]) == ("/chat/completions", "deepseek-flash")
        assert received.header("authorization") == f"Bearer {KEY}"
        assert_no_cloudflare(received)

    def test_direct_route_translates_and_checks_streams_as_the_others_do(
        self, call: Call, deepseek: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(deepseek, route="direct", direct_endpoint=deepseek.url)
        with record_calls() as calls:
            call(config, lambda client: chat(client, messages=[{"role": "developer", "content": "Hi"}], stream=True))
        assert deepseek.last.json["messages"][0]["role"] == "system"
        assert (calls[0].route, calls[0].adapted) == ("direct", ("developer",))
        deepseek.answer = lambda _: Answer((b"data: {}\n\n",))
        with pytest.raises(openai.APIConnectionError, match=r"before \[DONE\]"):
            call(config, streamed)

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (401, {"error": {"message": "no", "type": "x"}}, "check DEEPSEEK_API_KEY"),
            (502, b"<html><title>Busy</title></html>", "502 from DeepSeek: Busy"),
        ],
        ids=["DeepSeek's", "a page"],
    )
    def test_error_on_the_direct_route_names_neither_gateway_nor_cloudflare(
        self,
        call: Call,
        deepseek: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        status: int,
        body: Any,
        said: str,
    ) -> None:
        deepseek.answer = lambda _: Answer(body, status)
        error = failing(call, config_at(deepseek, route="direct", direct_endpoint=deepseek.url), max_retries=0)
        assert said in f"{error} {caplog.text}"
        assert not re.search("gateway|cloudflare", f"{error} {warnings_in(caplog)}", re.IGNORECASE)


class TestOutage:
    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("use", [chat, streamed], ids=["plain", "stream"])
    @pytest.mark.parametrize("kind", ["nobody", "unanswered"])
    def test_call_goes_to_deepseek_if_no_connection_to_the_gateway_can_be_made(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        caplog: pytest.LogCaptureFixture,
        request: pytest.FixtureRequest,
        route: str,
        use: Any,
        kind: str,
    ) -> None:
        endpoint = request.getfixturevalue(kind)
        config = config_at(gateway, route=route, **(settings | {"endpoint": endpoint}))
        timeout = openai.Timeout(5, connect=0.2)
        with record_calls() as calls:
            result = call(config, use, timeout=timeout, max_retries=0)
        assert len(result) == len(EVENTS) if use is streamed else result.choices[0].message.content == "Hello."
        assert (deepseek.last.path, deepseek.last.json["model"]) == ("/chat/completions", "deepseek-flash")
        assert deepseek.last.header("authorization") == f"Bearer {KEY}"
        assert deepseek.last.header("host") == deepseek.url.removeprefix("http://")
        assert_no_cloudflare(deepseek.last)
        assert [(each.route, each.status) for each in calls] == [(route, None), ("direct", 200)]
        (warning,) = [message for message in caplog.messages if "not reached (Connect" in message]
        assert "calls go to DeepSeek itself" in warning

    @pytest.mark.parametrize("route", ROUTES)
    @pytest.mark.parametrize("status", [502, 520, 521, 522, 523, 525, 526, 530])
    def test_call_goes_to_deepseek_if_the_edge_did_not_reach_the_gateway(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        route: str,
        status: int,
    ) -> None:
        for answer in (edge(status), edge(status, f"error code: {status}")):
            gateway.answer = answer
            assert call(config_at(gateway, route=route, **settings), chat).choices[0].message.content == "Hello."
            assert_no_cloudflare(deepseek.last)
        assert (len(gateway.received), len(deepseek.received)) == (2, 2)

    NOT_DOWN: dict[str, tuple[int, Any, dict[str, str]]] = {
        "504 of the edge": (504, b"<html>", EDGE),
        "524 of the edge": (524, b"error code: 524", EDGE),
        "gateway's own 502": (502, {"success": False, "error": [{"code": 2002, "message": "x"}]}, {}),
        "gateway's own 500": (500, {"success": False, "error": [{"code": 9999, "message": "x"}]}, {}),
        "502 that the gateway passed on": (502, b"<html>", EDGE | {"cf-aig-log-id": "01j"}),
        "edge's text that the gateway passed on": (502, b"error code: 502", EDGE | {"cf-aig-log-id": "01j"}),
        "502 of DeepSeek": (502, {"error": {"message": "x", "type": "y"}}, {}),
        "503 of DeepSeek": (503, {"error": {"message": "busy", "type": "y"}}, {}),
        "402": (402, {"error": {"message": "x", "type": "y"}}, {}),
    }

    @pytest.mark.parametrize(("status", "body", "headers"), NOT_DOWN.values(), ids=NOT_DOWN)
    def test_call_stays_at_the_gateway_after_any_other_answer(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        status: int,
        body: Any,
        headers: dict[str, str],
    ) -> None:
        gateway.answer = lambda _: Answer(body, status, headers)
        assert failing(call, config_at(gateway, **settings), max_retries=0).status_code == status
        assert deepseek.received == []

    def test_lost_connection_is_no_outage(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as dropping:

            def drop() -> None:
                for _ in range(2):
                    connection, _address = dropping.accept()
                    connection.recv(65536)
                    connection.close()

            thread = threading.Thread(target=drop, daemon=True)
            thread.start()
            endpoint = f"http://127.0.0.1:{dropping.getsockname()[1]}"
            config = config_at(gateway, **(settings | {"endpoint": endpoint}))
            with pytest.raises(openai.APIConnectionError):
                call(config, chat, max_retries=1)
            thread.join()
        assert deepseek.received == []

    REFUSED: dict[str, tuple[Settings, Settings, str]] = {
        "stored key": ({"api_key": None}, {}, "provider"),
        "stored key on rest": ({"api_key": None}, {}, "rest"),
        "dynamic route": ({}, {"model": "dynamic/cheap"}, "compat"),
        "another provider": ({}, {"model": "openai/gpt-5"}, "rest"),
        "automatic model": ({}, {"model": "cloudflare/auto"}, "compat"),
        "own header left out": ({}, {"extra_headers": {"Authorization": openai.Omit()}}, "provider"),
        "gateway token as key": ({}, {"extra_headers": {"Authorization": f"Bearer {TOKEN}"}}, "provider"),
        "gateway token in another scheme": ({}, {"extra_headers": {"Authorization": f"bearer  {TOKEN}"}}, "compat"),
    }

    @pytest.mark.parametrize(("config", "extra", "route"), REFUSED.values(), ids=REFUSED)
    def test_call_without_a_key_for_deepseek_or_for_another_model_fails_with_the_reason(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        config: Settings,
        extra: Settings,
        route: str,
    ) -> None:
        gateway.answer = edge(522)
        error = failing(
            call,
            config_at(gateway, route=route, **settings, **config),
            lambda client: chat(client, **extra),
            max_retries=0,
        )
        assert (error.status_code, error.type) == (522, "edge_error")
        assert deepseek.received == []

    def test_nothing_that_was_meant_for_the_gateway_reaches_deepseek(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings
    ) -> None:
        cookie = {"set-cookie": "__cf_bm=of-the-gateway; Path=/"}

        def give_a_cookie(_: Any) -> Answer:
            return Answer({"object": "list", "data": []}, headers=cookie)

        def go_down(client: Any) -> Any:
            gateway.answer = edge(522)
            return chat(client, extra_headers={"CF-Connecting-IP": "192.0.2.1", "X-Copy": f"token={TOKEN}"})

        gateway.answer = give_a_cookie
        uses = [lambda client: client.models.list(), go_down, chat]
        call(
            config_at(gateway, **settings),
            lambda client: one_by_one(client, uses),
            http_options={"auth": ("user-of-the-gateway", "password-of-the-gateway")},
        )
        assert "of-the-gateway" in str(gateway.received[1].headers)
        assert len(deepseek.received) == 2
        for received in deepseek.received:
            assert_no_cloudflare(received)
            assert received.header("authorization") == f"Bearer {KEY}"
            assert "of-the-gateway" not in str(received.headers)

    def test_call_fails_without_the_setting(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = edge(522)
        error = failing(call, config_at(gateway, direct_endpoint=deepseek.url), max_retries=0)
        assert "522 from Cloudflare's edge, before AI Gateway answered" in error.message
        assert deepseek.received == []

    @pytest.mark.parametrize("config", [{}, {"api_key": None}], ids=["own key", "stored key"])
    def test_key_of_a_copy_travels_to_deepseek(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        config: Settings,
    ) -> None:
        gateway.answer = edge(522)
        call(config_at(gateway, **settings, **config), lambda c: chat(c.with_options(api_key="key-of-the-copy")))
        assert deepseek.last.header("authorization") == "Bearer key-of-the-copy"

    @pytest.mark.parametrize(
        ("model", "sent"), [("gpt-4o", "deepseek-v4-pro"), ("deepseek/deepseek-flash", "deepseek-flash")]
    )
    def test_body_arrives_translated_and_whole(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        model: str,
        sent: str,
    ) -> None:
        gateway.answer = edge(522)
        config = config_at(gateway, route="compat", model="deepseek-v4-pro", **settings)
        messages = [{"role": "developer", "content": "Hi"}, *MESSAGES]
        call(config, lambda client: chat(client, model=model, messages=messages))
        assert deepseek.last.json["model"] == sent
        assert [each["role"] for each in deepseek.last.json["messages"]] == ["system", "user"]

    def test_timeout_of_the_call_holds_for_deepseek_itself(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings
    ) -> None:
        gateway.answer = edge(522)
        deepseek.answer = lambda _: Answer((b"{",), 200, {"content-type": "application/json"}, ending="stall")
        with pytest.raises(openai.APITimeoutError):
            call(config_at(gateway, **settings), chat, timeout=0.3, max_retries=0)

    def test_stream_of_deepseek_itself_is_delivered_as_it_comes(
        self, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings
    ) -> None:
        gateway.answer = edge(522)
        deepseek.answer = lambda _: Answer((event("Hel"),), ending="stall")
        with create_client(config_at(gateway, **settings), timeout=2, max_retries=0) as client:
            for _ in range(2):  # the call that finds the outage, and a later call
                stream = streamed(client)
                assert next(stream).choices[0].delta.content == "Hel"
                stream.close()
        assert len(gateway.received) == 1

    def test_call_to_another_address_is_never_redirected_to_deepseek(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings, nobody: str
    ) -> None:
        body = {"model": "deepseek-flash", "messages": MESSAGES}
        with pytest.raises(openai.APIConnectionError):
            call(
                config_at(gateway, **settings),
                lambda client: client.post(f"{nobody}/chat/completions", cast_to=object, body=body),
                max_retries=0,
            )
        assert deepseek.received == []

    def test_request_without_a_model_fails_with_the_reason(
        self, call: Call, gateway: Loopback, deepseek: Loopback, config_at: ConfigAt, settings: Settings
    ) -> None:
        gateway.answer = edge(522)
        error = failing(call, config_at(gateway, **settings), lambda client: client.models.retrieve("x"), max_retries=0)
        assert error.type == "edge_error"
        assert deepseek.received == []


class TestHalfMinute:
    def test_calls_skip_the_gateway_for_30_seconds_and_then_one_call_tries_it(
        self,
        call: Call,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seconds = [1000.0]
        monkeypatch.setattr(_fallback, "monotonic", lambda: seconds[0])
        gateway.answer = edge(522)

        def at(time: float, answer: Any = None) -> Callable[[Any], Any]:
            def use(client: Any) -> Any:
                seconds[0], gateway.answer = time, answer or gateway.answer
                return chat(client)

            return use

        uses = [at(1000), at(1001), at(1029.9), at(1030.1), at(1031), at(1060.2, completion), at(1060.3)]
        call(config_at(gateway, **settings), lambda client: one_by_one(client, uses))
        assert (len(gateway.received), len(deepseek.received)) == (4, 5)

    def test_other_calls_skip_the_gateway_until_the_call_that_tries_it_is_answered(
        self,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seconds = [1000.0]
        monkeypatch.setattr(_fallback, "monotonic", lambda: seconds[0])
        asked: list[tuple[int, int]] = []

        def answer(request: Any) -> Answer:
            """Make another call before the gateway answers the first call."""
            if len(gateway.received) == expected:
                chat(client, timeout=5)
                asked.append((len(gateway.received), len(deepseek.received)))
            return completion(request)

        with create_client(config_at(gateway, **settings), max_retries=0) as client:
            gateway.answer, expected = edge(522), 0
            chat(client)
            gateway.answer, expected, seconds[0] = answer, 2, 1031.0
            chat(client)
            expected = 3
            chat(client)
        assert asked == [(2, 2), (4, 2)]

    def test_lost_connection_does_not_end_the_outage(
        self,
        gateway: Loopback,
        deepseek: Loopback,
        config_at: ConfigAt,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        seconds = [1000.0]
        monkeypatch.setattr(_fallback, "monotonic", lambda: seconds[0])
        with create_client(config_at(gateway, **settings), max_retries=0) as client:
            gateway.answer = edge(522)
            chat(client)
            gateway.answer, seconds[0] = lambda _: Answer((b"{",), ending="broken"), 1031.0
            with pytest.raises(openai.APIConnectionError):
                chat(client)
            chat(client)
        assert (len(gateway.received), len(deepseek.received)) == (2, 2)


class TestThousandCalls:
    """The gateway dies in the middle of a run, and comes back."""

    UNDER_WAY = 16

    def run(self, max_retries: int, **fallback: Any) -> tuple[list[Any], list[str]]:
        """Make a thousand calls, and stop the gateway for the second third. Give the results and what it was asked."""
        results: list[Any] = []
        numbers = iter(range(1000))
        asked: list[str] = []

        async def main() -> None:
            with ExitStack() as running:
                emulators = [running.enter_context(Emulator())]
                config = replace(emulators[0].config(), **fallback)
                port = int(emulators[0].url.rpartition(":")[2])

                async def calls(client: openai.AsyncOpenAI) -> None:
                    for number in numbers:
                        if number == 333:
                            running.close()
                        if number == 666:
                            emulators.append(running.enter_context(Emulator(port=port)))
                        try:
                            content = f"number {number}"
                            results.append(await chat(client, messages=[{"role": "user", "content": content}]))
                        except openai.APIConnectionError as error:
                            results.append(error)

                async with create_async_client(config, max_retries=max_retries) as client:
                    await asyncio.gather(*(calls(client) for _ in range(self.UNDER_WAY)))
                assert emulators[-1].requests, "the gateway was not tried again"
                asked.extend(
                    request.json["messages"][0]["content"] for emulator in emulators for request in emulator.requests
                )

        asyncio.run(main())
        return results, asked

    def test_no_call_is_lost_and_none_is_answered_twice(
        self, deepseek: Loopback, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_fallback, "_SECONDS", 0.1)
        results, asked = self.run(2, **settings)
        assert [type(result).__name__ for result in results] == ["ChatCompletion"] * 1000
        told = [received.json["messages"][0]["content"] for received in deepseek.received]
        assert len(set(told)) == len(told)
        assert len(set(asked) | set(told)) == 1000
        # The SDK asks again after a lost connection. Only calls under way lose theirs when the gateway dies.
        assert len(set(asked) & set(told)) <= self.UNDER_WAY
        for received in deepseek.received:
            assert_no_cloudflare(received)

    def test_errors_say_what_happened_without_the_fallback(self, deepseek: Loopback) -> None:
        results, _ = self.run(0, direct_endpoint=deepseek.url)
        assert len(results) == 1000
        assert {type(result).__name__ for result in results} == {"ChatCompletion", "APIConnectionError"}
        assert deepseek.received == []
