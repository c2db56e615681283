"""DeepSeek's own API, without the gateway."""

import json
from typing import Any

import openai
import pytest
from emulated import AI, BOTH, COMPAT, DIRECT, HOST, KEY, PROVIDER, REST, TOKEN, ask, events, named, send

from deepseek_gateway.emulator import Emulator

CHAT = f"{DIRECT}/chat/completions"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/completions", ask()),
        ("/v1/chat/completions", ask()),
        ("/beta/chat/completions", ask()),
        ("/beta/completions", {"model": "deepseek-flash", "prompt": "def f():"}),
        ("/responses", {"model": "deepseek-flash", "input": "Hi"}),
        ("/models", None),
        ("/v1/models", None),
        ("/user/balance", None),
    ],
)
def test_direct_route_answers_as_deepseek_does_behind_the_gateway(emulator: Emulator, path: str, body: Any) -> None:
    direct, through = send(emulator, DIRECT + path, KEY, body), send(emulator, f"{HOST}/deepseek{path}", BOTH, body)
    assert (direct.status, direct.body) == (200, through.body)
    upstream = [request.upstream and request.upstream.path for request in emulator.requests[-2:]]
    assert upstream == [path, path]


def test_openai_client_streams_from_the_direct_url(emulator: Emulator) -> None:
    assert emulator.direct_url == f"{emulator.url}/direct"
    with openai.OpenAI(base_url=emulator.direct_url, api_key=emulator.api_key) as client:
        asked: Any = ask(stream=True)
        *_, last = client.chat.completions.create(**asked)
    assert last.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("status", [200, 503])
def test_direct_response_has_the_headers_of_deepseek_and_none_of_cloudflare(emulator: Emulator, status: int) -> None:
    if status != 200:
        emulator.fail_next(status=status)
    answer = send(emulator, CHAT, KEY, ask())
    assert (answer.status, answer.headers["server"]) == (status, "elb")
    assert answer.headers["x-cache"] == ("Miss from cloudfront" if status == 200 else "Error from cloudfront")
    assert "x-ds-trace-id" in answer.headers
    assert [name for name in answer.headers if name.startswith("cf-")] == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"Authentication Fails (governor)"),
        (TOKEN, b"Authentication Fails (governor)"),
        (REST, b"Authentication Fails, Your api key: ****oken is invalid"),
        ({"authorization": "Bearer a-wrong-key"}, b"Authentication Fails, Your api key: ****-key is invalid"),
    ],
)
def test_direct_request_without_a_deepseek_key_is_refused_as_deepseek_refuses_it(
    emulator: Emulator, headers: dict[str, str], body: bytes
) -> None:
    answer = send(emulator, CHAT, headers, ask())
    assert answer.status == 401
    assert body in answer.body


def test_direct_request_shows_every_header_that_reached_deepseek(emulator: Emulator) -> None:
    assert send(emulator, CHAT, named(metadata="{}"), ask()).status == 200
    received = emulator.requests[-1]
    assert (received.route, received.path) == ("direct", CHAT)
    assert received.upstream is not None
    for headers in (received.headers, received.upstream.headers):
        assert [name for name in headers if name.startswith("cf-")] == ["cf-aig-authorization", "cf-aig-metadata"]


@pytest.mark.parametrize(
    ("path", "route"),
    [(PROVIDER, "provider"), ("/deepseek/models", "provider"), (COMPAT, "compat"), (f"{AI}/models", "rest")],
)
def test_received_request_names_its_route(emulator: Emulator, path: str, route: str) -> None:
    send(emulator, path)
    assert emulator.requests[-1].route == route


@pytest.mark.parametrize(
    "fault", [{"code": 2003}, {"status": 502}, {"status": 524}, {"shape": "policy"}, {"code": 2017, "event": 0}]
)
def test_failure_of_cloudflare_waits_for_a_request_to_the_gateway(emulator: Emulator, fault: Any) -> None:
    whole = send(emulator, CHAT, KEY, ask()).body
    emulator.fail_next(**fault)
    answer = send(emulator, CHAT, KEY, ask())
    assert (answer.status, answer.body, emulator.pending) == (200, whole, 1)
    assert send(emulator, PROVIDER, BOTH, ask()).body != whole
    assert emulator.pending == 0


def test_failure_of_deepseek_strikes_a_direct_request(emulator: Emulator) -> None:
    emulator.fail_next(status=402)
    assert send(emulator, CHAT, KEY, ask()).json["error"]["message"] == "Insufficient Balance"
    emulator.fail_next(status=503, event=1, message="Busy")
    *_, error, _ = send(emulator, CHAT, KEY, ask(stream=True)).body.split(b"\n\n")
    assert json.loads(error.removeprefix(b"data: "))["error"]["message"] == "Busy"


@pytest.mark.parametrize("fault", [{"reset": True}, {"unreachable": True}])
def test_direct_connection_is_reset_if_deepseek_cannot_be_reached(emulator: Emulator, fault: Any) -> None:
    emulator.fail_next(**fault)
    with pytest.raises(ConnectionResetError):
        send(emulator, CHAT, KEY, ask())
    assert send(emulator, CHAT, KEY, ask()).status == 200


def test_reset_of_a_direct_connection_leaves_the_next_answer(emulator: Emulator) -> None:
    emulator.answer_next("Paris")
    emulator.fail_next(reset=True)
    with pytest.raises(ConnectionResetError):
        send(emulator, CHAT, KEY, ask())
    assert send(emulator, CHAT, KEY, ask()).json["choices"][0]["message"]["content"] == "Paris"


def test_direct_request_meets_neither_the_settings_of_the_gateway_nor_its_cache() -> None:
    with Emulator(rate_limit=(1, 60), guardrails=["cloudflare"], cache_ttl=60) as emulator:
        answers = [send(emulator, CHAT, named(cache_key="k"), ask(stream=True)) for _ in range(3)]
        costs = [request.cost for request in emulator.requests]
    assert [answer.events[-1]["choices"][0]["finish_reason"] for answer in answers] == ["stop"] * 3
    assert costs == [None] * 3


def test_page_shows_a_direct_exchange_in_two_parts() -> None:
    with Emulator() as emulator:
        send(emulator, CHAT, KEY, ask())
        with events(emulator) as stream:
            row = stream.ended(1)
        titles = [part["title"] for part in send(emulator, "/_exchanges/1").json]
    assert (row["route"], row["endpoint"], row["sent"]) == ("direct", "/chat/completions", "deepseek-flash")
    assert titles == ["Caller to DeepSeek", "Answer"]


def test_environ_keeps_direct_calls_on_this_machine(emulator: Emulator) -> None:
    assert emulator.environ["DEEPSEEK_DIRECT_ENDPOINT"] == emulator.direct_url
