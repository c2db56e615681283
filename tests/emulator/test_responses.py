"""The bodies and streams of `/responses`."""

import itertools
import json
from typing import Any

import pytest
from emulated import BOTH, HOST, OFF, WEATHER, client_of, send

from deepseek_gateway.emulator import Emulator


def test_sdk_reads_responses_body_and_stream(emulator: Emulator) -> None:
    # openai 1.66 cannot parse a streamed response with thinking, so thinking is off.
    asked: Any = {"model": "deepseek-flash", "input": "Hi", "extra_body": OFF}
    with client_of(emulator) as client:
        response = client.responses.create(**asked)
        *_, last = events = list(client.responses.create(**asked, stream=True))
    assert (response.status, [item.type for item in response.output]) == ("completed", ["message"])
    assert response.output_text.endswith("You asked: Hi")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert last.type == "response.completed"
    assert last.response.output_text == "".join(deltas) == response.output_text


def test_responses_stream_has_named_and_numbered_events(emulator: Emulator) -> None:
    asked = {"model": "deepseek-flash", "input": "Hi"}
    whole = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked).json
    answer = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked | {"stream": True})
    *lines, end = answer.body.decode().split("\n\n")
    named = [line.removeprefix("event: ").split("\ndata: ") for line in lines]
    events = [json.loads(data) for _, data in named]
    assert end == ""
    assert [name for name, _ in named] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [kind for kind, _ in itertools.groupby(name.removeprefix("response.") for name, _ in named)] == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done"),
        *("content_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done", "completed"),
    ]
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message"]
    assert events[-1]["response"] == whole


@pytest.mark.parametrize("stream", [False, True])
def test_responses_calls_tools_and_uses_their_results(emulator: Emulator, stream: bool) -> None:
    path = f"{HOST}/deepseek/responses"
    tool = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
    asked = {"model": "deepseek-flash", "input": "How warm?", "tools": [tool], "stream": stream}
    answer = send(emulator, path, BOTH, asked)
    if stream:
        *_, last, end = answer.body.decode().split("\n\n")
        name, _, data = last.partition("\ndata: ")
        assert (name, end) == ("event: response.completed", "")
        output = json.loads(data)["response"]["output"]
        assert b"event: response.function_call_arguments.delta\n" in answer.body
    else:
        output = answer.json["output"]
    call = output[-1]
    assert (call["type"], call["name"], call["arguments"]) == ("function_call", "get_weather", '{"city": "example"}')
    history: list[Any] = [{"role": "user", "content": "How warm?"}, *output]
    refused = send(emulator, path, BOTH, asked | {"input": history})
    assert refused.json["error"]["message"] == f"No tool output found for tool call {call['call_id']}."
    history.append({"type": "function_call_output", "call_id": call["call_id"], "output": "18 °C"})
    final = send(emulator, path, BOTH, asked | {"input": history, "stream": False}).json
    assert final["output"][-1]["content"][0]["text"].endswith("The tool returned: 18 °C")


def test_responses_supports_json_schema_max_output_tokens_and_thinking_off(emulator: Emulator) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    asked = {"model": "deepseek-flash", "input": "1+1", "reasoning": {"effort": "none"}}
    form = {"format": {"type": "json_schema", "name": "sum", "schema": schema}}
    body = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked | {"text": form}).json
    assert [item["type"] for item in body["output"]] == ["message"]
    assert json.loads(body["output"][0]["content"][0]["text"]) == {"sum": 1}
    cut = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked | {"max_output_tokens": 2}).json
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
