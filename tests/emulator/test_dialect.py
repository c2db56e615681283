"""What a program written for OpenAI sends, what DeepSeek does with it, and what DeepSeek takes in its place."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from emulated import AI, CLOCK, HOST, OFF, WEATHER, client_of

from deepseek_gateway.emulator import Emulator

QUESTION = {"role": "user", "content": "How warm is it? Answer in JSON."}
DESERIALIZE = "Failed to deserialize the JSON body into the target type: "
VARIANTS = "expected one of `system`, `user`, `assistant`, `tool`, `latest_reminder`"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALL = {"id": "call_00_x", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "call_00_x", "content": "noon"}
TO_CLOCK = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(params=["/deepseek", "/deepseek/beta"])
def bare(emulator: Emulator, request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """The SDK's own client, at each base URL of DeepSeek."""
    with client_of(emulator) as client:
        yield client.with_options(base_url=f"{emulator.url}{HOST}{request.param}")


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "deepseek-flash", "messages": [QUESTION], **fields})


def thought(reasoning: object) -> dict[str, Any]:
    """A conversation with a tool call, whose assistant message holds `reasoning`."""
    turn = {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": reasoning}
    return {"tools": [CLOCK], "messages": [QUESTION, turn, RESULT]}


UNTHOUGHT: dict[str, Any] = thought(None)
del UNTHOUGHT["messages"][1]["reasoning_content"]
MUST_PASS_BACK = "The `reasoning_content` in the thinking mode must be passed back to the API."
NOT_FORCED = "Thinking mode does not support this tool_choice"


@pytest.mark.parametrize(
    ("refused", "message", "taken", "finish_reason"),
    [
        pytest.param(
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}},
            "This response_format type is unavailable now",
            {"response_format": {"type": "json_object"}},
            "stop",
            id="json_schema, json_object",
        ),
        pytest.param(
            {"messages": [{"role": "developer", "content": "Be brief."}, QUESTION]},
            f"{DESERIALIZE}messages[0].role: unknown variant `developer`, {VARIANTS} at line 1 column ",
            {"messages": [{"role": "system", "content": "Be brief."}, QUESTION]},
            "stop",
            id="role developer, role system",
        ),
        pytest.param(
            {"tools": [WEATHER, CLOCK], "tool_choice": "required"},
            NOT_FORCED,
            {"tools": [WEATHER, CLOCK], "tool_choice": "required", "extra_body": OFF},
            "tool_calls",
            id="required tool, thinking off",
        ),
        pytest.param(
            {"tools": [WEATHER, CLOCK], "tool_choice": TO_CLOCK},
            NOT_FORCED,
            {"tools": [WEATHER, CLOCK], "tool_choice": TO_CLOCK, "reasoning_effort": "none"},
            "tool_calls",
            id="named tool, reasoning effort none",
        ),
        pytest.param(UNTHOUGHT, MUST_PASS_BACK, thought(""), "stop", id="no reasoning, empty reasoning"),
        pytest.param(thought(None), MUST_PASS_BACK, thought("Hm."), "stop", id="null reasoning, reasoning"),
        pytest.param(
            UNTHOUGHT, MUST_PASS_BACK, UNTHOUGHT | {"extra_body": OFF}, "stop", id="no reasoning, thinking off"
        ),
        pytest.param(
            UNTHOUGHT, MUST_PASS_BACK, {"messages": UNTHOUGHT["messages"]}, "stop", id="no reasoning, no tools"
        ),
        pytest.param(
            {"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_object"}},
            "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
            {"messages": [{"role": "user", "content": "x (json)"}], "response_format": {"type": "json_object"}},
            "stop",
            id="no word json, the word json",
        ),
        pytest.param(
            {"model": "gpt-4o"},
            "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed gpt-4o.",
            {"model": "deepseek-v4-pro"},
            "stop",
            id="gpt-4o, deepseek-v4-pro",
        ),
    ],
)
def test_openai_dialect_is_refused_and_its_translation_is_answered(
    bare: openai.OpenAI, refused: dict[str, Any], message: str, taken: dict[str, Any], finish_reason: str
) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            create(bare, **refused, stream=stream)
        error: Any = caught.value.body
        assert list(error) == ["message", "type", "param", "code"]
        assert error["message"].startswith(message)
        assert (error["type"], error["param"], error["code"]) == (
            "invalid_request_error",
            None,
            "invalid_request_error",
        )
    assert create(bare, **taken).choices[0].finish_reason == finish_reason


@pytest.mark.parametrize(
    ("path", "key"),
    [(f"{HOST}/compat", "emulator-deepseek-key"), (AI, "emulator-gateway-token")],
    ids=["compat", "rest"],
)
def test_other_routes_pass_on_what_deepseek_refuses_and_answers(emulator: Emulator, path: str, key: str) -> None:
    model = "deepseek/deepseek-flash"
    with client_of(emulator) as client:
        routed = client.with_options(base_url=f"{emulator.url}{path}", api_key=key)
        with pytest.raises(openai.BadRequestError, match="This response_format type is unavailable now"):
            create(routed, model=model, response_format={"type": "json_schema"})
        answer = create(routed, model=model, response_format={"type": "json_object"})
    assert answer.choices[0].message.content.startswith("{")


def test_named_tool_is_called_with_thinking_off(bare: openai.OpenAI) -> None:
    message = create(bare, tools=[WEATHER, CLOCK], tool_choice=TO_CLOCK, extra_body=OFF).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["get_time"]
    assert not hasattr(message, "reasoning_content")


def test_max_completion_tokens_is_ignored_and_max_tokens_cuts(bare: openai.OpenAI) -> None:
    ignored, cut = create(bare, max_completion_tokens=5), create(bare, max_tokens=5)
    assert (ignored.choices[0].finish_reason, cut.choices[0].finish_reason) == ("stop", "length")
    assert ignored.usage.completion_tokens > 5
    assert (cut.usage.completion_tokens, cut.choices[0].message.content) == (5, "")


def test_strict_tools_are_called_like_other_tools(bare: openai.OpenAI) -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}}
    assert create(bare, tools=[strict]).choices[0].message.tool_calls[0].function.arguments == '{"city": "example"}'


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"seed": 1},
        {"logit_bias": {"50256": -100}},
        {"store": True, "metadata": {"a": "b"}},
        {"service_tier": "flex"},
        {"user": "a-user"},
        {"temperature": 0.5, "top_p": 0.5, "presence_penalty": 1.0, "frequency_penalty": 1.0},
        {"tools": [WEATHER, CLOCK], "tool_choice": "none", "parallel_tool_calls": False},
        {
            "max_tokens": None,
            "tools": None,
            "tool_choice": None,
            "response_format": None,
            "extra_body": {"thinking": None},
        },
    ],
    ids=", ".join,
)
def test_parameter_that_deepseek_ignores_changes_nothing(bare: openai.OpenAI, fields: dict[str, Any]) -> None:
    answer, plain = create(bare, **fields), create(bare)
    assert answer.choices == plain.choices
    assert answer.usage.completion_tokens == plain.usage.completion_tokens


def test_usage_of_a_stream_is_on_the_last_chunk_that_has_a_choice(bare: openai.OpenAI) -> None:
    chunks = list(create(bare, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.choices for chunk in chunks)
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.embeddings.create(model="text-embedding-3-small", input="x"),
        lambda client: client.images.generate(model="gpt-image-1", prompt="x"),
        lambda client: client.audio.speech.create(model="tts-1", voice="alloy", input="x"),
        lambda client: client.moderations.create(input="x"),
        lambda client: client.batches.list(),
        lambda client: client.fine_tuning.jobs.list(),
    ],
    ids=["embeddings", "images", "audio", "moderations", "batches", "fine_tuning"],
)
def test_api_that_deepseek_lacks_is_404_with_an_empty_body(
    bare: openai.OpenAI, call: Callable[[openai.OpenAI], Any]
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        call(bare)
    assert caught.value.response.content == b""
