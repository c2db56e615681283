"""The table that translates OpenAI's dialect into DeepSeek's, row by row, without a connection."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from deepseek_gateway import GatewayConfig
from deepseek_gateway._adapt import CHAT, RESPONSES, adapt
from deepseek_gateway._model import body_to_send

PATH = "/chat/completions"
USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}, "required": ["größe"]}
FORM = {"type": "json_schema", "json_schema": {"name": "size", "strict": True, "schema": SCHEMA}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
CALLED = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get_weather"}}]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "sunny"}
ON, OFF = {"type": "enabled"}, {"type": "disabled"}
INSTRUCTION = {
    "role": "system",
    "content": "Answer with one JSON object that conforms to this JSON Schema, and with nothing else:\n"
    '{"type":"object","properties":{"größe":{"type":"integer"}},"required":["größe"]}',
}


def config(**settings: Any) -> GatewayConfig:
    return GatewayConfig(**{"account_id": "acct", "api_key": "the-key", "gateway_token": "the-token", **settings})


def body(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"model": "deepseek-flash", "messages": list(messages or (USER,)), **members}


# The columns are: settings, the body that the program sends, and the body that DeepSeek gets.
TRANSLATED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "developer": (
        {},
        body({"role": "developer", "content": "Be brief."}, USER),
        body({"role": "system", "content": "Be brief."}, USER),
    ),
    "max_completion_tokens": ({}, body(max_completion_tokens=5, stop="x"), body(max_tokens=5, stop="x")),
    "max_completion_tokens after a null": ({}, body(max_tokens=None, max_completion_tokens=5), body(max_tokens=5)),
    "max_completion_tokens before a null": ({}, body(max_completion_tokens=5, max_tokens=None), body(max_tokens=5)),
    "json_schema": ({}, body(response_format=FORM), body(INSTRUCTION, USER, response_format={"type": "json_object"})),
    "json_schema before system messages": (
        {},
        body({"role": "system", "content": "Be brief."}, USER, response_format=FORM),
        body(INSTRUCTION, {"role": "system", "content": "Be brief."}, USER, response_format={"type": "json_object"}),
    ),
    "json_schema without a schema": (
        {},
        body(response_format={"type": "json_schema", "json_schema": {}}),
        body(
            {**INSTRUCTION, "content": INSTRUCTION["content"].partition("\n")[0] + '\n{"type":"object"}'},
            USER,
            response_format={"type": "json_object"},
        ),
    ),
    "tool_choice required": (
        {},
        body(tools=TOOLS, tool_choice="required"),
        body(tools=TOOLS, tool_choice="required", thinking=OFF),
    ),
    "tool_choice of a function": (
        {},
        body(tools=TOOLS, tool_choice=NAMED),
        body(tools=TOOLS, tool_choice=NAMED, thinking=OFF),
    ),
    "tool_choice beats the configured thinking": (
        {"thinking": True},
        body(tools=TOOLS, tool_choice=NAMED),
        body(tools=TOOLS, tool_choice=NAMED, thinking=OFF),
    ),
    "tool_choice beside a null": (
        {},
        body(tools=TOOLS, tool_choice=NAMED, thinking=None, reasoning_effort=None),
        body(tools=TOOLS, tool_choice=NAMED, thinking=OFF, reasoning_effort=None),
    ),
    "thinking on": ({"thinking": True}, body(), body(thinking=ON)),
    "thinking off": ({"thinking": False}, body(tool_choice="auto"), body(tool_choice="auto", thinking=OFF)),
    "reasoning_content": (
        {},
        body(USER, CALLED, RESULT, tools=TOOLS),
        body(USER, {**CALLED, "reasoning_content": ""}, RESULT, tools=TOOLS),
    ),
    "reasoning_content is null": (
        {},
        body(USER, {**CALLED, "reasoning_content": None}, RESULT, tools=TOOLS, thinking=ON),
        body(USER, {**CALLED, "reasoning_content": ""}, RESULT, tools=TOOLS, thinking=ON),
    ),
    "reasoning_content with effort": (
        {},
        body(USER, CALLED, RESULT, tools=TOOLS, reasoning_effort="low"),
        body(USER, {**CALLED, "reasoning_content": ""}, RESULT, tools=TOOLS, reasoning_effort="low"),
    ),
}

# The columns are: settings, and a body that stays as it is.
KEPT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a plain question": ({}, body()),
    "max_tokens beside max_completion_tokens": ({}, body(max_tokens=9, max_completion_tokens=5)),
    "json_object": ({}, body(response_format={"type": "json_object"})),
    "a forced tool with thinking stated": ({}, body(tools=TOOLS, tool_choice=NAMED, thinking=ON)),
    "a forced tool with effort stated": ({}, body(tools=TOOLS, tool_choice="required", reasoning_effort="high")),
    "a forced tool with thinking off": ({}, body(tools=TOOLS, tool_choice="required", thinking=OFF)),
    "a tool that may be called": ({}, body(tools=TOOLS, tool_choice="auto")),
    "a tool that must not be called": ({}, body(tools=TOOLS, tool_choice="none")),
    "thinking stated against the setting": ({"thinking": True}, body(thinking=OFF)),
    "effort stated against the setting": ({"thinking": False}, body(reasoning_effort="high")),
    "thoughts that came back": ({}, body(USER, {**CALLED, "reasoning_content": "Hm."}, RESULT, tools=TOOLS)),
    "no thoughts, thinking off": ({}, body(USER, CALLED, RESULT, tools=TOOLS, thinking=OFF)),
    "no thoughts, effort none": ({}, body(USER, CALLED, RESULT, tools=TOOLS, reasoning_effort="none")),
    "no thoughts, configured off": (
        {"thinking": False},
        body(USER, CALLED, RESULT, tools=TOOLS, reasoning_effort="none"),
    ),
    "no thoughts, no tools": ({}, body(USER, CALLED, RESULT, tools=[])),
    "words of the dialect in a text": ({}, body({"role": "user", "content": 'Say "developer" and "tools".'})),
    "null in place of everything": (
        {},
        body(max_completion_tokens=None, response_format=None, tools=None, tool_choice=None),
    ),
}

# DeepSeek says best what is wrong with these.
MALFORMED = [
    body(messages=None, tools=TOOLS),
    body(messages="developer"),
    body(messages=["developer"], response_format=FORM),
    body(messages=[{"content": "developer"}], tools=TOOLS),
    body(response_format="json_schema"),
    body(response_format={"type": "json_schema"}),
    body(response_format={"type": "json_schema", "json_schema": []}),
    body(tools=TOOLS, thinking="on"),
]


@pytest.mark.parametrize("case", TRANSLATED)
def test_body_that_deepseek_would_refuse_is_translated_by_the_row_of_its_name(case: str) -> None:
    settings, given, expected = TRANSLATED[case]
    before = copy.deepcopy(given)
    assert adapt(given, config(**settings), CHAT) == (expected, (case.partition(" ")[0],))
    assert given == before


@pytest.mark.parametrize(("settings", "given", "_expected"), TRANSLATED.values(), ids=TRANSLATED)
def test_translated_body_is_not_translated_again(settings: Any, given: Any, _expected: Any) -> None:
    once, _ = adapt(given, config(**settings), CHAT)
    assert adapt(once, config(**settings), CHAT) == (once, ())


@pytest.mark.parametrize(("settings", "given", "_expected"), TRANSLATED.values(), ids=TRANSLATED)
def test_adapt_off_keeps_the_bytes_of_the_body(settings: Any, given: Any, _expected: Any) -> None:
    sent = json.dumps(given).encode()
    assert body_to_send(config(**settings, adapt=False), PATH, sent) == ((sent,), ())


@pytest.mark.parametrize(("settings", "given"), KEPT.values(), ids=KEPT)
def test_body_that_deepseek_accepts_keeps_its_bytes(settings: Any, given: Any) -> None:
    sent = json.dumps(given).encode()
    assert body_to_send(config(**settings), PATH, sent) == ((sent,), ())


@pytest.mark.parametrize("given", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_body_raises_nothing_and_keeps_its_other_members(given: Any) -> None:
    translated, _ = adapt(given, config(), CHAT)
    assert translated["model"] == "deepseek-flash"


def test_row_that_cannot_read_a_body_leaves_it_to_the_next_row() -> None:
    translated, names = adapt(body(messages=None, max_completion_tokens=5), config(), CHAT)
    assert (translated["max_tokens"], names) == (5, ("max_completion_tokens",))


def test_every_row_of_the_table_is_tested() -> None:
    assert {row.name for row in CHAT} == {name.partition(" ")[0] for name in TRANSLATED}


def test_several_rows_apply_to_one_body_in_the_order_of_the_table() -> None:
    given = body(
        {"role": "developer", "content": "x"},
        CALLED,
        RESULT,
        tools=TOOLS,
        response_format=FORM,
        max_completion_tokens=1,
    )
    translated, names = adapt(given, config(thinking=True), CHAT)
    assert names == ("developer", "max_completion_tokens", "json_schema", "thinking", "reasoning_content")
    assert [message["role"] for message in translated["messages"]] == ["system", "system", "assistant", "tool"]


def test_schema_instruction_begins_with_the_description_of_the_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "description": "A size in cm.", "schema": SCHEMA}}
    first = adapt(body(response_format=form), config(), CHAT)[0]["messages"][0]
    assert first["content"] == "A size in cm.\n" + INSTRUCTION["content"]


def test_schema_instruction_is_the_same_text_for_equal_calls() -> None:
    first, second = (
        b"".join(
            body_to_send(
                config(), PATH, json.dumps(body({"role": "user", "content": text}, response_format=FORM)).encode()
            )[0]
        )
        for text in ("One", "Two")
    )
    assert first[: first.index(b"One")] == second[: second.index(b"Two")]


class TestModel:
    """A name of OpenAI's is replaced by the configured model. Other names are left alone."""

    @pytest.mark.parametrize(
        "name", ["gpt-4o", "gpt-5.2-mini", "chatgpt-4o-latest", "o1", "o3-pro", "o4-mini", "codex-mini"]
    )
    @pytest.mark.parametrize("template", ['{"model":"%s","messages":[]}', '{"messages":[],"model":"%s"}'])
    @pytest.mark.parametrize(
        ("route", "expected"),
        [("provider", "deepseek-flash"), ("compat", "deepseek/deepseek-flash"), ("rest", "deepseek/deepseek-flash")],
    )
    def test_openai_name_becomes_the_configured_model(
        self, name: str, template: str, route: str, expected: str
    ) -> None:
        for path in (PATH, "/responses", "/beta/completions"):
            sent, names = body_to_send(config(route=route, model="deepseek-flash"), path, (template % name).encode())
            assert json.loads(b"".join(sent)) == {"model": expected, "messages": []}
            assert names == ("model",)

    @pytest.mark.parametrize("name", ["deepseek-v4-pro", "o1x", "gpt", "mygpt-4o", "ours"])
    def test_other_name_stays(self, name: str) -> None:
        given = json.dumps(body() | {"model": name}).encode()
        assert body_to_send(config(model="deepseek-flash"), PATH, given) == ((given,), ())

    def test_openai_name_stays_without_a_configured_model_or_with_adapt_off(self) -> None:
        given = json.dumps(body() | {"model": "gpt-4o"}).encode()
        for settings in ({}, {"model": "deepseek-flash", "adapt": False}):
            assert body_to_send(config(**settings), PATH, given) == ((given,), ())

    @pytest.mark.parametrize("route", ["compat", "rest"])
    @pytest.mark.parametrize(
        "name", ["openai/gpt-4o", "dynamic/support", "cloudflare/auto", "workers-ai/@cf/meta/llama"]
    )
    def test_model_of_another_provider_and_its_body_stay(self, route: str, name: str) -> None:
        given = body({"role": "developer", "content": "x"}, tools=TOOLS, tool_choice="required", response_format=FORM)
        sent = json.dumps(given | {"model": name}).encode()
        assert body_to_send(config(route=route, model="deepseek-flash", thinking=False), PATH, sent) == ((sent,), ())


@pytest.mark.parametrize("path", ["/beta/completions", "/chat/completions/x"])
def test_body_of_another_endpoint_stays(path: bytes) -> None:
    given = json.dumps(body(response_format=FORM, max_completion_tokens=5)).encode()
    assert body_to_send(config(thinking=False), path, given) == ((given,), ())


class TestResponses:
    """`/responses` speaks OpenAI's dialect. Only the configured thinking is translated."""

    @pytest.mark.parametrize(
        ("stated", "expected"),
        [
            ({}, {"reasoning": {"effort": "none"}}),
            ({"reasoning": None}, {"reasoning": {"effort": "none"}}),
            ({"reasoning": {"summary": "auto"}}, {"reasoning": {"summary": "auto", "effort": "none"}}),
        ],
        ids=["nothing stated", "null", "reasoning without effort"],
    )
    def test_thinking_off_becomes_effort_none(self, stated: Any, expected: Any) -> None:
        given = {"model": "deepseek-flash", "input": "Hi", "max_completion_tokens": 5, **stated}
        sent, names = body_to_send(config(thinking=False), "/responses", json.dumps(given).encode())
        assert json.loads(b"".join(sent)) == given | expected
        assert names == tuple(row.name for row in RESPONSES)

    @pytest.mark.parametrize(
        ("settings", "stated"),
        [
            ({"thinking": False}, {"reasoning": {"effort": "high"}}),
            ({"thinking": False}, {"thinking": ON}),
            ({"thinking": False, "adapt": False}, {}),
            ({"thinking": True}, {}),
            ({}, {"tool_choice": "required", "text": {"format": FORM}}),
        ],
        ids=["effort stated", "thinking stated", "adapt off", "thinking on, as by default", "nothing configured"],
    )
    def test_other_bodies_stay(self, settings: Any, stated: Any) -> None:
        given = json.dumps({"model": "deepseek-flash", "input": "Hi", **stated}).encode()
        assert body_to_send(config(**settings), "/responses", given) == ((given,), ())
