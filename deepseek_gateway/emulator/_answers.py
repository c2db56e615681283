"""Answers on demand: what a test makes DeepSeek say."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deepseek_gateway.emulator._wire import ReceivedRequest

AnswerFunction = Callable[[ReceivedRequest], str | Mapping[str, Any] | None]


@dataclass(frozen=True, slots=True)
class Script:
    """An answer on demand. `calls` are names and arguments; without `reasoning` the canned thinking is sent."""

    text: str
    calls: tuple[tuple[str, str], ...]
    reasoning: str | None
    finish_reason: str


@dataclass(eq=False)
class Answers:
    """The answers to come: those of `answer_next()`, then those of the function, then canned ones."""

    queue: deque[Script] = field(default_factory=deque[Script])
    function: AnswerFunction | None = None

    def take(self, request: ReceivedRequest) -> Script | None:
        """Return the answer to a request, or None for the canned one."""
        if self.queue:
            return self.queue.popleft()
        said = None if self.function is None else self.function(request)
        if said is None:
            return None
        if not isinstance(said, str | Mapping):
            kind = type(said).__name__
            raise TypeError(
                f"answer_with(): return text, the arguments of answer_next() as a dict, or None, not {kind}."
            )
        return to_script(**({"text": said} if isinstance(said, str) else said))


def to_script(
    text: str | None = None,
    *,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    json: object = None,
    reasoning: str | None = None,
    finish_reason: str | None = None,
) -> Script:
    """Return the answer that `Emulator.answer_next()` documents; refuse what no test can mean."""
    if text is None and json is None and not tool_calls:
        raise ValueError("Say what to answer: give a text, json or tool_calls.")
    if text is not None and json is not None:
        raise ValueError("Give a text or json, not both: each would be the whole content.")
    for name, value in (("text", text), ("reasoning", reasoning), ("finish_reason", finish_reason)):
        if not isinstance(value, str | None):
            raise TypeError(f"Give {name} as a str, not {type(value).__name__}.")
    calls: list[tuple[str, str]] = []
    for call in tool_calls:
        if not isinstance(call, Mapping) or set(call) != {"name", "arguments"}:
            raise ValueError('Give each tool call as {"name": ..., "arguments": ...}; ids are made for it.')
        given = call["arguments"]
        calls.append((str(call["name"]), given if isinstance(given, str) else _in_json(given)))
    content = text or "" if json is None else _in_json(json)
    return Script(content, tuple(calls), reasoning, finish_reason or ("tool_calls" if calls else "stop"))


def _in_json(value: object) -> str:
    """Return a value as JSON text; pydantic's instances may be part of it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if not hasattr(value, "model_dump"):
        raise TypeError(f"Give json and arguments as JSON or pydantic's instances, not {type(value).__name__}.")
    return value.model_dump(mode="json", by_alias=True)
