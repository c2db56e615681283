"""How the emulated DeepSeek refuses a request body."""

import re
from typing import Any

import pytest
from emulated import BOTH, CLOCK, COMPAT, HOST, JSON_TYPE, OCTETS, PROVIDER, TOKEN, ask, send

from deepseek_gateway.emulator import Emulator

DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (ask(max_tokens=0), OCTETS, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
        (ask(max_tokens=393217), OCTETS, "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
        (ask(response_format={"type": "json_schema"}), OCTETS, "This response_format type is unavailable now"),
        (
            ask(response_format={"type": "json_object"}),
            OCTETS,
            "Prompt must contain the word 'json' in some form to use",
        ),
        (ask(tools=[CLOCK], tool_choice="required"), OCTETS, "Thinking mode does not support this tool_choice"),
        (
            ask(tools=[CLOCK], tool_choice={"type": "function", "function": {"name": "get_time"}}),
            OCTETS,
            "Thinking mode does not support this tool_choice",
        ),
        (ask(stream_options={"include_usage": True}), OCTETS, "stream_options should be set along with stream = true"),
        (ask("x"), OCTETS, "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed x."),
        ({"model": "deepseek-flash"}, JSON_TYPE, DESERIALIZE + "missing field `messages` at line 1 column 26"),
        (b"[1", JSON_TYPE, "Failed to parse the request body as JSON: "),
        (b"[" * 100_000, JSON_TYPE, "Failed to parse the request body as JSON: recursion limit exceeded"),
        (b"[" * 200 + b"]" * 200, JSON_TYPE, "Failed to parse the request body as JSON: recursion limit exceeded"),
        (
            {"model": "deepseek-flash", "messages": [{"role": "developer", "content": "x"}]},
            JSON_TYPE,
            DESERIALIZE
            + "messages[0].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, "
            "`tool`, `latest_reminder` at line 1 column 73",
        ),
        (
            {"model": "deepseek-flash", "messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
            JSON_TYPE,
            DESERIALIZE
            + "messages[0]: unknown variant `video_url`, expected one of `text`, `image_url`, `file` at line 1 "
            "column 87",
        ),
    ],
)
def test_deepseek_refuses_bad_requests_in_its_own_words(
    emulator: Emulator, body: Any, content_type: str, message: str
) -> None:
    answer = send(emulator, PROVIDER, BOTH, body)
    assert (answer.status, answer.headers["content-type"]) == (400, content_type)
    error = answer.json["error"]
    assert error["message"].startswith(message)
    assert list(error.items())[1:] == [
        ("type", "invalid_request_error"),
        ("param", None),
        ("code", "invalid_request_error"),
    ]
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-ds-trace-id"])


@pytest.mark.parametrize(
    "more",
    [
        {"messages": "hello"},
        {"messages": [1, {"role": "user"}]},
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": [{"type": "text"}, {"type": "image_url", "image_url": 1}]}]},
        {"tools": [{}], "thinking": 1, "stream_options": []},
        {"tools": 1, "response_format": "json", "stop": ["", 1], "top_logprobs": "2", "logprobs": True},
        {"model": ["x"]},
        {"max_tokens": "9"},
        {"input": 1},
        {"input": [{"type": "function_call_output", "call_id": [1]}, {"type": "function_call", "call_id": {}}]},
        {"logprobs": True, "top_logprobs": 10**12},
    ],
)
@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/beta/completions"])
def test_malformed_fields_get_an_answer_and_not_a_crash(emulator: Emulator, path: str, more: dict[str, Any]) -> None:
    odd = ask(input="x", prompt="x") | more
    assert send(emulator, f"{HOST}/deepseek{path}", BOTH, odd).status in {200, 400}
    odd["model"] = "deepseek/deepseek-flash"
    assert send(emulator, COMPAT, BOTH, odd).status in {200, 400}


def test_wrong_key_error_repeats_the_last_four_characters(emulator: Emulator) -> None:
    answer = send(emulator, PROVIDER, TOKEN | {"authorization": "Bearer a-wrong-key"}, ask())
    assert answer.body == (
        b'{"error":{"message":"Authentication Fails, Your api key: ****-key is invalid",'
        b'"type":"authentication_error","param":null,"code":"invalid_request_error"}}'
    )
    assert (answer.status, len(answer.body), answer.headers["content-type"]) == (401, 153, JSON_TYPE)
