"""The smallest value that fits a JSON schema: as JSON in chat and in `/responses`, and as the arguments of tools."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address
from time import process_time
from typing import Annotated, Any, Literal
from uuid import UUID

import openai
import pytest
from emulated import BOTH, HOST, OFF, ask, chat, client_of, send
from openai.lib._pydantic import to_strict_json_schema
from pydantic import UUID4, AnyUrl, BaseModel, Field, create_model

from deepseek_gateway.emulator import Emulator
from deepseek_gateway.emulator._schema import schema_in, smallest

JSON_MODE: Any = {"response_format": {"type": "json_object"}}


@pytest.fixture(scope="module")
def client(emulator: Emulator) -> Iterator[openai.OpenAI]:
    with client_of(emulator) as bare:
        yield bare


def asked(system: object) -> Any:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "In JSON!"}]
    return ask() | {"messages": messages, **JSON_MODE}


def answer(client: openai.OpenAI, system: object) -> str:
    """Return the answer in JSON mode to a system message."""
    return client.chat.completions.create(**asked(system)).choices[0].message.content or ""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Size(IntEnum):
    LARGE = 3


class Point(BaseModel):
    x: float
    y: float


class Circle(BaseModel):
    kind: Literal["circle"]
    centre: Point


class Square(BaseModel):
    kind: Literal["square"]
    side: Annotated[int, Field(gt=0)]


class Node(BaseModel):
    value: int
    next: "Node | None"
    kids: list["Node"]


class Sum(BaseModel):
    terms: Annotated[list["int | Sum"], Field(min_length=2)]


class Folder(BaseModel):
    entry: "Folder | File"


class File(BaseModel):
    folders: dict[str, Folder]


LEAF = Node(value=1, next=None, kids=[])


# What a model's field may be, and its smallest value.
FIELDS: dict[str, tuple[Any, Any]] = {
    "string": (str, "example"),
    "integer": (int, 1),
    "float": (float, 1),
    "boolean": (bool, True),
    "null": (None, None),
    "anything": (Any, "example"),
    "model": (Point, Point(x=1, y=1)),
    "optional model": (Point | None, Point(x=1, y=1)),
    "list": (list[Point], []),
    "list with a least length": (Annotated[list[Point], Field(min_length=2)], [Point(x=1, y=1)] * 2),
    "tuple": (tuple[int, str], (1, "example")),
    "dictionary": (dict[str, Point], {}),
    "dictionary with a least length": (Annotated[dict[str, int], Field(min_length=2)], {"0": 1, "1": 1}),
    "literals": (Literal["b", "a"], "b"),
    "one literal": (Literal[7], 7),
    "null or a literal": (None | Literal[7], None),
    "enum": (Colour, Colour.RED),
    "enum of one integer": (Size, Size.LARGE),
    "enum with a description": (Annotated[Colour, Field(description="sky")], Colour.RED),
    "union": (int | str, 1),
    "discriminated union": (Annotated[Square | Circle, Field(discriminator="kind")], Square(kind="square", side=1)),
    "union in a list in a union": (list[Circle | Square] | Circle, []),
    "model that contains itself": (Node, LEAF),
    "list that contains itself": (Sum, Sum(terms=[1, 1])),
    "models that contain each other": (Folder, Folder(entry=File(folders={}))),
    "at least": (Annotated[int, Field(ge=-3)], -3),
    "more than": (Annotated[int, Field(gt=5)], 6),
    "at most": (Annotated[int, Field(le=-2)], -2),
    "multiple below": (Annotated[int, Field(lt=0, multiple_of=7)], -7),
    "multiple above": (Annotated[int, Field(ge=10, multiple_of=4)], 12),
    "between": (Annotated[float, Field(gt=0.25, lt=0.75)], 0.5),
    "string with a least length": (Annotated[str, Field(min_length=9)], "exampleex"),
    "string with a greatest length": (Annotated[str, Field(max_length=2)], "ex"),
    "date": (date, date(2026, 11, 1)),
    "datetime": (datetime, datetime(2026, 11, 1, tzinfo=UTC)),
    "time": (time, time(tzinfo=UTC)),
    "duration": (timedelta, timedelta(days=1)),
    "decimal": (Decimal, Decimal(1)),
    "UUID": (UUID, UUID("00000000-0000-4000-8000-000000000000")),
    "UUID of version 4": (UUID4, UUID("00000000-0000-4000-8000-000000000000")),
    "URL": (AnyUrl, AnyUrl("https://example.com/")),
    "IPv4 address": (IPv4Address, IPv4Address("192.0.2.1")),
    "IPv6 address": (IPv6Address, IPv6Address("2001:db8::1")),
}


@pytest.mark.parametrize(("kind", "expected"), FIELDS.values(), ids=FIELDS)
def test_json_and_tool_arguments_are_the_smallest_instance_of_a_model(
    client: openai.OpenAI, kind: Any, expected: object
) -> None:
    model = create_model("Model", field=(kind, ...), left_out=(Colour, Colour.BLUE))
    plain, strict = model.model_json_schema(), to_strict_json_schema(model)
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": plain}}
    (call,) = client.chat.completions.create(**ask(tools=[tool])).choices[0].message.tool_calls or ()
    found = [call.function.arguments, answer(client, json.dumps(plain)), answer(client, json.dumps(strict))]
    for text in found:
        field = model.model_validate_json(text).field  # type: ignore[attr-defined]
        # The strict schema may have been unfolded once, and then holds two nodes.
        assert expected in (field, getattr(field, "next", None))
    assert [json.loads(text).get("left_out") for text in found] == [None, None, "blue"]


SCHEMA = json.dumps(Point.model_json_schema())
ENVELOPE = json.dumps({"name": "Point", "strict": True, "schema": Point.model_json_schema()}, indent=2)


@pytest.mark.parametrize(
    "system",
    [
        pytest.param(SCHEMA, id="alone"),
        pytest.param(f"Answer in JSON that conforms to this schema:\n{SCHEMA}\nNothing else.", id="in prose"),
        pytest.param(f"```json\n{ENVELOPE}\n```", id="in an envelope"),
        pytest.param(f'Use {{braces}}. For {{"type": "string"}} write {{"a": 1}}. The schema: {SCHEMA}', id="last"),
        pytest.param(f'{SCHEMA} For example: {{"x": 1, "y": 2}}', id="before an example"),
        pytest.param(f'{{"wrong": {{"type": "string"}}, "right": {SCHEMA}}}', id="the last of an object"),
        pytest.param([{"type": "text", "text": "Schema: "}, {"type": "text", "text": SCHEMA}], id="in parts"),
    ],
)
def test_schema_is_found_in_a_system_message(client: openai.OpenAI, system: object) -> None:
    assert Point.model_validate_json(answer(client, system)) == Point(x=1, y=1)


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([{"role": "user", "content": SCHEMA}], id="in a user message"),
        pytest.param([{"role": "system", "content": 'Example: {"x": 1, "type": "point"} {'}], id="only an example"),
    ],
)
def test_json_mode_without_a_schema_in_a_system_message_repeats_the_question(
    client: openai.OpenAI, messages: list[Any]
) -> None:
    fields = ask() | {"messages": [*messages, {"role": "user", "content": "JSON?"}], **JSON_MODE}
    content = client.chat.completions.create(**fields).choices[0].message.content
    assert json.loads(content or "")["question"] == "JSON?"


def test_schema_without_json_mode_changes_nothing(client: openai.OpenAI) -> None:
    fields: Any = asked(SCHEMA) | {"response_format": {"type": "text"}}
    assert "You asked: In JSON!" in (client.chat.completions.create(**fields).choices[0].message.content or "")


def test_first_system_message_with_a_schema_decides(client: openai.OpenAI) -> None:
    other = {"role": "system", "content": '{"type": "object"}'}
    messages = asked(SCHEMA)["messages"]
    fields: Any = ask() | {
        "messages": [{"role": "system", "content": "Hi"}, *messages[:1], other, *messages],
        **JSON_MODE,
    }
    assert json.loads(client.chat.completions.create(**fields).choices[0].message.content or "") == {"x": 1, "y": 1}


def test_streamed_json_is_the_unstreamed_json(client: openai.OpenAI) -> None:
    system = json.dumps(Node.model_json_schema())
    chunks = client.chat.completions.create(**asked(system), stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer(client, system)


def test_sdk_parses_tool_arguments_and_responses(client: openai.OpenAI) -> None:
    parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
    (call,) = parse(**ask(tools=[openai.pydantic_function_tool(Circle)])).choices[0].message.tool_calls
    assert call.function.parsed_arguments == Circle(kind="circle", centre=Point(x=1, y=1))
    body: Any = {"model": "deepseek-flash", "input": "A point", "extra_body": OFF}
    assert client.responses.parse(**body, text_format=Point).output_parsed == Point(x=1, y=1)


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
        pytest.param({"type": "array", "minItems": "x"}, [], id="minItems"),
        pytest.param({"type": "array", "minItems": 1e400, "items": 1}, [], id="infinite"),
        pytest.param({"type": "integer", "minimum": "x"}, 1, id="minimum"),
        pytest.param(
            {"anyOf": [{"type": "array", "minItems": 10**9}, {"type": "null"}]}, None, id="too many items or null"
        ),
        pytest.param({"type": "string", "minLength": 10**9}, {}, id="too long"),
        pytest.param({"type": "integer", "minimum": 10**400}, {}, id="too large a number"),
        pytest.param({"required": ["a"], "properties": {"a": False}}, {}, id="a property that must not be"),
        pytest.param({"required": ["a"], "additionalProperties": False}, {}, id="no additional property"),
        pytest.param({"anyOf": [False, True]}, "example", id="boolean schemas"),
        pytest.param({"enum": [1, "a"], "type": "string"}, "a", id="an enum value of the right type"),
        pytest.param({"type": "integer", "default": None}, 1, id="a default of the wrong type"),
        pytest.param({"allOf": [{"minimum": 3}, {"type": ["integer", "string"]}, {"multipleOf": 2}]}, 4, id="allOf"),
        pytest.param(
            {
                "$ref": "#/$defs/A",
                "properties": {"b": {"maximum": 0}},
                "$defs": {"A": {"required": ["b"], "properties": {"b": {"type": "integer"}}}},
            },
            {"b": 0},
            id="a reference and more properties",
        ),
        pytest.param({"items": [{"const": 2}], "minItems": 2}, [2, "example"], id="items of an older draft"),
        pytest.param({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 3}}}, 3, id="an escaped reference"),
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


FAN_OF_12 = {name: FAN[name] for name in map(str, range(12))}


def fan_to(leaf: Any) -> Any:
    """Return a schema that a search may enter 4,096 times at `leaf`."""
    return {"$ref": "#/$defs/0", "$defs": FAN_OF_12 | {"12": leaf}}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"' * 150_000, id="beginnings of objects"),
        pytest.param('{"a":' * 60_000, id="one nest without an end"),
        pytest.param(('{"a":' * 900 + "x") * 66, id="many broken nests"),
        pytest.param('{"a":"' * 50_000, id="unfinished strings"),
        pytest.param('{"a":[' * 50_000, id="unfinished lists"),
    ],
)
def test_search_for_a_schema_in_300_kilobytes_takes_less_than_a_second(text: str) -> None:
    begun = process_time()
    assert schema_in(text) is None
    assert process_time() - begun < 1


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param(
            {"allOf": [{"enum": list(range(n, n + 30_000))} for n in (0, 30_000)]}, id="enums without overlap"
        ),
        pytest.param({"type": "integer", "allOf": [{"minimum": n, "maximum": -n} for n in range(800)]}, id="limits"),
        pytest.param({"allOf": [*[{"anyOf": [{"const": 1}, {"const": 2}]}] * 20, {"const": 3}]}, id="alternatives"),
        pytest.param(fan_to({"$ref": "#/" + "a/" * 100_000}), id="a long reference"),
        pytest.param(fan_to({"type": ["string"] * 30_000}), id="many types"),
        pytest.param(fan_to({"enum": list(range(50_000)), "type": "string"}), id="an enum of the wrong type"),
    ],
)
def test_search_for_the_smallest_value_takes_less_than_a_second(schema: Any) -> None:
    begun = process_time()
    assert smallest(schema) == {}
    assert process_time() - begun < 1


def test_schema_after_hundreds_of_broken_objects_is_found() -> None:
    assert schema_in('{"broken": } ' * 500 + SCHEMA) == json.loads(SCHEMA)
