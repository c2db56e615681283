"""The emulator by plain HTTP, one table per rule; the service's documents are the other side of every row."""

import asyncio
import gc
import http.client
import itertools
import json
import math
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from emulated import (
    ACCOUNT,
    AI,
    BOTH,
    CLOCK,
    COMPAT,
    HOST,
    KEY,
    OFF,
    PROVIDER,
    REST,
    TOKEN,
    WEATHER,
    ask,
    chat,
    client_of,
    send,
)
from pydantic import BaseModel

from deepseek_gateway.emulator import Emulator, ReceivedRequest


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """One for all tests that leave nothing behind."""
    with Emulator() as running:
        yield running


# -- the gateway: URLs, authentication, credentials, model names ------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "model", "upstream_path"),
    [
        pytest.param(PROVIDER, BOTH, "deepseek-flash", "/chat/completions", id="provider"),
        pytest.param("/deepseek/chat/completions", BOTH, "deepseek-flash", "/chat/completions", id="provider, domain"),
        pytest.param(f"{HOST}/deepseek/v1/chat/completions", BOTH, "deepseek-flash", "/v1/chat/completions", id="v1"),
        pytest.param(
            f"{HOST}/deepseek/beta/chat/completions", BOTH, "deepseek-flash", "/beta/chat/completions", id="b"
        ),
        pytest.param(COMPAT, BOTH, "deepseek/deepseek-flash", "/chat/completions", id="compat"),
        pytest.param("/compat/chat/completions", BOTH, "deepseek/deepseek-flash", "/chat/completions", id="compat, d."),
        pytest.param(f"{AI}/chat/completions", REST, "deepseek/deepseek-flash", "/chat/completions", id="rest"),
        pytest.param(
            PROVIDER.replace("emulator-gateway", "default"), BOTH, "deepseek-flash", "/chat/completions", id="d"
        ),
        pytest.param(PROVIDER, TOKEN, "deepseek-flash", "/chat/completions", id="provider, stored key"),
        pytest.param(COMPAT, TOKEN, "deepseek/deepseek-flash", "/chat/completions", id="compat, stored key"),
    ],
)
def test_every_url_shape_reaches_deepseek_with_the_bare_model_and_the_deepseek_key_alone(
    path: str, headers: dict[str, str], model: str, upstream_path: str
) -> None:
    more = {"cf-aig-metadata": "{}", "cf-access-jwt-assertion": "x", "cf-skip-cache": "true", "user-agent": "me"}
    with Emulator() as emulator:
        answer = send(emulator, path, headers | more, ask(model))
        (received,) = emulator.requests
    assert answer.status == 200
    assert answer.json["model"] == "deepseek-flash"
    assert (received.method, received.path, received.json["model"]) == ("POST", path, model)
    assert "cf-aig-metadata" in received.headers
    assert received.upstream is not None
    assert (received.upstream.method, received.upstream.path) == ("POST", upstream_path)
    assert received.upstream.json == ask()
    assert dict(received.upstream.headers) == {
        "host": "api.deepseek.com",
        "accept-encoding": "identity",
        "user-agent": "me",
        "authorization": "Bearer emulator-deepseek-key",
        "content-length": str(len(received.upstream.body)),
    }


def test_bodies_pass_the_provider_route_byte_for_byte(emulator: Emulator) -> None:
    body = b'{ "model":"deepseek-flash",\n "messages":[{"role":"user","content":"\\u4e91 \xe4\xba\x91"}], "x":1e2 }'
    assert send(emulator, PROVIDER, BOTH, body).status == 200
    upstream = emulator.requests[-1].upstream
    assert upstream is not None
    assert upstream.body == emulator.requests[-1].body == body


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code", "message"),
    [
        (PROVIDER, KEY, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER, KEY | {"cf-aig-authorization": "Bearer no"}, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER, KEY | {"cf-aig-authorization": "emulator-gateway-token"}, ask(), 401, 2009, "Unauthorized"),
        (PROVIDER.replace("emulator-gateway", "default"), KEY, ask(), 401, 2009, "Unauthorized"),
        (
            "/v1/f00/emulator-gateway/deepseek/chat/completions",
            BOTH,
            ask(),
            400,
            2001,
            "Please configure AI Gateway in",
        ),
        (f"/v1/{ACCOUNT}/other/deepseek/chat/completions", BOTH, ask(), 400, 2001, "Please configure AI Gateway in"),
        (f"{HOST}/chat/completions", BOTH, ask(), 400, 2008, "Invalid provider"),
        (HOST, BOTH, ask(), 400, 2008, "Invalid provider"),
        ("/", BOTH, None, 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("nobody/flash"), 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("openai/gpt-5"), 400, 2005, "Failed to get response from provider"),
        (COMPAT, TOKEN, ask("workers-ai/@cf/meta/llama"), 400, 2005, "Failed to get response from provider"),
        (COMPAT, BOTH, ask("google-ai-studio/gemini"), 400, 2005, "Failed to get response from provider"),
        (f"{HOST}/openai/chat/completions", BOTH, ask(), 400, 2005, "Failed to get response from provider"),
        (f"{HOST}/openai/chat/completions", KEY, ask(), 401, 2009, "Unauthorized"),
        (f"{HOST}/google/chat/completions", BOTH, ask(), 400, 2008, "Invalid provider"),
        (COMPAT, BOTH, ask("deepseek-flash"), 400, 2019, "Chat completion bad format"),
        (COMPAT, BOTH, b"not json", 400, 2019, "Chat completion bad format"),
        (COMPAT, BOTH, {"messages": []}, 400, 2019, "Chat completion bad format"),
        (
            COMPAT + "/chat/completions",
            BOTH,
            ask(),
            400,
            2019,
            "Compatibility endpoint: chat/completions/chat/completi",
        ),
        (f"{HOST}/compat/responses", BOTH, ask(), 400, 2019, "Compatibility endpoint: responses is not supported."),
        (COMPAT, TOKEN, ask("dynamic/nowhere"), 400, 2005, "Failed to get response from provider"),
        (
            PROVIDER,
            TOKEN | {"cf-aig-byok-alias": "team"},
            ask(),
            400,
            2040,
            "Provider 'deepseek' has no BYOK credential",
        ),
    ],
)
def test_the_gateway_refuses_in_its_own_envelope_and_asks_nobody(
    emulator: Emulator, path: str, headers: dict[str, str], body: Any, status: int, code: int, message: str
) -> None:
    answer = send(emulator, path, headers, body)
    text = answer.json["message"]
    assert text.startswith(message)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")
    assert list(answer.json.items()) == [
        ("success", False),
        ("result", []),
        ("messages", []),
        ("error", [{"code": code, "message": text}]),
        ("name", "AiGatewayError"),
        ("httpCode", status),
        ("internalCode", code),
        ("message", text),
        ("description", text),
    ]
    assert emulator.requests[-1].upstream is None
    assert ("cf-aig-log-id" in answer.headers) == (code not in {2001, 2009})
    assert re.fullmatch(r"[0-9a-f]{16}-[A-Z]{3}", answer.headers["cf-ray"])


def test_an_unknown_alias_is_told_all_aliases() -> None:
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        answer = send(emulator, PROVIDER, TOKEN | {"cf-aig-byok-alias": "x"}, ask())
    expected = "Provider 'deepseek' has no BYOK credential named 'x'. Configured aliases: 'default', 'team'"
    assert answer.json["message"] == expected


@pytest.mark.parametrize(
    ("path", "headers", "model", "key"),
    [
        (PROVIDER, TOKEN, "deepseek-flash", "a-key"),
        (PROVIDER, TOKEN | {"cf-aig-byok-alias": "default"}, "deepseek-flash", "a-key"),
        (PROVIDER, TOKEN | {"cf-aig-byok-alias": "team"}, "deepseek-flash", "b-key"),
        (COMPAT, TOKEN, "deepseek/deepseek-flash", "a-key"),
        (COMPAT, TOKEN | {"cf-aig-byok-alias": "team"}, "deepseek/deepseek-flash", "a-key"),
        (COMPAT, TOKEN | {"cf-aig-byok-alias": "missing"}, "dynamic/support", "a-key"),
        (f"{AI}/chat/completions", REST | {"cf-aig-byok-alias": "team"}, "deepseek/deepseek-flash", "a-key"),
    ],
)
def test_the_alias_chooses_among_the_stored_keys_on_the_provider_route_only(
    path: str, headers: dict[str, str], model: str, key: str
) -> None:
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        assert send(emulator, path, headers, ask(model)).status == 200
        upstream = emulator.requests[0].upstream
    assert upstream is not None
    assert upstream.headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize(
    ("authorization", "told"),
    [
        ("Bearer placeholder", "Authentication Fails, Your api key: ****lder is invalid"),
        ("Bearer emulator-gateway-token", "Authentication Fails, Your api key: ****oken is invalid"),
        ("Bearer x", "Authentication Fails, Your api key: x is invalid"),
        ("Bearer ", "Authentication Fails (governor)"),
        ("", "Authentication Fails (governor)"),
    ],
)
@pytest.mark.parametrize(("path", "model"), [(PROVIDER, "deepseek-flash"), (COMPAT, "deepseek/deepseek-flash")])
def test_any_authorization_keeps_the_stored_key_out_and_goes_to_deepseek_as_it_is(
    emulator: Emulator, path: str, model: str, authorization: str, told: str
) -> None:
    answer = send(emulator, path, TOKEN | {"authorization": authorization}, ask(model))
    upstream = emulator.requests[-1].upstream
    assert upstream is not None
    assert upstream.headers["authorization"] == authorization.strip()
    assert answer.status == 401
    assert told in answer.body.decode()


@pytest.mark.parametrize(
    ("path", "model"),
    [(PROVIDER, "deepseek-flash"), (COMPAT, "deepseek/deepseek-flash"), (COMPAT, "dynamic/support")],
)
def test_the_token_alone_in_authorization_opens_the_gateway_and_stays_there(path: str, model: str) -> None:
    alone = {"authorization": "Bearer emulator-gateway-token"}
    with Emulator(stored_keys={"default": "a-key", "team": "b-key"}) as emulator:
        assert send(emulator, path, alone, ask(model)).status == 200
        upstream = emulator.requests[0].upstream
        assert upstream is not None
        assert upstream.headers["authorization"] == "Bearer a-key"
        assert emulator.requests[0].headers["authorization"] == alone["authorization"]
        refused = send(emulator, path, alone | {"cf-aig-authorization": "Bearer no"}, ask(model))
        assert refused.json["internalCode"] == 2009
        if path == PROVIDER:
            assert send(emulator, path, alone | {"cf-aig-byok-alias": "team"}, ask(model)).status == 200
            assert emulator.requests[-1].upstream is not None
            assert emulator.requests[-1].upstream.headers["authorization"] == "Bearer b-key"


@pytest.mark.parametrize(
    "options", [{"stored_keys": {}}, {"authenticated": False}], ids=["nothing stored", "authentication off"]
)
def test_without_any_credentials_deepseek_refuses_in_plain_text(options: dict[str, Any]) -> None:
    with Emulator(**options) as emulator:
        answer = send(emulator, PROVIDER, TOKEN, ask())
        upstream = emulator.requests[0].upstream
        forbidden = send(emulator, PROVIDER, TOKEN | {"cf-aig-no-wholesale": "true"}, ask())
        assert emulator.requests[1].upstream is None
    assert (answer.status, answer.body) == (401, b"Authentication Fails (governor)")
    assert "content-type" not in answer.headers
    assert upstream is not None
    assert "authorization" not in upstream.headers
    assert forbidden.status == 400


def test_without_authentication_the_token_is_optional_and_harmless() -> None:
    with Emulator(authenticated=False) as emulator:
        for headers in (KEY, BOTH, KEY | {"cf-aig-authorization": "Bearer no"}):
            assert send(emulator, PROVIDER, headers, ask()).status == 200
            assert send(emulator, COMPAT, headers, ask("deepseek/deepseek-flash")).status == 200


def test_a_prefixed_name_on_the_provider_route_is_refused_by_deepseek(emulator: Emulator) -> None:
    answer = send(emulator, PROVIDER, BOTH, ask("deepseek/deepseek-flash"))
    text = "The supported API model names are deepseek-flash, deepseek-v4-pro, but you passed deepseek/deepseek-flash."
    assert (answer.status, answer.headers["content-type"]) == (400, "application/octet-stream")
    assert answer.json["error"]["message"] == text


def test_dynamic_routes_say_which_model_answered() -> None:
    with Emulator(dynamic_routes={"cheap": "deepseek-v4-pro"}) as emulator:
        answer = send(emulator, COMPAT, TOKEN, ask("dynamic/cheap"))
        assert send(emulator, PROVIDER, TOKEN, ask("dynamic/cheap")).json["error"]["message"].endswith("dynamic/cheap.")
    assert answer.json["model"] == "deepseek-v4-pro"
    assert (answer.headers["cf-aig-model"], answer.headers["cf-aig-provider"]) == ("deepseek-v4-pro", "deepseek")


@pytest.mark.parametrize("options", [{"authenticated": False}, {"stored_keys": {}}])
def test_dynamic_routes_need_authentication_and_a_stored_key(options: dict[str, Any]) -> None:
    with Emulator(**options) as emulator:
        assert send(emulator, COMPAT, TOKEN, ask("dynamic/support")).json["internalCode"] == 2005


def test_compat_lists_models_with_their_prefix_to_whoever_has_credentials(emulator: Emulator) -> None:
    models = send(emulator, f"{HOST}/compat/models", TOKEN).json["data"]
    assert [model["id"] for model in models] == ["deepseek/deepseek-flash", "deepseek/deepseek-v4-pro"]
    assert send(emulator, f"{HOST}/compat/models", {}).status == 401
    with Emulator(authenticated=False) as open_gateway:
        assert send(open_gateway, f"{HOST}/compat/models", {}).status == 401
        assert send(open_gateway, f"{HOST}/compat/models", KEY).status == 200


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "code", "message"),
    [
        ("/chat/completions", {}, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/chat/completions", KEY, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/chat/completions", TOKEN, ask("deepseek/deepseek-flash"), 401, 10000, "Authentication error"),
        ("/models", REST, None, 405, 7001, "GET not supported for requested URI."),
        ("/chat/completions", REST, None, 405, 7001, "GET not supported for requested URI."),
        ("/embeddings", REST, {}, 404, 7000, "No route for that URI"),
        ("/chat/completions", REST, ask("deepseek-flash"), 404, 7003, "Model not found: deepseek-flash"),
        ("/chat/completions", REST, ask("deepseek/nothing"), 404, 7003, "Model not found: deepseek/nothing"),
        ("/chat/completions", REST, ask("dynamic/support"), 404, 7003, "Model not found: dynamic/support"),
        (
            "/chat/completions",
            REST | {"cf-aig-gateway-id": "other"},
            ask("deepseek/deepseek-flash"),
            400,
            2001,
            "Please configure AI Gateway in the Cloudflare dashboard",
        ),
    ],
)
def test_the_rest_api_refuses_with_plural_errors(
    emulator: Emulator, path: str, headers: dict[str, str], body: Any, status: int, code: int, message: str
) -> None:
    answer = send(emulator, AI + path, headers, body)
    assert answer.status == status
    assert list(answer.json.items()) == [
        ("success", False),
        ("errors", [{"code": code, "message": message}]),
        ("messages", []),
        ("result", None),
    ]
    assert emulator.requests[-1].upstream is None


def test_the_rest_api_consults_only_the_stored_key_called_default() -> None:
    named = {"cf-aig-gateway-id": "emulator-gateway", "cf-aig-byok-alias": "team"}
    with Emulator(stored_keys={"team": "b-key"}) as emulator:
        answer = send(emulator, f"{AI}/responses", REST | named, {"model": "deepseek/deepseek-flash", "input": "x"})
    assert (answer.status, answer.json["errors"][0]["code"]) == (402, 2021)


def test_a_logged_answer_carries_the_headers_of_gateway_and_deepseek(emulator: Emulator) -> None:
    first, second = (send(emulator, PROVIDER, BOTH, ask()).headers for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first["cf-aig-log-id"])
    assert first["cf-aig-log-id"] == first["cf-aig-request-id"] == first["cf-aig-event-id"] < second["cf-aig-log-id"]
    assert (first["cf-aig-step"], first["server"]) == ("0", "cloudflare")
    assert re.fullmatch(r"[0-9a-f]{32}", first["x-ds-trace-id"])
    assert first["x-ds-trace-id"] != second["x-ds-trace-id"]
    assert first["cf-ray"] != second["cf-ray"]
    assert send(emulator, PROVIDER, BOTH | {"cf-aig-event-id": "mine"}, ask()).headers["cf-aig-event-id"] == "mine"


# -- DeepSeek: the shapes of its answers -------------------------------------------------------------------------------

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
def test_a_chat_answer_has_the_recorded_keys_in_the_recorded_order(
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


def test_the_answer_names_the_emulator_and_repeats_the_question_whatever_its_script(emulator: Emulator) -> None:
    message = chat(emulator, "Was ist 云 🚀 naïveté?")["choices"][0]["message"]
    assert message["content"] == (
        "This is a canned answer from the local AI Gateway emulator. You asked: Was ist 云 🚀 naïveté?"
    )
    assert message["reasoning_content"] == "No model runs here, so a canned answer has to do."


def test_the_same_request_has_the_same_answer_in_every_emulator(emulator: Emulator) -> None:
    with Emulator(port=0) as other:
        assert send(emulator, PROVIDER, BOTH, ask()).body == send(other, PROVIDER, BOTH, ask()).body
    assert chat(emulator, "one")["id"] != chat(emulator, "two")["id"]


@pytest.mark.parametrize("more", [{}, OFF, {"tools": [WEATHER, CLOCK]}, {"max_tokens": 5}, {"logprobs": True}])
def test_a_stream_is_the_plain_answer_token_by_token(emulator: Emulator, more: dict[str, Any]) -> None:
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
def test_stream_deltas_are_spelled_as_recorded(emulator: Emulator, more: dict[str, Any], deltas: list[str]) -> None:
    events = send(emulator, PROVIDER, BOTH, ask(stream=True, **more)).events
    spelled = [json.dumps(event["choices"][0]["delta"], separators=(",", ":")) for event in events]
    assert spelled[0] == deltas[0]
    assert spelled[-1] == ('{"content":""}' if more else deltas[-1])
    assert set(deltas) <= set(spelled)
    assert all(list(event)[:6] == CHUNK for event in events)


@pytest.mark.parametrize(("more", "earlier"), [({}, set()), ({"stream_options": {"include_usage": True}}, {None})])
def test_usage_rides_on_the_last_chunk_and_include_usage_only_adds_nulls(
    emulator: Emulator, more: dict[str, Any], earlier: set[None]
) -> None:
    *events, last = send(emulator, PROVIDER, BOTH, ask(stream=True, **more)).events
    assert {event["usage"] for event in events if "usage" in event} == earlier
    assert list(last["usage"]) == USAGE
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"] == chat(emulator)["usage"]


def test_token_counts_add_up_and_hits_come_in_blocks_of_128(emulator: Emulator) -> None:
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
def test_retired_names_are_served_by_flash_under_its_name(emulator: Emulator, asked: str, served: str) -> None:
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
def test_limits_cut_thinking_and_text_and_stop_words_cut_text(
    emulator: Emulator, more: dict[str, Any], content: str, reason: str
) -> None:
    choice = chat(emulator, **more)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)


@pytest.mark.parametrize(("limit", "arguments"), [(1, ""), (4, '{"city'), (99, '{"city": "example"}')])
def test_limits_cut_the_arguments_of_a_tool_call_too(emulator: Emulator, limit: int, arguments: str) -> None:
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
def test_the_tools_that_the_text_names_are_called_or_else_the_first(
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


def test_a_tools_result_becomes_the_answer(emulator: Emulator) -> None:
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


def test_arguments_fit_the_schema(emulator: Emulator) -> None:
    node = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["leaf", "branch"]},
            "size": {"type": "integer", "minimum": 3},
            "deep": {"type": ["boolean", "null"]},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "more": {"type": "array", "items": {"$ref": "#/$defs/leaf"}},
            "skipped": {"type": "string"},
        },
        "required": ["kind", "size", "deep", "note", "tags", "more"],
        "$defs": {"leaf": {"type": "object", "properties": {"weight": {"type": "number"}}, "required": ["weight"]}},
    }
    tree = {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {}, "required": ["kids"]}}}
    tree["$defs"]["tree"]["properties"] = {"kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}  # type: ignore[index]
    for schema in (node, tree):
        tool = {"type": "function", "function": {"name": "grow", "parameters": schema}}
        call = chat(emulator, tools=[tool])["choices"][0]["message"]["tool_calls"][0]
        arguments = json.loads(call["function"]["arguments"])
        assert list(arguments) == schema.get("required", ["kids"])
        if schema is node:
            expected = ["leaf", 3, True, None, ["example", "example"], [{"weight": 1}]]
            assert list(arguments.values()) == expected


class Node(BaseModel):
    value: int
    next: "Node | None"
    kids: list["Node"]


LEAF = Node(value=1, next=None, kids=[])


def test_schemas_that_contain_themselves_end_as_early_as_they_may(emulator: Emulator) -> None:
    with client_of(emulator) as client:
        asked: Any = {**ask(), "tools": [openai.pydantic_function_tool(Node)]}
        (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls or ()
        body: Any = {"model": "deepseek-flash", "input": "A list", "extra_body": OFF}
        parsed = client.responses.parse(**body, text_format=Node).output_parsed
    # SDKs may unfold the schema once before they send it.
    for node in (parsed, Node.model_validate_json(call.function.arguments)):  # type: ignore[union-attr]
        assert node is not None
        assert LEAF in (node, node.next)


REF: Any = {"$ref": "#/$defs/A"}
FAN = {
    str(n): {"required": ["a", "b"], "properties": {k: {"$ref": f"#/$defs/{n + 1}"} for k in "ab"}} for n in range(40)
}


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        pytest.param({**REF, "$defs": {"A": REF}}, {}, id="a reference to itself"),
        pytest.param({**REF, "$defs": {"A": {"$ref": "#/$defs/B"}, "B": REF}}, {}, id="a circle"),
        pytest.param({"required": ["a"], "properties": {"a": {"$ref": "#"}}}, {}, id="the root in the root"),
        pytest.param({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, None, id="the root or null"),
        pytest.param(
            {
                **REF,
                "$defs": {
                    "A": {"required": ["x"], "properties": {"x": {"anyOf": [{"$ref": "#/$defs/B"}, {"const": 7}]}}},
                    "B": {"required": ["y"], "properties": {"y": REF}},
                },
            },
            {"x": 7},
            id="an alternative that leads back",
        ),
        pytest.param({**REF, "$defs": {"A": {"type": "array", "items": REF, "minItems": 1}}}, {}, id="no end"),
        pytest.param({"$ref": "#/$defs/0", "$defs": FAN}, {}, id="too many values"),
        pytest.param({"type": "array", "minItems": 10**9}, {}, id="too many items"),
        pytest.param({"type": "array", "minItems": "x"}, ["example"], id="minItems"),
        pytest.param({"type": "array", "minItems": 1e400, "items": 1}, ["example"], id="infinite"),
        pytest.param({"type": "integer", "minimum": "x"}, 1, id="minimum"),
        pytest.param({"type": {}}, "example", id="type"),
        pytest.param({"type": [["x"]]}, "example", id="types"),
        pytest.param({"type": "object", "required": [{}, "a"], "properties": 3}, ..., id="required"),
        pytest.param({"anyOf": [1]}, "example", id="anyOf"),
        pytest.param({"$ref": 5}, ..., id="$ref"),
        pytest.param({"$ref": "#/nowhere"}, "example", id="a reference to nothing"),
    ],
)
def test_no_schema_is_too_much_for_an_answer(emulator: Emulator, schema: Any, answer: Any) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    body = {"model": "deepseek-flash", "input": "x", "text": form}
    response = send(emulator, f"{HOST}/deepseek/responses", BOTH, body)
    text = response.json["output"][-1]["content"][0]["text"]
    assert answer in (..., json.loads(text))
    chat(emulator, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])


def test_json_mode_answers_json(emulator: Emulator) -> None:
    body = chat(emulator, 'Answer in JSON: "yes"?', response_format={"type": "json_object"})
    answer = json.loads(body["choices"][0]["message"]["content"])
    assert list(answer) == ["answer", "question"]
    assert answer["question"] == 'Answer in JSON: "yes"?'


@pytest.mark.parametrize(("top", "listed"), [(None, 0), (0, 0), (2, 2)])
def test_logprobs_exist_only_for_the_kinds_of_token_that_exist(
    emulator: Emulator, top: int | None, listed: int
) -> None:
    asked = {"logprobs": True} | ({} if top is None else {"top_logprobs": top})
    found = chat(emulator, **asked)["choices"][0]["logprobs"]
    assert list(found) == ["content", "reasoning_content"]
    assert list(found["content"][0]) == ["token", "logprob", "bytes", "top_logprobs"]
    assert len(found["content"][0]["top_logprobs"]) == listed
    assert list(chat(emulator, max_tokens=2, **asked)["choices"][0]["logprobs"]) == ["reasoning_content"]
    assert list(chat(emulator, **asked, **OFF)["choices"][0]["logprobs"]) == ["content"]


def test_models_are_listed_in_the_shape_of_autumn_2026(emulator: Emulator) -> None:
    body = send(emulator, f"{HOST}/deepseek/models").json
    assert list(body) == ["object", "data"]
    assert [model["id"] for model in body["data"]] == ["deepseek-flash", "deepseek-v4-pro"]
    keys = ["id", "object", "owned_by", "name", "context_window", "max_output_tokens", "input_modalities"]
    keys += ["output_modalities", "effort", "api_capabilities"]
    assert [list(model) for model in body["data"]] == [keys, keys]


def test_the_balance_is_made_of_strings(emulator: Emulator) -> None:
    amounts = {"total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00"}
    expected = {"is_available": True, "balance_infos": [{"currency": "USD"} | amounts]}
    assert send(emulator, f"{HOST}/deepseek/user/balance").json == expected


def test_fill_in_the_middle_exists_under_beta_only(emulator: Emulator) -> None:
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


# -- /responses ----------------------------------------------------------------------------------------------------


def test_the_sdk_reads_responses(emulator: Emulator) -> None:
    # openai 1.66 knows no thinking in a streamed response, and then no type of it at all; so there is none here.
    asked: Any = {"model": "deepseek-flash", "input": "Hi", "extra_body": OFF}
    with client_of(emulator) as client:
        response = client.responses.create(**asked)
        *_, last = events = list(client.responses.create(**asked, stream=True))
    assert (response.status, [item.type for item in response.output]) == ("completed", ["message"])
    assert response.output_text.endswith("You asked: Hi")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert last.type == "response.completed"
    assert last.response.output_text == "".join(deltas) == response.output_text


def test_responses_are_streamed_as_named_and_numbered_events(emulator: Emulator) -> None:
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
def test_responses_call_tools_and_use_their_results(emulator: Emulator, stream: bool) -> None:
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


def test_responses_know_json_schemas_limits_and_no_thinking(emulator: Emulator) -> None:
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    asked = {"model": "deepseek-flash", "input": "1+1", "reasoning": {"effort": "none"}}
    form = {"format": {"type": "json_schema", "name": "sum", "schema": schema}}
    body = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked | {"text": form}).json
    assert [item["type"] for item in body["output"]] == ["message"]
    assert json.loads(body["output"][0]["content"][0]["text"]) == {"sum": 1}
    cut = send(emulator, f"{HOST}/deepseek/responses", BOTH, asked | {"max_output_tokens": 2}).json
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


# -- DeepSeek: its errors -------------------------------------------------------------------------------------------

OCTETS, JSON_TYPE = "application/octet-stream", "application/json"
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
def test_odd_requests_are_answered_by_deepseek_and_not_by_a_crash(
    emulator: Emulator, path: str, more: dict[str, Any]
) -> None:
    odd = ask(input="x", prompt="x") | more
    assert send(emulator, f"{HOST}/deepseek{path}", BOTH, odd).status in {200, 400}
    odd["model"] = "deepseek/deepseek-flash"
    assert send(emulator, COMPAT, BOTH, odd).status in {200, 400}


def test_a_wrong_key_comes_back_with_its_last_four_characters(emulator: Emulator) -> None:
    answer = send(emulator, PROVIDER, TOKEN | {"authorization": "Bearer a-wrong-key"}, ask())
    assert answer.body == (
        b'{"error":{"message":"Authentication Fails, Your api key: ****-key is invalid",'
        b'"type":"authentication_error","param":null,"code":"invalid_request_error"}}'
    )
    assert (answer.status, len(answer.body), answer.headers["content-type"]) == (401, 153, JSON_TYPE)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/chat/completions", 405), ("POST", "/models", 405), ("GET", "/embeddings", 404), ("GET", "", 404)],
)
def test_unknown_endpoints_and_methods_are_deepseeks_to_refuse(
    emulator: Emulator, method: str, path: str, status: int
) -> None:
    assert send(emulator, f"{HOST}/deepseek{path}", method=method).status == status
    assert emulator.requests[-1].upstream is not None


# -- failures on demand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code", "message"),
    [
        (400, "invalid_request_error", "invalid_request_error", "Content Exists Risk"),
        (
            401,
            "authentication_error",
            "invalid_request_error",
            "Authentication Fails, Your api key: ****-key is invalid",
        ),
        (402, "unknown_error", "invalid_request_error", "Insufficient Balance"),
        (429, "rate_limit_error", "invalid_request_error", "Too many requests. Your current concurrency is 26, which "),
        (500, "server_error", "server_error", "Server error"),
        (
            503,
            "service_unavailable_error",
            "service_unavailable_error",
            "Service is too busy. We advise users to tempor",
        ),
    ],
)
def test_deepseek_fails_on_demand(emulator: Emulator, status: int, kind: str, code: str, message: str) -> None:
    emulator.fail_next(status=status)
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert answer.status == status
    assert answer.json["error"]["message"].startswith(message)
    assert list(answer.json["error"].items())[1:] == [("type", kind), ("param", None), ("code", code)]
    assert "retry-after" not in answer.headers
    assert emulator.requests[-1].upstream is not None
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200


def test_failures_come_in_the_order_in_which_they_were_asked_for(emulator: Emulator) -> None:
    emulator.fail_next(status=503, times=2)
    emulator.fail_next(2003, message="Slow down", status=430)
    emulator.fail_next(9999, status=418, message="New")
    answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(5)]
    assert [answer.status for answer in answers] == [503, 503, 430, 418, 200]
    assert [answer.json["error"][0] for answer in answers[2:4]] == [
        {"code": 2003, "message": "Slow down"},
        {"code": 9999, "message": "New"},
    ]


# -- the server -----------------------------------------------------------------------------------------------------


def test_it_stops_at_once_with_connections_open() -> None:
    threads = threading.active_count()
    with Emulator() as emulator:
        address = ("127.0.0.1", int(emulator.url.rpartition(":")[2]))
        with socket.create_connection(address) as idle, socket.create_connection(address) as half:
            half.sendall(b"POST /deepseek/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            send(emulator, "/")
            begun = time.perf_counter()
            emulator.__exit__(None, None, None)
            assert time.perf_counter() - begun < 0.5
            assert (idle.recv(1), half.recv(1)) == (b"", b"")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(address)
    assert threading.active_count() == threads


def test_connections_that_are_just_being_made_are_closed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    left_over: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: left_over.append(repr(said.exc_value)))
    for attempt in range(40):
        with Emulator() as emulator:
            client = socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2])))
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            time.sleep(attempt % 8 * 0.0001)
        client.close()
    gc.collect()
    assert left_over == []


def test_it_says_so_when_it_cannot_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, released = threading.Event(), threading.Event()

    async def never(*_: object) -> None:
        begun.set()
        released.wait()
        await asyncio.sleep(math.inf)

    monkeypatch.setattr("deepseek_gateway.emulator._server._LONGEST_STOP", 0.1)
    monkeypatch.setattr("deepseek_gateway.emulator._gateway.Gateway.answer", never)
    before = set(threading.enumerate())
    emulator = Emulator().__enter__()
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert begun.wait(5)
        with pytest.raises(RuntimeError, match="did not stop within"):
            emulator.__exit__(None, None, None)
    released.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()


def test_a_fault_of_its_own_is_told_as_such_and_raised_at_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("a mistake in here")

    monkeypatch.setattr("deepseek_gateway.emulator._deepseek.DeepSeek.answer", fail)
    emulator = Emulator()
    with pytest.raises(RuntimeError, match=r"its own fault.* 2 time.* LookupError: a mistake") as caught, emulator:
        answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(2)]
    assert isinstance(caught.value.__cause__, LookupError)
    assert [(answer.status, answer.headers["x-emulator-fault"]) for answer in answers] == [(500, "1")] * 2
    assert answers[0].headers["content-type"].startswith("text/plain")
    assert b"The emulator itself failed to answer" in answers[0].body
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []

    with pytest.raises(KeyError, match="absent") as other, emulator:
        _ = send(emulator, PROVIDER, BOTH, ask()).headers["absent"]
    assert "its own fault" in other.value.__notes__[0]

    async def main() -> None:
        async with emulator:
            await asyncio.to_thread(send, emulator, PROVIDER, BOTH, ask())

    with pytest.raises(RuntimeError, match="its own fault"):
        asyncio.run(main())
    with emulator:
        assert send(emulator, "/").status == 400


def test_a_fault_of_its_own_while_an_answer_is_sent_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Iterator[Any]:
        yield b"{", 0.0
        raise LookupError("a mistake in here")

    monkeypatch.setattr("deepseek_gateway.emulator._server._pieces", fail)
    with (
        pytest.raises(RuntimeError, match="LookupError"),
        Emulator() as emulator,
        pytest.raises(http.client.IncompleteRead),
    ):
        send(emulator, PROVIDER, BOTH, ask())


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"account_id": ""}, ValueError),
        ({"account_id": "a/b"}, ValueError),
        ({"gateway_id": "a/b"}, ValueError),
        ({"gateway_id": 1}, TypeError),
        ({"api_key": "two words"}, ValueError),
        ({"api_key": None}, TypeError),
        ({"gateway_token": "ключ"}, ValueError),
        ({"stored_keys": "a-key"}, TypeError),
        ({"stored_keys": {"default": None}}, TypeError),
        ({"stored_keys": {"default": "a\nb"}}, ValueError),
        ({"dynamic_routes": ["support"]}, TypeError),
        ({"dynamic_routes": {"support": 1}}, TypeError),
        ({"cache_ttl": -1}, ValueError),
        ({"cache_ttl": "60"}, TypeError),
        ({"rate_limit": 5}, TypeError),
        ({"rate_limit": (5,)}, TypeError),
        ({"rate_limit": (5, 0)}, ValueError),
        ({"rate_limit": (5, "60")}, TypeError),
        ({"spend_limit": (-1, 60)}, ValueError),
        ({"spend_limit": "12"}, TypeError),
        ({"guardrails": "bomb"}, TypeError),
        ({"guardrails": [1]}, TypeError),
        ({"guardrails": [""]}, ValueError),
        ({"dlp": "bomb"}, TypeError),
        ({"dlp": {"bomb": "block"}}, ValueError),
        ({"dlp": {"bomb": None}}, TypeError),
        ({"latency": -0.1}, ValueError),
        ({"latency": math.nan}, ValueError),
        ({"latency": None}, TypeError),
        ({"port": 65536}, ValueError),
        ({"port": "80"}, TypeError),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence_without_their_value(
    wrong: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"^[A-Z].* .*[.]$") as caught:
        Emulator(**wrong)
    assert type(caught.value) is kind
    assert not any(secret in str(caught.value) for secret in ("two words", "ключ", "a-key"))


def test_it_runs_once_at_a_time_and_can_run_again() -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not running"):
        _ = emulator.url
    with emulator, pytest.raises(RuntimeError, match="already"):
        emulator.__enter__()
    with emulator:
        assert send(emulator, "/").status == 400


def test_a_port_that_is_taken_is_an_error_in_the_caller() -> None:
    with Emulator() as emulator:
        port = int(emulator.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), Emulator(port=port):
            pass
    with Emulator(port=port) as again:
        assert again.url.endswith(f":{port}")


def test_many_run_at_once_and_keep_apart() -> None:
    emulators = [Emulator(api_key=f"key-{number}") for number in range(20)]
    for emulator in emulators:
        emulator.__enter__()
    try:
        for number, emulator in enumerate(emulators):
            headers = TOKEN | {"authorization": f"Bearer key-{number}"}
            assert [send(each, PROVIDER, headers, ask()).status for each in emulators[:3]].count(200) == (number < 3)
            assert send(emulator, PROVIDER, headers, ask()).status == 200
    finally:
        for emulator in emulators:
            emulator.__exit__(None, None, None)


def test_async_with_serves_too() -> None:
    async def main() -> int:
        async with Emulator() as emulator:
            return (await asyncio.to_thread(send, emulator, PROVIDER, BOTH, ask())).status

    assert asyncio.run(main()) == 200


def test_it_logs_nothing(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    send(emulator, PROVIDER, BOTH, ask())
    with Emulator() as other:
        send(other, "/")
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_received_requests_keep_what_came_and_show_no_secret() -> None:
    with Emulator() as emulator:
        send(emulator, PROVIDER + "?a=%C3%A4&b", BOTH, b"\xff not json", "PUT")
        (received,) = emulator.requests
        emulator.requests.clear()
        assert emulator.requests == []
    assert isinstance(received, ReceivedRequest)
    assert (received.method, received.path, received.query) == ("PUT", PROVIDER, "a=%C3%A4&b")
    assert (received.body, received.json) == (b"\xff not json", None)
    assert received.headers["CF-AIG-Authorization"] == received.headers["cf-aig-authorization"]
    assert received.upstream is not None
    assert received.upstream.query == "a=%C3%A4&b"
    assert "emulator-deepseek-key" not in repr(received)
    assert "emulator-gateway-token" not in repr(received)


def test_importing_the_emulator_loads_neither_openai_nor_the_clients_of_this_library() -> None:
    code = (
        "import sys, deepseek_gateway; before = set(sys.modules); import deepseek_gateway.emulator\n"
        "new = {name for name in set(sys.modules) - before if name.split('.')[0] in {'deepseek_gateway', 'openai'}}\n"
        "assert all(name.startswith('deepseek_gateway.emulator') for name in new), new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("route", ["provider", "compat", "rest"])
def test_config_reaches_the_emulator_on_every_route(emulator: Emulator, route: Any) -> None:
    config = emulator.config(route)
    ending = {"provider": f"{HOST}/deepseek", "compat": f"{HOST}/compat", "rest": AI}[route]
    assert config.base_url == emulator.url + ending
    assert (config.route, config.gateway_id, config.account_id) == (route, "emulator-gateway", ACCOUNT)
    assert (config.api_key, config.gateway_token) == ("emulator-deepseek-key", "emulator-gateway-token")


def test_config_takes_overrides_into_the_url(emulator: Emulator) -> None:
    assert f"/v1/{'f' * 32}/other/deepseek" in emulator.config(account_id="f" * 32, gateway_id="other").base_url
    assert emulator.config(endpoint="http://localhost:1").base_url == "http://localhost:1/deepseek"
    assert emulator.config(api_key=None).api_key is None
