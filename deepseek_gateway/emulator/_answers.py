"""What the emulated DeepSeek says, and the shapes in which it says it.

An answer is first a list of tokens (`Turn`); the whole body and the stream are two ways to write the same tokens, so
they cannot disagree. The rules, all of them without chance or clock:

- **Tokens** are a word, a number or a sign with the blank before it, words cut after twelve letters. Counts count
  them; a message costs four more. What precedes the last message counts as cached, in blocks of 128 (recorded: hits
  are multiples of 128 and `prompt_tokens` is hits plus misses).
- **Text**: one sentence that names the emulator and repeats the question, or the results of the tools just called.
- **Tools**: when the last message is not a tool's result, every tool whose name occurs in it is called, else the first
  one; a forced `tool_choice` forces. Arguments are the simplest ones that fit the JSON schema, required ones only.
- **JSON mode** answers `{"answer": ..., "question": ...}`; `/responses` with a JSON schema answers what fits it.
- `max_tokens` cuts the list wherever it is: in the thinking (content stays empty), in the text or in the arguments.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from deepseek_gateway.emulator._exchange import mapping, sequence, to_json

# 2026-11-01T00:00:00Z, always: answers do not depend on the day.
CREATED = 1793491200
_SENTENCE = "This is a canned answer from the local AI Gateway emulator."
_THINKING = "No model runs here, so a canned answer has to do."
_LONGEST_ECHO = 300
# How far examples of JSON schemas go: levels, and values in all.
_DEEPEST, _MOST_VALUES = 50, 10_000

Json = dict[str, Any]


def tokens(text: str) -> list[str]:
    """Split `text` into the emulator's tokens; joined, they are the text again."""
    return re.findall(r"\s?\w{1,12}|\s?[^\w\s]|\s", text)


def digest(*parts: object) -> str:
    """Return 64 hexadecimal digits that depend on `parts` only."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def text_of(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(mapping(part).get("text", "")) for part in sequence(content))


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What was asked, by whichever endpoint.

    `tools` are bare functions (`name`, `parameters`); `choice` is `auto`, `none`, `required` or a function's name;
    `schema` is the JSON schema that the text must fit, an empty one for JSON mode.
    """

    seed: str
    model: str
    messages: list[Json]
    thinking: bool = True
    tools: list[Json]
    choice: str = "auto"
    schema: Json | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """One token: of the thinking, of the text, the start of a tool call (its name) or a piece of its arguments."""

    kind: Literal["reasoning_content", "content", "call", "arguments"]
    text: str
    call: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A finished answer, in tokens."""

    prompt: Prompt
    tokens: tuple[Token, ...]
    finish_reason: str

    def text(self, kind: str, call: int = 0) -> str:
        """Return the text of one kind, of one tool call."""
        return "".join(token.text for token in self.tokens if token.kind == kind and token.call == call)

    @property
    def id(self) -> str:
        """Return a uuid4, as DeepSeek's ids are, derived from the request."""
        return str(uuid.UUID(hex=digest("id", self.prompt.seed)[:32], version=4))

    def call_id(self, call: int) -> str:
        """Return `call_00_`, `call_01_`, ... and 24 letters and digits (recorded)."""
        return f"call_{call:02}_{digest('call', self.prompt.seed, call)[:24]}"

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """Return id, function name and arguments of each tool call that was begun."""
        return [
            (self.call_id(token.call), token.text, self.text("arguments", token.call))
            for token in self.tokens
            if token.kind == "call"
        ]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Return the numbers of prompt, cached prompt, answer and thinking tokens."""
        costs = [_cost(message) for message in self.prompt.messages]
        tools = len(tokens(json.dumps(self.prompt.tools))) if self.prompt.tools else 0
        thought = sum(token.kind == "reasoning_content" for token in self.tokens)
        return sum(costs) + tools, (sum(costs[:-1]) + tools) // 128 * 128, len(self.tokens), thought


def _cost(message: Json) -> int:
    calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
    return 4 + len(tokens(text_of(message.get("content")))) + len(tokens(calls))


def take_turn(prompt: Prompt) -> Turn:
    """Answer `prompt` by the rules in this module's docstring."""
    said: list[Token] = []
    if prompt.thinking:
        said += [Token("reasoning_content", text) for text in tokens(_THINKING)]
    called = _calls(prompt)
    if called:
        for index, (name, arguments) in enumerate(called):
            said += [Token("call", name, index), *(Token("arguments", text, index) for text in tokens(arguments))]
    else:
        content = _content(prompt)
        cut = min((at for stop in prompt.stop if stop and (at := content.find(stop)) >= 0), default=len(content))
        said += [Token("content", text) for text in tokens(content[:cut])]
    finish_reason = "tool_calls" if called else "stop"
    if prompt.max_tokens is not None and len(said) > prompt.max_tokens:
        said, finish_reason = said[: prompt.max_tokens], "length"
    return Turn(prompt=prompt, tokens=tuple(said), finish_reason=finish_reason)


def _calls(prompt: Prompt) -> list[tuple[str, str]]:
    last = prompt.messages[-1] if prompt.messages else {}
    forced = prompt.choice not in {"auto", "none"}
    if not prompt.tools or prompt.choice == "none" or (last.get("role") == "tool" and not forced):
        return []
    text = text_of(last.get("content"))
    by_name = {str(tool.get("name")): tool for tool in prompt.tools}
    if prompt.choice in by_name:
        names = [prompt.choice]
    else:
        names = [name for name in by_name if re.search(rf"\b{re.escape(name)}\b", text)] or [next(iter(by_name))]
    return [
        (name, json.dumps(example({"type": "object"} | mapping(by_name[name].get("parameters"))), ensure_ascii=False))
        for name in names
    ]


def _content(prompt: Prompt) -> str:
    results: list[str] = []
    for message in reversed(prompt.messages):
        if message.get("role") != "tool":
            break
        results.insert(0, text_of(message.get("content")))
    question = next(
        (text_of(message.get("content")) for message in reversed(prompt.messages) if message.get("role") == "user"), ""
    )
    if len(question) > _LONGEST_ECHO:
        question = question[:_LONGEST_ECHO] + "…"
    if prompt.schema:
        return json.dumps(example(prompt.schema), ensure_ascii=False)
    answer = f"{_SENTENCE} The tool returned: {'; '.join(results)}" if results else f"{_SENTENCE} You asked: {question}"
    if prompt.schema is not None:
        return json.dumps({"answer": answer, "question": question}, ensure_ascii=False)
    return answer


class _NothingFits(Exception):  # noqa: N818 - a way to turn back, nobody's error
    """Here the schema leads nowhere: into itself again, too deep, or to too many values."""


def example(schema: Json) -> Any:
    """Return the simplest value that fits a JSON schema: required properties, first alternatives, first enum values.

    A schema that contains itself ends as early as it may: with the next alternative, such as null, or an empty array.
    Where it may not end, or is enormous, the answer is `{}`. What is nonsense in a schema counts as absent.
    """
    try:
        return _Example(schema).fit(schema)
    except _NothingFits:
        return {}


class _Example:
    """The making of one example, which counts its values."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._left = _MOST_VALUES

    def fit(self, schema: Json, open_references: frozenset[str] = frozenset({"#"}), depth: int = 0) -> Any:
        """Return an example of `schema`, which was reached through `open_references`."""
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise _NothingFits
        if "$ref" in schema:
            reference = str(schema["$ref"])
            if reference in open_references:
                raise _NothingFits
            return self.fit(self._referred(reference), open_references | {reference}, depth + 1)
        alternatives = sequence(schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"))
        for alternative in alternatives:
            with suppress(_NothingFits):
                return self.fit(mapping(alternative), open_references, depth + 1)
        if alternatives:
            raise _NothingFits
        fixed = [schema[key] for key in ("const", "default") if key in schema] + sequence(schema.get("enum"))
        if fixed:
            return fixed[0]
        stated = schema.get("type", "object" if "properties" in schema else "string")
        kind = str(next(iter(sequence(stated)), stated))
        if kind == "object":
            properties = mapping(schema.get("properties"))
            return {
                name: self.fit(mapping(properties.get(name)), open_references, depth + 1)
                for name in map(str, sequence(schema.get("required")))
            }
        if kind == "array":
            return self._array(schema, open_references, depth)
        minimum = schema.get("minimum")
        number = minimum if isinstance(minimum, int | float) else 1
        return {"integer": number, "number": number, "boolean": True, "null": None}.get(kind, "example")

    def _array(self, schema: Json, open_references: frozenset[str], depth: int) -> list[Any]:
        """Return as few items as are allowed, but one if it can be."""
        stated = schema.get("minItems")
        fewest = stated if isinstance(stated, int) else 0
        items = mapping(schema.get("items"))
        try:
            return [self.fit(items, open_references, depth + 1) for _ in range(max(fewest, 1))]
        except _NothingFits:
            if fewest > 0:
                raise
            return []

    def _referred(self, reference: str) -> Json:
        """Return what a reference within the schema (`#/$defs/Node`, or `#` for all of it) refers to."""
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            target = mapping(target).get(step)
        return mapping(target)


def usage(turn: Turn) -> Json:
    """Return the `usage` of chat and FIM, in DeepSeek's key order; thinking tokens are shown in thinking turns only."""
    asked, cached, answered, thought = turn.counts
    details = {"completion_tokens_details": {"reasoning_tokens": thought}} if turn.prompt.thinking else {}
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached},
        **details,
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": asked - cached,
    }


def fingerprint(turn: Turn) -> str:
    """Return 32 hexadecimal digits, as since August 2026 (recorded)."""
    return digest("fingerprint", turn.prompt.model)[:32]


def _logprob(text: str, top: int) -> Json:
    def one(token: str, logprob: float) -> Json:
        return {"token": token, "logprob": logprob, "bytes": list(token.encode())}

    likely = one(text, -0.01)
    others = [one(f"{text}{'~' * rank}", -2.0 * rank) for rank in range(1, top)]
    return likely | {"top_logprobs": [likely, *others] if top else []}


def _logprobs(turn: Turn, kinds: tuple[str, ...], top: int | None) -> Json | None:
    """Return the log probabilities by kind; a kind without a token has no key (recorded)."""
    if top is None:
        return None
    listed = {kind: [_logprob(token.text, top) for token in turn.tokens if token.kind == kind] for kind in kinds}
    return {kind: items for kind, items in listed.items() if items} or None


def chat_body(turn: Turn, logprobs: int | None) -> Json:
    """Return a chat completion: the fingerprint comes last, `reasoning_content` exists in thinking turns only."""
    message: Json = {"role": "assistant", "content": turn.text("content")}
    if turn.prompt.thinking:
        message["reasoning_content"] = turn.text("reasoning_content")
    if turn.calls:
        message["tool_calls"] = [
            {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (call_id, name, arguments) in enumerate(turn.calls)
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(turn, ("content", "reasoning_content"), logprobs),
        "finish_reason": turn.finish_reason,
    }
    return {
        "id": turn.id,
        "object": "chat.completion",
        "created": CREATED,
        "model": turn.prompt.model,
        "choices": [choice],
        "usage": usage(turn),
        "system_fingerprint": fingerprint(turn),
    }


def chat_chunks(turn: Turn, logprobs: int | None, *, include_usage: bool) -> Iterator[bytes]:
    """Yield the events of a chat stream: a token each, the usage on the last one, which has a choice, then `[DONE]`.

    `include_usage` decides only whether earlier chunks carry `"usage":null` or no such key (DeepSeek docs:
    api/create-chat-completion; recorded).
    """
    thinking: Json = {"reasoning_content": None} if turn.prompt.thinking else {}

    def event(delta: Json, probabilities: Json | None, finish_reason: str | None) -> bytes:
        chunk: Json = {
            "id": turn.id,
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": turn.prompt.model,
            "system_fingerprint": fingerprint(turn),
            "choices": [{"index": 0, "delta": delta, "logprobs": probabilities, "finish_reason": finish_reason}],
        }
        if finish_reason or include_usage:
            chunk["usage"] = usage(turn) if finish_reason else None
        return server_sent(chunk)

    first = {"content": None, "reasoning_content": ""} if turn.prompt.thinking else {"content": ""}
    yield event({"role": "assistant"} | first, None, None)
    for token in turn.tokens:
        match token.kind:
            case "reasoning_content":
                delta: Json = {"content": None, "reasoning_content": token.text}
            case "content":
                delta = {"content": token.text} | thinking
            case "call":
                function = {"name": token.text, "arguments": ""}
                call = {"index": token.call, "id": turn.call_id(token.call), "type": "function", "function": function}
                delta = {"tool_calls": [call]}
            case "arguments":
                delta = {"tool_calls": [{"index": token.call, "function": {"arguments": token.text}}]}
        alone = Turn(prompt=turn.prompt, tokens=(token,), finish_reason="")
        yield event(delta, _logprobs(alone, ("content", "reasoning_content"), logprobs), None)
    yield event({"content": ""} | thinking, None, turn.finish_reason)
    yield b"data: [DONE]\n\n"


def server_sent(value: Json, *, named: bool = False) -> bytes:
    """Return one event; only `/responses` names its events (OpenAI's format), chat has `data:` lines alone."""
    name = f"event: {value['type']}\n".encode() if named else b""
    return name + b"data: " + to_json(value) + b"\n\n"


def fim_body(turn: Turn) -> Json:
    """Return a fill-in-the-middle completion (DeepSeek docs: api/create-completion; no recording)."""
    choice = {"text": turn.text("content"), "index": 0, "logprobs": None, "finish_reason": turn.finish_reason}
    return {
        "id": turn.id,
        "object": "text_completion",
        "created": CREATED,
        "model": turn.prompt.model,
        "choices": [choice],
        "usage": usage(turn),
        "system_fingerprint": fingerprint(turn),
    }


def fim_chunks(turn: Turn) -> Iterator[bytes]:
    """Yield the events of a fill-in-the-middle stream."""
    whole = fim_body(turn)
    head = {key: whole[key] for key in ("id", "object", "created", "model", "system_fingerprint")}
    for token in turn.tokens:
        choice = {"text": token.text, "index": 0, "logprobs": None, "finish_reason": None}
        yield server_sent(head | {"choices": [choice]})
    last = {"text": "", "index": 0, "logprobs": None, "finish_reason": turn.finish_reason}
    yield server_sent(head | {"choices": [last], "usage": whole["usage"]})
    yield b"data: [DONE]\n\n"
