"""`long_history()` puts the same bytes on the wire as the SDK alone."""

from __future__ import annotations

import copy
from datetime import date
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import run
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from deepseek_gateway import long_history

if TYPE_CHECKING:
    from collections.abc import Callable

    from calling import Call, ConfigAt
    from loopback import Loopback

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lisbon"}'}}
ANSWER = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "Let me see."}


class Noted(BaseModel):
    __api_exclude__ = {"note"}  # newer versions of the SDK have models with this attribute

    role: str
    content: str
    at: date
    note: str | None = None


def part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


HISTORIES: dict[str, Callable[[], Any]] = {
    "plain": lambda: [{"role": "user", "content": "What is Cloudflare? 你好 \U0001f600"}] * 100,
    "none": list,
    "a tuple": lambda: ({"role": "user", "content": "a"}, {"role": "user", "content": "b"}),
    "an iterator": lambda: iter([{"role": "user", "content": "a"}]),
    "parts": lambda: [{"role": "user", "content": [part("a"), part("b")]}],
    "parts in a tuple": lambda: [{"role": "user", "content": (part("a"), part("b"))}],
    "parts in an iterator": lambda: [{"role": "user", "content": iter([part("a"), part("b")])}],
    "tools": lambda: [ANSWER, {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}],
    "the SDK's message": lambda: [ChatCompletionMessage.model_validate(ANSWER)],
    "the SDK's tool calls": lambda: [{**ANSWER, "tool_calls": ChatCompletionMessage.model_validate(ANSWER).tool_calls}],
    "a model with a date": lambda: [Noted(role="user", content="a", at=date(2026, 1, 31))],
    "an unknown member": lambda: [{"role": "user", "content": "a", "prefix": True, "nested": {"a": [1, None, 2.5]}}],
}


@pytest.mark.parametrize("route", ["provider", "compat"])
@pytest.mark.parametrize("name", HISTORIES)
def test_body_has_the_bytes_that_the_sdk_sends(
    call: Call, gateway: Loopback, config_at: ConfigAt, name: str, route: str
) -> None:
    history = HISTORIES[name]

    def ask(messages: Any, **more: Any) -> Callable[[Any], Any]:
        return lambda client: client.chat.completions.create(
            model="deepseek-flash", messages=messages, temperature=0.5, **more
        )

    thinking = {"thinking": {"type": "disabled"}}
    call(config_at(gateway, route=route), ask(history(), extra_body=thinking))
    with_it = long_history(history(), **thinking)
    call(config_at(gateway, route=route), ask(**with_it))
    as_the_sdk_does, with_long_history = gateway.received
    assert with_long_history.json == as_the_sdk_does.json
    assert with_long_history.body == as_the_sdk_does.body


def test_member_that_a_model_excludes_is_not_sent() -> None:
    history = long_history([Noted(role="user", content="a", at=date(2026, 1, 31), note="x")])
    assert history["extra_body"]["messages"] == [{"role": "user", "content": "a", "at": "2026-01-31"}]


def test_messages_of_the_caller_are_not_changed() -> None:
    messages = [ANSWER, {"role": "user", "content": [part("a")]}]
    before = copy.deepcopy(messages)
    long_history(messages)
    assert messages == before


def test_message_with_text_only_is_not_copied() -> None:
    message = {"role": "user", "content": "x" * 1_000_000}
    assert long_history([message])["extra_body"]["messages"][0] is message


def test_sdk_walks_over_no_message_of_a_long_history(
    gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The SDK walks over `messages` and changes nothing. With long_history() it has no messages to walk over.
    walked: list[object] = []
    transform = openai._utils._transform._transform_recursive  # noqa: SLF001

    def counted(data: object, *args: Any, **kwargs: Any) -> object:
        walked.append(data)
        return transform(data, *args, **kwargs)

    monkeypatch.setattr(openai._utils._transform, "_transform_recursive", counted)  # noqa: SLF001
    messages = [{"role": "user", "content": "Hi"}] * 100
    steps: list[int] = []
    for arguments in ({"messages": messages}, long_history(messages)):
        walked.clear()
        run(
            "sync",
            config_at(gateway),
            lambda client, given=arguments: client.chat.completions.create(model="deepseek-flash", **given),
        )
        steps.append(len(walked))
    assert steps[0] - steps[1] >= len(messages)
