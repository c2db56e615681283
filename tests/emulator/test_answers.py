"""Answers on demand: `answer_next()`, `answer_with()` and `reset()`."""

import asyncio
import json
import re
from typing import Any

import openai
import pytest
from emulated import AI, BOTH, COMPAT, DIRECT, HOST, KEY, OFF, PROVIDER, RESPONSES, REST, ask, client_of, named, send
from pydantic import BaseModel, Field

from deepseek_gateway.emulator import Emulator, ReceivedRequest

WEATHER_CALL: dict[str, Any] = {"name": "get_weather", "arguments": {"city": "Paris"}}
CLOCK_CALL: dict[str, Any] = {"name": "get_time", "arguments": "{not JSON"}

CALLS: dict[str, tuple[str, dict[str, str], Any]] = {
    "provider": (PROVIDER, BOTH, ask()),
    "compat": (COMPAT, BOTH, ask("deepseek/deepseek-flash")),
    "dynamic": (COMPAT, {"cf-aig-authorization": BOTH["cf-aig-authorization"]}, ask("dynamic/support")),
    "rest": (f"{AI}/chat/completions", REST, ask("deepseek/deepseek-flash")),
    "direct": (f"{DIRECT}/chat/completions", KEY, ask()),
    "responses": (RESPONSES, BOTH, {"model": "deepseek-flash", "input": "Hi"}),
    "rest, responses": (f"{AI}/responses", REST, {"model": "deepseek/deepseek-flash", "input": "Hi"}),
    "direct, responses": (f"{DIRECT}/responses", KEY, {"model": "deepseek-flash", "input": "Hi"}),
    "fill in the middle": (f"{HOST}/deepseek/beta/completions", BOTH, {"model": "deepseek-flash", "prompt": "x ="}),
    "direct, fill in the middle": (f"{DIRECT}/beta/completions", KEY, {"model": "deepseek-flash", "prompt": "x ="}),
}


def said(answer: Any, *, stream: bool) -> str:
    """Return the text of an answer, from whichever endpoint and whether or not it was streamed."""
    assert answer.status == 200, answer.body
    events = [json.loads(data) for data in re.findall(rb"(?m)^data: (\{.*)$", answer.body)] if stream else [answer.json]
    text = ""
    for event in events:
        for choice in event.get("choices", ()):
            text += choice.get("text") or choice.get("delta", choice.get("message", {})).get("content") or ""
        if event.get("type") == "response.output_text.delta":
            text += event["delta"]
        for item in event.get("output", ()):
            text += "".join(part["text"] for part in item["content"]) if item["type"] == "message" else ""
    return text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "headers", "body"), CALLS.values(), ids=CALLS)
def test_next_answer_is_the_given_text_on_every_route_and_endpoint(
    emulator: Emulator, path: str, headers: dict[str, str], body: Any, stream: bool
) -> None:
    emulator.answer_next("Großartig, 云!\n ")
    assert said(send(emulator, path, headers, body | {"stream": stream}), stream=stream) == "Großartig, 云!\n "
    assert "canned" in said(send(emulator, path, headers, body | {"stream": stream}), stream=stream)


def test_answers_are_given_in_order_and_then_the_canned_ones(emulator: Emulator) -> None:
    for text in ("one", "", "two"):
        emulator.answer_next(text)
    assert emulator.pending == 3
    assert [said(send(emulator, PROVIDER, BOTH, ask()), stream=False)[:4] for _ in range(4)] == [
        "one",
        "",
        "two",
        "This",
    ]
    assert emulator.pending == 0


def test_given_tool_calls_have_ids_and_end_the_answer(emulator: Emulator) -> None:
    emulator.answer_next(tool_calls=[WEATHER_CALL, CLOCK_CALL])
    choice = send(emulator, PROVIDER, BOTH, ask()).json["choices"][0]
    calls = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "")
    functions = [("get_weather", '{"city": "Paris"}'), ("get_time", "{not JSON")]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == functions
    assert [call["id"][:8] for call in calls] == ["call_00_", "call_01_"]


@pytest.mark.parametrize("make", [lambda: {"city": "Paris"}, lambda: City(city="Paris")], ids=["dict", "pydantic"])
def test_sdk_collects_given_tool_calls_from_a_stream_after_the_text(emulator: Emulator, make: Any) -> None:
    emulator.answer_next("Let me look.", tool_calls=[{"name": "get_weather", "arguments": make()}])
    with client_of(emulator) as client:
        chunks = list(client.chat.completions.create(**ask(stream=True)))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    pieces = [piece.function for delta in deltas for piece in delta.tool_calls or ()]
    texts = [index for index, delta in enumerate(deltas) if delta.content]
    assert max(texts) < min(index for index, delta in enumerate(deltas) if delta.tool_calls)
    assert "".join(deltas[index].content or "" for index in texts) == "Let me look."
    assert pieces[0].name == "get_weather"
    assert "".join(piece.arguments or "" for piece in pieces) == '{"city": "Paris"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_given_tool_call_is_an_item_of_responses(emulator: Emulator, stream: bool) -> None:
    emulator.answer_next("Let me look.", tool_calls=[WEATHER_CALL], reasoning="Hm")
    body = send(emulator, RESPONSES, BOTH, {"model": "deepseek-flash", "input": "Hi", "stream": stream}).body
    if stream:
        body = json.dumps(json.loads(body.rpartition(b"data: ")[2])["response"]).encode()
    reasoning, message, call = json.loads(body)["output"]
    assert reasoning["content"][0]["text"] == "Hm"
    assert message["content"][0]["text"] == "Let me look."
    assert (call["type"], call["name"], json.loads(call["arguments"])) == (
        "function_call",
        "get_weather",
        {"city": "Paris"},
    )
    assert call["call_id"].startswith("call_00_")


class City(BaseModel):
    city: str


class Trip(BaseModel):
    cities: list[City] = Field(alias="stops")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"stops": [{"city": "Köln"}]}, id="dict"),
        pytest.param(Trip(stops=[City(city="Köln")]), id="pydantic"),
        pytest.param({"stops": [City(city="Köln")]}, id="pydantic in a dict"),
    ],
)
def test_given_json_is_parsed_by_the_sdk(emulator: Emulator, value: Any) -> None:
    emulator.answer_next(json=value)
    with client_of(emulator) as client:
        body: Any = {"model": "deepseek-flash", "input": "A trip", "extra_body": OFF}
        parsed = client.responses.parse(**body, text_format=Trip).output_parsed
    assert parsed == Trip(stops=[City(city="Köln")])


def test_given_json_keeps_non_ascii_text_as_deepseek_does(emulator: Emulator) -> None:
    emulator.answer_next(json={"city": "Köln"})
    assert said(send(emulator, PROVIDER, BOTH, ask()), stream=False) == '{"city": "Köln"}'


@pytest.mark.parametrize(
    ("given", "more", "expected"),
    [
        ({"reasoning": "First I think."}, {}, "First I think."),
        ({"reasoning": ""}, {}, ""),
        ({}, {}, "No model runs here, so a canned answer has to do."),
        ({"reasoning": "First I think."}, OFF, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_given_reasoning_precedes_the_text_unless_thinking_is_off(
    emulator: Emulator, given: Any, more: Any, expected: str | None, stream: bool
) -> None:
    emulator.answer_next("Paris", **given)
    answer = send(emulator, PROVIDER, BOTH, ask(stream=stream, **more))
    if not stream:
        message = answer.json["choices"][0]["message"]
        assert (message.get("reasoning_content"), message["content"]) == (expected, "Paris")
        return
    deltas = [event["choices"][0]["delta"] for event in answer.events]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == (expected or "")
    kinds = ["text" if delta["content"] else "reasoning" for delta in deltas if any(delta.values())][1:]
    assert kinds == sorted(kinds)


def test_given_answer_is_counted_and_its_cost_is_known(emulator: Emulator) -> None:
    emulator.answer_next("one two three", reasoning="four five")
    usage = send(emulator, PROVIDER, BOTH, ask()).json["usage"]
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (5, 2)
    assert emulator.requests[-1].cost == pytest.approx(usage["prompt_tokens"] * 0.15e-6 + 5 * 0.6e-6)


@pytest.mark.parametrize("more", [{"max_tokens": 1}, {"stop": "tr"}])
def test_given_answer_is_sent_whole(emulator: Emulator, more: Any) -> None:
    emulator.answer_next("as it was intended")
    choice = send(emulator, PROVIDER, BOTH, ask(**more)).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("as it was intended", "stop")


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
        ("insufficient_system_resource", "completed", None),
    ],
)
def test_given_finish_reason_is_sent(emulator: Emulator, reason: str, status: str, details: Any) -> None:
    for _ in range(3):
        emulator.answer_next("Par", finish_reason=reason)
    assert send(emulator, PROVIDER, BOTH, ask(stream=True)).events[-1]["choices"][0]["finish_reason"] == reason
    response = send(emulator, RESPONSES, BOTH, {"model": "deepseek-flash", "input": "Hi"}).json
    assert (response["status"], response["incomplete_details"]) == (status, details)
    body = send(emulator, RESPONSES, BOTH, {"model": "deepseek-flash", "input": "Hi", "stream": True}).body
    first, *_, last = (json.loads(data)["response"] for data in re.findall(rb'(?m)^data: (.*"response":.*)$', body))
    assert (first["status"], first["incomplete_details"]) == ("in_progress", None)
    assert (last["status"], last["incomplete_details"]) == (status, details)


def test_given_answers_to_equal_requests_have_different_ids(emulator: Emulator) -> None:
    for city in ("Paris", "Rome"):
        emulator.answer_next(tool_calls=[{"name": "get_weather", "arguments": {"city": city}}])
    one, two = (send(emulator, PROVIDER, BOTH, ask()).json for _ in range(2))
    assert one["id"] != two["id"]
    calls = [body["choices"][0]["message"]["tool_calls"][0]["id"] for body in (one, two)]
    assert calls[0] != calls[1]


def test_refused_or_failed_request_leaves_the_answer_to_the_next_one(emulator: Emulator) -> None:
    emulator.answer_next("Paris")
    emulator.fail_next(2003)
    emulator.fail_next(status=503)
    failures = [(BOTH, ask()), (BOTH, ask()), (BOTH, ask("no-such-model")), ({}, ask()), (BOTH, b"{")]
    assert [send(emulator, PROVIDER, headers, body).status for headers, body in failures] == [429, 503, 400, 401, 400]
    assert send(emulator, f"{HOST}/deepseek/models").status == 200
    assert said(send(emulator, PROVIDER, BOTH, ask()), stream=False) == "Paris"


def test_given_answer_is_delivered_as_the_failure_says(emulator: Emulator) -> None:
    emulator.answer_next("Paris")
    emulator.fail_next(keep_alive=1)
    assert said(send(emulator, PROVIDER, BOTH, ask()), stream=False) == "Paris"
    assert emulator.pending == 0


class TestFunction:
    def test_function_is_called_with_every_request_and_says_the_answer(self, emulator: Emulator) -> None:
        seen: list[ReceivedRequest] = []

        def answer(request: ReceivedRequest) -> Any:
            seen.append(request)
            question = request.json["messages"][-1]["content"]
            by_question: dict[str, Any] = {"call": {"tool_calls": [WEATHER_CALL]}, "text": "Hello!"}
            return by_question.get(question)

        emulator.answer_with(answer)
        try:
            texts = ("text", "call", "other")
            choices = [send(emulator, PROVIDER, BOTH, ask(text=text)).json["choices"][0] for text in texts]
            assert seen == emulator.requests[-3:]
        finally:
            emulator.answer_with(None)
        assert [choice["finish_reason"] for choice in choices] == ["stop", "tool_calls", "stop"]
        assert choices[0]["message"]["content"] == "Hello!"
        assert "canned" in choices[2]["message"]["content"]
        assert "canned" in said(send(emulator, PROVIDER, BOTH, ask(text="text")), stream=False)
        assert len(seen) == 3

    def test_function_sees_the_headers_of_the_caller_and_the_body_that_reached_deepseek(self) -> None:
        seen: list[tuple[str, str, str]] = []

        def answer(request: ReceivedRequest) -> str:
            assert request.upstream is not None
            seen.append((request.headers["cf-aig-event-id"], request.model, request.upstream.model))
            return "Hi"

        with Emulator() as emulator:
            emulator.answer_with(answer)
            assert send(emulator, COMPAT, named(event_id="mine"), ask("deepseek/deepseek-flash")).status == 200
        assert seen == [("mine", "deepseek/deepseek-flash", "deepseek-flash")]

    def test_next_answer_comes_before_the_function(self) -> None:
        with Emulator() as emulator:
            emulator.answer_with(lambda _: "function")
            emulator.answer_next("next")
            assert [said(send(emulator, PROVIDER, BOTH, ask()), stream=False) for _ in range(2)] == ["next", "function"]

    @pytest.mark.parametrize(
        ("function", "error"),
        [
            pytest.param(lambda _: 1 / 0, "ZeroDivisionError", id="it raises"),
            pytest.param(lambda _: b"bytes", "TypeError", id="it returns bytes"),
            pytest.param(lambda _: {"txt": "Hi"}, "TypeError", id="it returns an unknown argument"),
            pytest.param(lambda _: {"tool_calls": [{}]}, "ValueError", id="it returns an invalid argument"),
        ],
    )
    def test_error_of_the_function_is_raised_at_the_end(self, function: Any, error: str) -> None:
        emulator = Emulator()
        emulator.answer_with(function)
        with pytest.raises(RuntimeError, match=rf"answer_with\(\).*{error}"), emulator:
            assert send(emulator, PROVIDER, BOTH, ask()).headers["x-emulator-fault"] == "1"


class TestCache:
    def test_next_answer_is_given_although_another_is_cached(self) -> None:
        with Emulator(cache_ttl=60) as emulator:
            answers = [send(emulator, PROVIDER, BOTH, ask())]
            for text in ("one", "two"):
                emulator.answer_next(text)
            answers += [send(emulator, PROVIDER, BOTH, ask()) for _ in range(3)]
        assert [said(answer, stream=False)[:4] for answer in answers] == ["This", "one", "two", "two"]
        assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS", "MISS", "MISS", "HIT"]

    def test_new_function_starts_with_an_empty_cache_and_is_not_asked_for_a_cached_answer(self) -> None:
        with Emulator(cache_ttl=60) as emulator:
            send(emulator, PROVIDER, BOTH, ask())
            texts = iter(["one", "two"])
            emulator.answer_with(lambda _: next(texts))
            answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(2)]
        assert [said(answer, stream=False) for answer in answers] == ["one", "one"]
        assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    ("arguments", "named_in_error"),
    [
        ({}, "answer"),
        ({"reasoning": "Hm"}, "answer"),
        ({"text": "x", "json": {}}, "json"),
        ({"text": 5}, "text"),
        ({"text": b"x"}, "text"),
        ({"text": "x", "reasoning": 5}, "reasoning"),
        ({"json": {"a": object()}}, "JSON"),
        ({"json": {"a": float("nan")}}, "JSON"),
        ({"tool_calls": WEATHER_CALL}, "tool call"),
        ({"tool_calls": [{"name": "f"}]}, "tool call"),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, "tool call"),
        ({"tool_calls": [{"name": "f", "arguments": {}, "id": "x"}]}, "tool call"),
    ],
)
def test_answer_that_would_mislead_a_test_is_refused(emulator: Emulator, arguments: Any, named_in_error: str) -> None:
    with pytest.raises((ValueError, TypeError), match=named_in_error):
        emulator.answer_next(**arguments)
    assert emulator.pending == 0


def test_tool_calls_for_fill_in_the_middle_raise_at_the_end() -> None:
    emulator = Emulator()
    emulator.answer_next(tool_calls=[WEATHER_CALL])
    path, headers, body = CALLS["fill in the middle"]
    with pytest.raises(RuntimeError, match="has no tool calls"), emulator:
        assert send(emulator, path, headers, body).status == 500


def test_reset_forgets_answers_failures_requests_cache_and_limits() -> None:
    with Emulator(cache_ttl=60, rate_limit=(1, 60)) as emulator:
        emulator.answer_with(lambda _: "function")
        assert said(send(emulator, PROVIDER, BOTH, ask()), stream=False) == "function"
        emulator.answer_next("next")
        emulator.fail_next(2003)
        emulator.reset()
        assert (emulator.pending, emulator.requests) == (0, [])
        answer = send(emulator, PROVIDER, BOTH, ask())
    assert "canned" in said(answer, stream=False)
    assert answer.headers["cf-aig-cache-status"] == "MISS"


def test_async_client_gets_the_given_answer() -> None:
    async def main() -> str | None:
        async with (
            Emulator() as emulator,
            openai.AsyncOpenAI(base_url=emulator.direct_url, api_key=emulator.api_key) as client,
        ):
            emulator.answer_next("Paris")
            return (await client.chat.completions.create(**ask())).choices[0].message.content

    assert asyncio.run(main()) == "Paris"
