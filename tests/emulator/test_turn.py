"""The answers of the emulated DeepSeek: text, tool calls and JSON, and the limits that cut them."""

import json
import re
from typing import Any

import pytest
from emulated import BOTH, CLOCK, OFF, PROVIDER, WEATHER, ask, chat, send

from deepseek_gateway.emulator import Emulator


def test_answer_names_the_emulator_and_repeats_the_question_in_any_script(emulator: Emulator) -> None:
    message = chat(emulator, "Was ist 云 🚀 naïveté?")["choices"][0]["message"]
    assert message["content"] == (
        "This is a canned answer from the local AI Gateway emulator. You asked: Was ist 云 🚀 naïveté?"
    )
    assert message["reasoning_content"] == "No model runs here, so a canned answer has to do."


def test_same_request_gets_the_same_answer_from_every_emulator(emulator: Emulator) -> None:
    with Emulator(port=0) as other:
        assert send(emulator, PROVIDER, BOTH, ask()).body == send(other, PROVIDER, BOTH, ask()).body
    assert chat(emulator, "one")["id"] != chat(emulator, "two")["id"]


def test_token_counts_add_up_and_cached_tokens_come_in_blocks_of_128(emulator: Emulator) -> None:
    history = [{"role": "system", "content": "word " * 200}, {"role": "user", "content": "What is Cloudflare?"}]
    body = send(emulator, PROVIDER, BOTH, {"model": "deepseek-flash", "messages": history}).json
    usage = body["usage"]
    assert usage["prompt_tokens"] == 4 + 201 + 4 + 4
    assert usage["prompt_cache_hit_tokens"] == usage["prompt_tokens_details"]["cached_tokens"] == 128
    assert usage["prompt_cache_miss_tokens"] == usage["prompt_tokens"] - 128
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 13
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("deepseek-flash", "deepseek-flash"),
        ("deepseek-v4-pro", "deepseek-v4-pro"),
        ("deepseek-v4-flash", "deepseek-flash"),
        ("deepseek-chat", "deepseek-flash"),
        ("deepseek-reasoner", "deepseek-flash"),
    ],
)
def test_retired_model_is_served_as_deepseek_flash(emulator: Emulator, asked: str, served: str) -> None:
    body = send(emulator, PROVIDER, BOTH, ask(asked)).json
    assert body["model"] == served
    assert ("reasoning_content" in body["choices"][0]["message"]) == (asked != "deepseek-chat")


@pytest.mark.parametrize(
    ("more", "content", "reason"),
    [
        ({"max_tokens": 3}, "", "length"),
        ({"max_tokens": 15}, "This is", "length"),
        ({"max_tokens": 3, **OFF}, "This is a", "length"),
        ({"max_tokens": 393216, "stop": "canned", **OFF}, "This is a ", "stop"),
        ({"stop": ["emulator", "canned"], **OFF}, "This is a ", "stop"),
    ],
)
def test_max_tokens_cuts_thinking_and_text_and_stop_cuts_text(
    emulator: Emulator, more: dict[str, Any], content: str, reason: str
) -> None:
    choice = chat(emulator, **more)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)


@pytest.mark.parametrize(("limit", "arguments"), [(1, ""), (4, '{"city'), (99, '{"city": "example"}')])
def test_max_tokens_cuts_the_arguments_of_a_tool_call(emulator: Emulator, limit: int, arguments: str) -> None:
    choice = chat(emulator, tools=[WEATHER], max_tokens=limit, **OFF)["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["arguments"] == arguments
    assert choice["finish_reason"] == ("tool_calls" if limit == 99 else "length")


@pytest.mark.parametrize(
    ("text", "more", "called"),
    [
        ("How warm is it?", {}, ["get_weather"]),
        ("Call get_time now", {}, ["get_time"]),
        ("Call get_time and get_weather", {}, ["get_weather", "get_time"]),
        ("How warm is it?", {"tool_choice": "auto"}, ["get_weather"]),
        ("How warm is it?", {"tool_choice": "none"}, []),
        ("How warm is it?", {"tool_choice": "required", **OFF}, ["get_weather"]),
        (
            "How warm is it?",
            {"tool_choice": {"type": "function", "function": {"name": "get_time"}}, **OFF},
            ["get_time"],
        ),
    ],
)
def test_tools_named_in_the_text_are_called_or_else_the_first_tool(
    emulator: Emulator, text: str, more: dict[str, Any], called: list[str]
) -> None:
    choice = chat(emulator, text, tools=[WEATHER, CLOCK], **more)["choices"][0]
    calls = choice["message"].get("tool_calls", [])
    assert [call["function"]["name"] for call in calls] == called
    assert choice["finish_reason"] == ("tool_calls" if called else "stop")
    assert not called or choice["message"]["content"] == ""
    for index, call in enumerate(calls):
        assert list(call) == ["index", "id", "type", "function"]
        assert call["index"] == index
        assert re.fullmatch(rf"call_0{index}_[0-9a-zA-Z]{{24}}", call["id"])


def test_tool_result_becomes_the_answer_and_requires_reasoning_content(emulator: Emulator) -> None:
    messages: list[Any] = [{"role": "user", "content": "How warm is it?"}]
    message = send(emulator, PROVIDER, BOTH, {**ask(), "messages": messages, "tools": [WEATHER]}).json["choices"][0][
        "message"
    ]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "18 °C"}
    body = {**ask(), "messages": [*messages, message, result], "tools": [WEATHER]}
    final = send(emulator, PROVIDER, BOTH, body).json["choices"][0]
    assert final["finish_reason"] == "stop"
    assert final["message"]["content"].endswith("The tool returned: 18 °C")
    del message["reasoning_content"]
    refused = send(emulator, PROVIDER, BOTH, body)
    text = "The `reasoning_content` in the thinking mode must be passed back to the API."
    assert (refused.status, refused.json["error"]["message"]) == (400, text)
    assert send(emulator, PROVIDER, BOTH, body | OFF).status == 200


def test_json_mode_answers_json(emulator: Emulator) -> None:
    body = chat(emulator, 'Answer in JSON: "yes"?', response_format={"type": "json_object"})
    answer = json.loads(body["choices"][0]["message"]["content"])
    assert list(answer) == ["answer", "question"]
    assert answer["question"] == 'Answer in JSON: "yes"?'
