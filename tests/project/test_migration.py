"""The documents' tables for programs written for OpenAI are true: each row is executed with the emulator."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import openai
import pydantic
import pytest
from documents import PAGES, README, section, tables

import deepseek_gateway
from deepseek_gateway import create_client, record_calls
from deepseek_gateway._adapt import CHAT
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Use = Callable[[openai.OpenAI], Any]

PAGE = PAGES["coming-from-openai"]
(TRANSLATED,), (NOT_TRANSLATED,), (CONSTRUCTORS, *_) = (
    [{row[0]: row[-1] for row in table} for table in tables(text)]
    for text in (section(README, "What is translated"), section(PAGE, "What is not translated"), PAGE)
)
"""First column of each table -> the rest of the row."""


class Model(pydantic.BaseModel):
    digits: str = pydantic.Field(pattern="^[0-9]+$")


class Answer(pydantic.BaseModel):
    text: str


def ask(client: openai.OpenAI, **options: Any) -> Any:
    messages = [{"role": "user", "content": "Hi"}]
    return client.chat.completions.create(**{"model": "deepseek-flash", "messages": messages, **options})


def parse(client: openai.OpenAI, **options: Any) -> Any:
    """Call `parse()`, which was below `client.beta` in old versions of openai."""
    completions: Any = client.chat.completions
    completions = completions if hasattr(completions, "parse") else client.beta.chat.completions
    messages = [{"role": "user", "content": "Hi"}]
    return completions.parse(model="deepseek-flash", messages=messages, **options).choices[0].message


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
TURN = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How are you?"},
]
NO_THINKING = {"thinking": {"type": "disabled"}}


def thoughts(client: openai.OpenAI) -> str | None:
    return getattr(ask(client).choices[0].message, "reasoning_content", None)


# Name in the table -> settings, what the program does, whether the result is right.
# Without the translation the program is refused, or its result is wrong.
PROGRAMS: dict[str, tuple[dict[str, Any], Use, Callable[[Any], bool]]] = {
    "developer": ({}, lambda client: ask(client, messages=[{"role": "developer", "content": "Hi"}]), bool),
    "max_completion_tokens": (
        {},
        lambda client: ask(client, max_completion_tokens=2, extra_body=NO_THINKING),
        lambda answer: answer.choices[0].finish_reason == "length",
    ),
    "json_schema": (
        {},
        lambda client: parse(client, response_format=Answer),
        lambda message: isinstance(message.parsed, Answer),
    ),
    "tool_choice": (
        {},
        lambda client: ask(client, tools=[TOOL], tool_choice="required"),
        lambda answer: answer.choices[0].finish_reason == "tool_calls",
    ),
    "thinking": ({"thinking": False}, thoughts, lambda text: text is None),
    "reasoning_content": ({}, lambda client: ask(client, tools=[TOOL], messages=TURN), bool),
    "model": (
        {"model": "deepseek-flash"},
        lambda client: ask(client, model="gpt-4o"),
        lambda answer: answer.model == "deepseek-flash",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_works_only_with_the_translation(name: str, emulator: Emulator) -> None:
    settings, use, is_right = PROGRAMS[name]
    with create_client(emulator.config(**settings)) as client, record_calls() as calls:
        assert is_right(use(client))
    assert [call.adapted for call in calls] == [(name,)]
    plain = emulator.config(**settings, adapt=False)
    with create_client(plain) as client, record_calls() as calls, suppress(openai.BadRequestError):
        assert not is_right(use(client))
    assert [call.adapted for call in calls] == [()]


def test_table_has_a_row_for_each_name_in_adapted() -> None:
    assert list(TRANSLATED) == [f"`{name}`" for name in PROGRAMS]
    assert {row.name for row in CHAT} | {"model"} == set(PROGRAMS)


def test_thinking_and_model_are_translated_on_responses(emulator: Emulator) -> None:
    with create_client(emulator.config(thinking=False, model="deepseek-flash")) as client, record_calls() as calls:
        answer = client.responses.create(model="gpt-4o", input="Hi")
    assert ([item.type for item in answer.output], answer.model) == (["message"], "deepseek-flash")
    assert calls[0].adapted == ("model", "thinking")


def test_json_schema_works_on_responses_without_a_translation(emulator: Emulator) -> None:
    with create_client(emulator.config()) as client, record_calls() as calls:
        form: Any = {"type": "json_schema", "name": "answer", "schema": Answer.model_json_schema()}
        answer = client.responses.create(model="deepseek-flash", input="Hi", text={"format": form})
    assert Answer.model_validate_json(answer.output_text)
    assert calls[0].adapted == ()


IGNORED: dict[str, Any] = {
    "n": 2,
    "seed": 1,
    "logit_bias": {"1": 2},
    "parallel_tool_calls": False,
    "user": "me",
    "store": True,
    "metadata": {"a": "b"},
    "service_tier": "auto",
}
MISSING: dict[str, Use] = {
    "embeddings": lambda client: client.embeddings.create(model="deepseek-flash", input="Hi"),
    "images": lambda client: client.images.generate(model="deepseek-flash", prompt="Hi"),
    "audio": lambda client: client.audio.speech.create(model="deepseek-flash", input="Hi", voice="alloy"),
    "moderations": lambda client: client.moderations.create(input="Hi"),
    "batches": lambda client: client.batches.list(),
    "fine-tuning": lambda client: client.fine_tuning.jobs.list(),
    "`responses.retrieve()`": lambda client: client.responses.retrieve("resp_1"),
}
TOOL_OF_MODEL = openai.pydantic_function_tool(Model)


def test_table_of_what_is_not_translated_names_what_is_tested_below() -> None:
    assert list(NOT_TRANSLATED) == [
        "`parse(response_format=Model)`",
        "strict tools, such as `pydantic_function_tool(Model)`",
        ", ".join(f"`{name}`" for name in IGNORED),
        "`completions.create()`",
        ", ".join(MISSING),
    ]


@pytest.mark.parametrize("options", [{"response_format": Model}, {"tools": [TOOL_OF_MODEL]}], ids=["schema", "tool"])
def test_answer_that_breaks_its_schema_arrives_and_parse_raises(options: Any, emulator: Emulator) -> None:
    """The emulator ignores the pattern in the schema, as a model may."""
    with create_client(emulator.config()) as client, pytest.raises(pydantic.ValidationError, match="should match"):
        parse(client, **options)


@pytest.mark.parametrize("name", IGNORED)
def test_parameter_that_deepseek_ignores_is_sent_and_changes_nothing(name: str, emulator: Emulator) -> None:
    with create_client(emulator.config()) as client:
        assert len(ask(client, **{name: IGNORED[name]}).choices) == 1
    upstream = emulator.requests[-1].upstream
    assert upstream
    assert upstream.json[name] == IGNORED[name]


def test_completions_work_under_beta_only(emulator: Emulator) -> None:
    with create_client(emulator.config()) as client:
        with pytest.raises(openai.BadRequestError, match="only available when using beta"):
            client.completions.create(model="deepseek-flash", prompt="Hi")
        beta = client.with_options(base_url=f"{client.base_url}beta")
        assert beta.completions.create(model="deepseek-flash", prompt="Hi").choices[0].text


@pytest.mark.parametrize("name", MISSING)
def test_endpoint_that_deepseek_lacks_raises_not_found(name: str, emulator: Emulator) -> None:
    with create_client(emulator.config()) as client, pytest.raises(openai.NotFoundError):
        MISSING[name](client)


def asked(client: openai.OpenAI | openai.AsyncOpenAI) -> Any:
    if isinstance(client, openai.OpenAI):
        with client:
            return ask(client)

    async def main() -> Any:
        async with client:
            return await ask(client)  # type: ignore[arg-type]

    return asyncio.run(main())


WRITTEN = [written.strip("`") for written in CONSTRUCTORS.values() if written.startswith("`create_")]


@pytest.mark.parametrize("written", WRITTEN)
def test_expression_makes_a_client_that_calls(
    written: str, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "aiohttp" in written and not hasattr(openai, "DefaultAioHttpClient"):
        pytest.skip("this openai has no aiohttp client")
    for variable, value in emulator.environ.items():
        monkeypatch.setenv(variable, value)
    config = emulator.config()
    names = {name: getattr(deepseek_gateway, name) for name in deepseek_gateway.__all__}
    client = eval(written, names | {"key": config.api_key, "url": config.endpoint})
    assert type(client) is (openai.AsyncOpenAI if "async" in written else openai.OpenAI)
    assert asked(client).choices


def test_table_of_constructors_has_five_expressions() -> None:
    assert len(WRITTEN) == 5
