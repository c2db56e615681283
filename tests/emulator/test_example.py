"""The simplest value that fits a JSON schema, as tool arguments and as a `/responses` answer."""

import json
from typing import Any

import openai
import pytest
from emulated import BOTH, HOST, OFF, ask, chat, client_of, send
from pydantic import BaseModel

from deepseek_gateway.emulator import Emulator


def test_tool_arguments_fit_the_schema(emulator: Emulator) -> None:
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


def test_example_of_a_recursive_schema_is_as_short_as_possible(emulator: Emulator) -> None:
    with client_of(emulator) as client:
        asked: Any = {**ask(), "tools": [openai.pydantic_function_tool(Node)]}
        (call,) = client.chat.completions.create(**asked).choices[0].message.tool_calls or ()
        body: Any = {"model": "deepseek-flash", "input": "A list", "extra_body": OFF}
        parsed = client.responses.parse(**body, text_format=Node).output_parsed
    # Some versions of the SDK unfold the schema once before they send it.
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
def test_circular_enormous_or_invalid_schema_still_gets_an_answer(emulator: Emulator, schema: Any, answer: Any) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    body = {"model": "deepseek-flash", "input": "x", "text": form}
    response = send(emulator, f"{HOST}/deepseek/responses", BOTH, body)
    text = response.json["output"][-1]["content"][0]["text"]
    assert answer in (..., json.loads(text))
    chat(emulator, tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}])
