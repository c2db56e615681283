"""Programs written for OpenAI, unchanged but for the constructor. The emulator refuses what DeepSeek refuses.

Each program fails or is ignored with `adapt=False`, and works without it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import chat, run
from loopback import COMPLETION, Answer, Loopback, completion
from pydantic import BaseModel

from deepseek_gateway import Usage, create_client, record_calls
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from calling import Call, ConfigAt

Use = Callable[[Any], Any]
USER = {"role": "user", "content": "How is the weather in Paris?"}


class Weather(BaseModel):
    city: str
    degrees: int


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLED = {
    "role": "assistant",
    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
FORCED = {"type": "function", "function": {"name": "get_weather"}}


def parsed(client: Any) -> Any:
    completions = client.chat.completions
    parse = completions.parse if hasattr(completions, "parse") else client.beta.chat.completions.parse
    return parse(model="deepseek-flash", messages=[USER], response_format=Weather)


# The columns are: what is translated, the program, and a part of DeepSeek's refusal without the translation.
REFUSED: dict[str, tuple[Use, str]] = {
    "developer": (
        lambda client: chat(client, messages=[{"role": "developer", "content": "Be brief."}, USER]),
        "unknown variant `developer`",
    ),
    "json_schema": (parsed, "This response_format type is unavailable now"),
    "tool_choice": (
        lambda client: chat(client, messages=[USER], tools=[TOOL], tool_choice=FORCED),
        "Thinking mode does not support this tool_choice",
    ),
    "reasoning_content": (
        lambda client: chat(client, messages=[USER, CALLED, RESULT], tools=[TOOL]),
        "must be passed back to the API",
    ),
    "model": (lambda client: chat(client, model="gpt-4o"), "supported API model names|Model not found"),
}
STREAMED: dict[str, Use] = {
    "developer": lambda client: chat(
        client, messages=[{"role": "developer", "content": "Be brief."}, USER], stream=True
    ),
    "tool_choice": lambda client: chat(client, messages=[USER], tools=[TOOL], tool_choice="required", stream=True),
    "reasoning_content": lambda client: chat(client, messages=[USER, CALLED, RESULT], tools=[TOOL], stream=True),
    "model": lambda client: chat(client, model="gpt-4o", stream=True),
}


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.mark.parametrize(("use", "refusal"), REFUSED.values(), ids=REFUSED)
def test_program_that_deepseek_refuses_works_on_every_route(
    flavour: str, emulator: Emulator, use: Use, refusal: str, request: pytest.FixtureRequest
) -> None:
    for route in ("provider", "compat", "rest"):
        own = {"api_key": None} if route == "rest" else {}
        plain = emulator.config(route=route, adapt=False, **own)  # type: ignore[arg-type]
        with pytest.raises((openai.BadRequestError, openai.NotFoundError), match=refusal):
            run(flavour, plain, use, max_retries=0)
        config = emulator.config(route=route, model="deepseek-flash", **own)  # type: ignore[arg-type]
        with record_calls() as calls:
            assert run(flavour, config, use).choices
        assert [call.adapted for call in calls] == [(request.node.callspec.id.split("-", 1)[1],)]


@pytest.mark.parametrize("use", STREAMED.values(), ids=STREAMED)
def test_streamed_program_that_deepseek_refuses_works(flavour: str, emulator: Emulator, use: Use) -> None:
    with pytest.raises(openai.BadRequestError):
        run(flavour, emulator.config(adapt=False), use, max_retries=0)
    assert len(run(flavour, emulator.config(model="deepseek-flash"), use)) > 1


def test_parse_returns_an_instance_of_the_model(call: Call, emulator: Emulator) -> None:
    assert isinstance(call(emulator.config(), parsed).choices[0].message.parsed, Weather)


def test_max_completion_tokens_limits_the_answer(call: Call, emulator: Emulator) -> None:
    def use(client: Any) -> Any:
        return chat(client, max_completion_tokens=2, extra_body={"thinking": {"type": "disabled"}})

    assert call(emulator.config(adapt=False), use).choices[0].finish_reason == "stop"
    assert call(emulator.config(), use).choices[0].finish_reason == "length"


def test_configured_thinking_holds_for_calls_that_do_not_state_it(call: Call, emulator: Emulator) -> None:
    def thoughts(message: Any) -> str | None:
        return getattr(message.choices[0].message, "reasoning_content", None)

    assert thoughts(call(emulator.config(), chat))
    assert not thoughts(call(emulator.config(thinking=False), chat))
    stated = {"extra_body": {"thinking": {"type": "enabled"}}}
    assert thoughts(call(emulator.config(thinking=False), lambda client: chat(client, **stated)))


def test_beta_endpoint_is_translated_too(call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
    def use(client: Any) -> Any:
        beta = client.with_options(base_url=f"{str(client.base_url).rstrip('/')}/beta")
        return chat(beta, max_completion_tokens=5)

    call(config_at(gateway), use)
    assert gateway.last.path.endswith("/deepseek/beta/chat/completions")
    assert gateway.last.json["max_tokens"] == 5


def test_call_with_a_query_is_translated_too(call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
    call(config_at(gateway), lambda client: chat(client, max_completion_tokens=5, extra_query={"x": "1"}))
    assert gateway.last.path.endswith("/chat/completions?x=1")
    assert gateway.last.json["max_tokens"] == 5


def test_objects_of_the_caller_are_not_changed(call: Call, emulator: Emulator) -> None:
    messages: list[Any] = [{"role": "developer", "content": "Be brief."}, USER, CALLED, RESULT]
    before = json.dumps(messages)
    call(emulator.config(), lambda client: chat(client, messages=messages, tools=[TOOL]))
    assert json.dumps(messages) == before


def test_schema_is_said_once_for_each_client_to_be_unenforced(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with create_client(emulator.config()) as client:
        for _ in range(2):
            parsed(client)
            parsed(client.with_options(timeout=5))
    with create_client(emulator.config()) as client:
        parsed(client)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith("DeepSeek enforces no JSON schema.")


def test_refusal_that_is_left_is_explained_in_a_warning(
    call: Call, emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    stated = {"tools": [TOOL], "tool_choice": "required", "extra_body": {"thinking": {"type": "enabled"}}}
    with pytest.raises(openai.BadRequestError):
        call(emulator.config(), lambda client: chat(client, **stated))
    assert 'pass extra_body={"thinking": {"type": "disabled"}} to force a tool' in caplog.text


USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 7,
    "total_tokens": 19,
    "prompt_tokens_details": {"cached_tokens": 8},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
COUNTED = Usage(prompt_tokens=12, completion_tokens=7, cached_tokens=8, reasoning_tokens=3)


class TestUsage:
    """`record_calls()` reads the tokens of a call from its response or from the end of its stream."""

    def test_usage_of_a_plain_response_is_read(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({**COMPLETION, "usage": USAGE})
        with record_calls() as calls:
            call(config_at(gateway), chat)
        assert [each.usage for each in calls] == [COUNTED]

    @pytest.mark.parametrize("size", [7, 10_000])
    def test_usage_of_a_stream_is_read_from_its_last_chunk(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, size: int
    ) -> None:
        chunk = {**COMPLETION, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "x"}}]}
        chunks = [{**chunk, "usage": usage} for usage in (None, None, None, USAGE)]
        body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"
        pieces = tuple(body[start : start + size] for start in range(0, len(body), size))
        gateway.answer = lambda _: Answer(pieces)
        with record_calls() as calls:
            assert len(call(config_at(gateway), lambda client: chat(client, stream=True))) == 4
        assert [each.usage for each in calls] == [COUNTED]

    def test_usage_of_a_responses_stream_is_read_from_its_last_event(self, call: Call, emulator: Emulator) -> None:
        with record_calls() as calls:
            call(
                emulator.config(),
                lambda client: client.responses.create(model="deepseek-flash", input="Hi", stream=True),
            )
        (recorded,) = calls
        assert recorded.usage
        assert recorded.usage.prompt_tokens > 0
        assert recorded.usage.completion_tokens > 0

    def test_usage_of_a_response_that_the_caller_reads_is_read_in_passing(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer({**COMPLETION, "usage": USAGE})
        with (
            record_calls() as calls,
            create_client(config_at(gateway)) as client,
            client.chat.completions.with_streaming_response.create(model="m", messages=[]) as response,
        ):
            assert response.parse().choices
        assert [each.usage for each in calls] == [COUNTED]

    @pytest.mark.parametrize(
        ("usage", "expected"),
        [
            (
                {
                    "input_tokens": 12,
                    "output_tokens": 7,
                    "input_tokens_details": {"cached_tokens": 8},
                    "output_tokens_details": {"reasoning_tokens": 3},
                },
                COUNTED,
            ),
            ({"prompt_tokens": 12, "completion_tokens": 7}, Usage(prompt_tokens=12, completion_tokens=7)),
            (
                {**USAGE, "prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": None}},
                Usage(prompt_tokens=12, completion_tokens=7),
            ),
        ],
        ids=["of responses", "no details", "null"],
    )
    @pytest.mark.parametrize("inner", [False, True], ids=["result", "event"])
    def test_usage_is_read_with_its_details(
        self, gateway: Loopback, config_at: ConfigAt, usage: Any, expected: Usage, inner: bool
    ) -> None:
        gateway.answer = lambda _: Answer({"response": {"usage": usage}} if inner else {"usage": usage})
        with record_calls() as calls, create_client(config_at(gateway)) as client:
            client.models.with_raw_response.list()
        assert [each.usage for each in calls] == [expected]

    @pytest.mark.parametrize(
        "body",
        [b"[]", b'{"usage": 5}', b'{"usage": {"prompt_tokens": 1}}', b"{", b'{"usage": []}', b'{"usage":' * 100_000],
        ids=["a list", "a number", "no answer", "cut", "a list of usages", "too deep"],
    )
    def test_response_without_readable_usage_has_none(
        self, gateway: Loopback, config_at: ConfigAt, body: bytes
    ) -> None:
        gateway.answer = lambda _: Answer(body, headers={"content-type": "application/json"})
        with record_calls() as calls, create_client(config_at(gateway)) as client:
            client.models.with_raw_response.list()
        assert [each.usage for each in calls] == [None]


def test_recorded_call_names_its_route_its_ids_and_what_was_adapted(
    call: Call, gateway: Loopback, config_at: ConfigAt
) -> None:
    headers = {"cf-aig-trace-id": "0123456789abcdef", "cf-aig-log-id": "01jadmcq8g0e4k"}
    gateway.answer = lambda request: Answer(completion(request).body, headers=headers)
    with record_calls() as calls:
        call(config_at(gateway, route="compat"), lambda client: chat(client, max_completion_tokens=5))
    (recorded,) = calls
    assert (recorded.route, recorded.adapted) == ("compat", ("max_completion_tokens",))
    assert (recorded.gateway_trace_id, recorded.request_id) == ("0123456789abcdef", "01jadmcq8g0e4k")


def test_log_line_names_what_was_adapted(
    call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="deepseek_gateway")
    call(
        config_at(gateway),
        lambda client: chat(client, messages=[{"role": "developer", "content": "x"}], max_completion_tokens=5),
    )
    (line,) = (record.getMessage() for record in caplog.records if record.name == "deepseek_gateway")
    assert line.startswith("POST /chat/completions 200 cache=- log=- adapted=developer,max_completion_tokens ")


PROGRAM = """
from deepseek_gateway import create_client
client = create_client(max_retries=0)
tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
messages = [{"role": "user", "content": "Hi"}]
stated = {"thinking": {"type": "enabled"}}
client.chat.completions.create(
    model="deepseek-flash", messages=messages, tools=[tool], tool_choice="required", extra_body=stated
)
"""


def test_program_without_logging_shows_the_remedy_above_the_traceback(emulator: Emulator) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | emulator.environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("400 from DeepSeek: ")
    assert 'pass extra_body={"thinking": {"type": "disabled"}} to force a tool' in first
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1].startswith("openai.BadRequestError")
