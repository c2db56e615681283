"""The bodies and streams of chat completions, fill-in-the-middle, and DeepSeek's small endpoints."""

import json
import re
from typing import Any

import pytest
from emulated import BOTH, CLOCK, HOST, OFF, PROVIDER, WEATHER, ask, chat, send

from deepseek_gateway.emulator import Emulator

USAGE = ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"]
USAGE += ["prompt_cache_hit_tokens", "prompt_cache_miss_tokens"]


PLAIN_USAGE = [name for name in USAGE if name != "completion_tokens_details"]


CHUNK = ["id", "object", "created", "model", "system_fingerprint", "choices"]


@pytest.mark.parametrize(
    ("more", "message", "usage"),
    [
        ({}, ["role", "content", "reasoning_content"], USAGE),
        (OFF, ["role", "content"], PLAIN_USAGE),
        ({"reasoning_effort": "none"}, ["role", "content"], PLAIN_USAGE),
        ({"reasoning_effort": "low"}, ["role", "content", "reasoning_content"], USAGE),
        ({"tools": [WEATHER]}, ["role", "content", "reasoning_content", "tool_calls"], USAGE),
        ({"tools": [WEATHER], **OFF}, ["role", "content", "tool_calls"], PLAIN_USAGE),
    ],
)
def test_chat_body_has_the_recorded_keys_in_the_recorded_order(
    emulator: Emulator, more: dict[str, Any], message: list[str], usage: list[str]
) -> None:
    answer = send(emulator, PROVIDER, BOTH, ask(**more))
    body = answer.json
    assert answer.headers["content-type"] == "application/json"
    assert answer.body == json.dumps(body, separators=(",", ":")).encode()
    assert list(body) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert list(body["choices"][0]) == ["index", "message", "logprobs", "finish_reason"]
    assert list(body["choices"][0]["message"]) == message
    assert list(body["usage"]) == usage
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", body["id"])
    assert re.fullmatch(r"[0-9a-f]{32}", body["system_fingerprint"])


@pytest.mark.parametrize("more", [{}, OFF, {"tools": [WEATHER, CLOCK]}, {"max_tokens": 5}, {"logprobs": True}])
def test_chat_stream_adds_up_to_the_unstreamed_answer(emulator: Emulator, more: dict[str, Any]) -> None:
    text = "Use get_weather and get_time."
    whole = chat(emulator, text, **more)["choices"][0]
    answer = send(emulator, PROVIDER, BOTH, ask(text=text, stream=True, **more))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["transfer-encoding"] == "chunked"
    joined: dict[str, Any] = {"role": "assistant", "content": ""}
    probabilities: dict[str, list[Any]] = {}
    for event in answer.events:
        choice = event["choices"][0]
        for name, value in choice["delta"].items():
            if name == "tool_calls":
                calls = joined.setdefault("tool_calls", [])
                for piece in value:
                    if "id" in piece:
                        calls.append(piece)
                    else:
                        calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
            elif name in {"content", "reasoning_content"}:
                joined[name] = joined.get(name, "") + (value or "")
        for name, items in (choice["logprobs"] or {}).items():
            probabilities.setdefault(name, []).extend(items)
    assert joined == whole["message"]
    assert (probabilities or None) == whole["logprobs"]
    assert choice["finish_reason"] == whole["finish_reason"]


@pytest.mark.parametrize(
    ("more", "deltas"),
    [
        (
            {},
            [
                '{"role":"assistant","content":null,"reasoning_content":""}',
                '{"content":null,"reasoning_content":"No"}',
                '{"content":"This","reasoning_content":null}',
                '{"content":"","reasoning_content":null}',
            ],
        ),
        (OFF, ['{"role":"assistant","content":""}', '{"content":"This"}', '{"content":""}']),
        (
            OFF | {"tools": [CLOCK]},
            ['{"role":"assistant","content":""}', '{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}'],
        ),
    ],
)
def test_chat_stream_deltas_are_spelled_as_recorded(
    emulator: Emulator, more: dict[str, Any], deltas: list[str]
) -> None:
    events = send(emulator, PROVIDER, BOTH, ask(stream=True, **more)).events
    spelled = [json.dumps(event["choices"][0]["delta"], separators=(",", ":")) for event in events]
    assert spelled[0] == deltas[0]
    assert spelled[-1] == ('{"content":""}' if more else deltas[-1])
    assert set(deltas) <= set(spelled)
    assert all(list(event)[:6] == CHUNK for event in events)


@pytest.mark.parametrize(("more", "earlier"), [({}, set()), ({"stream_options": {"include_usage": True}}, {None})])
def test_usage_is_on_the_last_chunk_and_include_usage_only_adds_nulls(
    emulator: Emulator, more: dict[str, Any], earlier: set[None]
) -> None:
    *events, last = send(emulator, PROVIDER, BOTH, ask(stream=True, **more)).events
    assert {event["usage"] for event in events if "usage" in event} == earlier
    assert list(last["usage"]) == USAGE
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"] == chat(emulator)["usage"]


@pytest.mark.parametrize(("top", "listed"), [(None, 0), (0, 0), (2, 2)])
def test_logprobs_omit_kinds_that_have_no_tokens(emulator: Emulator, top: int | None, listed: int) -> None:
    asked = {"logprobs": True} | ({} if top is None else {"top_logprobs": top})
    found = chat(emulator, **asked)["choices"][0]["logprobs"]
    assert list(found) == ["content", "reasoning_content"]
    assert list(found["content"][0]) == ["token", "logprob", "bytes", "top_logprobs"]
    assert len(found["content"][0]["top_logprobs"]) == listed
    assert list(chat(emulator, max_tokens=2, **asked)["choices"][0]["logprobs"]) == ["reasoning_content"]
    assert list(chat(emulator, **asked, **OFF)["choices"][0]["logprobs"]) == ["content"]


def test_model_list_has_the_keys_documented_since_october_2026(emulator: Emulator) -> None:
    body = send(emulator, f"{HOST}/deepseek/models").json
    assert list(body) == ["object", "data"]
    assert [model["id"] for model in body["data"]] == ["deepseek-flash", "deepseek-v4-pro"]
    keys = ["id", "object", "owned_by", "name", "context_window", "max_output_tokens", "input_modalities"]
    keys += ["output_modalities", "effort", "api_capabilities"]
    assert [list(model) for model in body["data"]] == [keys, keys]


def test_balance_amounts_are_strings(emulator: Emulator) -> None:
    amounts = {"total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00"}
    expected = {"is_available": True, "balance_infos": [{"currency": "USD"} | amounts]}
    assert send(emulator, f"{HOST}/deepseek/user/balance").json == expected


def test_fill_in_the_middle_is_served_only_under_beta(emulator: Emulator) -> None:
    asked = {"model": "deepseek-flash", "prompt": "def f():", "suffix": "return 1", "max_tokens": 4}
    body = send(emulator, f"{HOST}/deepseek/beta/completions", BOTH, asked).json
    assert list(body) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert body["object"] == "text_completion"
    choice = {"text": "This is a canned", "index": 0, "logprobs": None, "finish_reason": "length"}
    assert list(body["choices"][0].items()) == list(choice.items())
    assert list(body["usage"]) == PLAIN_USAGE
    streamed = send(emulator, f"{HOST}/deepseek/beta/completions", BOTH, asked | {"stream": True}).events
    assert "".join(event["choices"][0]["text"] for event in streamed) == choice["text"]
    assert send(emulator, f"{HOST}/deepseek/completions", BOTH, asked).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/chat/completions", 405), ("POST", "/models", 405), ("GET", "/embeddings", 404), ("GET", "", 404)],
)
def test_unknown_endpoints_and_methods_are_refused_by_deepseek(
    emulator: Emulator, method: str, path: str, status: int
) -> None:
    assert send(emulator, f"{HOST}/deepseek{path}", method=method).status == status
    assert emulator.requests[-1].upstream is not None
