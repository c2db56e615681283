"""The answer to a prompt, in tokens: on demand (`_answers`), else canned. Neither depends on chance or on the clock.

The whole body and the stream are two ways to write the same tokens, so they cannot disagree. The rules:

- **Tokens**: a word, a number or a sign, with the blank before it. Words are cut after twelve letters. A message costs
  four tokens more than its text. All but the last message counts as cached, in blocks of 128 (recorded).
- **Text**: one sentence that names the emulator and repeats the question, or the results of the tools just called.
- **Tools**: unless the last message is a tool's result, the tools named in it are called, else the first tool. A forced
  `tool_choice` is obeyed. Arguments are the smallest that fit the JSON schema (`_schema`).
- **JSON** is the smallest value that fits the schema. Chat takes the schema from a system message, `/responses` from
  the request. Without a schema it is `{"answer": ..., "question": ...}`.
- `max_tokens` cuts the list of tokens: in the thinking (content stays empty), in the text or in the arguments.

An answer on demand is sent whole. Its ids depend on it too, so that equal requests get different ones.
"""

import json
import re
import uuid
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from deepseek_gateway.emulator._answers import Script
from deepseek_gateway.emulator._ids import digest
from deepseek_gateway.emulator._json import mapping
from deepseek_gateway.emulator._prompt import Prompt, text_of
from deepseek_gateway.emulator._schema import smallest

_SENTENCE = "This is a canned answer from the local AI Gateway emulator."
_THINKING = "No model runs here, so a canned answer has to do."
_MAX_ECHO = 300


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
        return "".join(token.text for token in self.tokens if token.kind == kind and token.call == call)

    @property
    def id(self) -> str:
        """A uuid4, as DeepSeek's ids are, derived from the request."""
        return str(uuid.UUID(hex=digest("id", self.prompt.seed)[:32], version=4))

    def call_id(self, call: int) -> str:
        """Return `call_00_`, `call_01_`, ... and 24 letters and digits (recorded)."""
        return f"call_{call:02}_{digest('call', self.prompt.seed, call)[:24]}"

    @property
    def calls(self) -> list[tuple[str, str, str]]:
        """The id, function name and arguments of each tool call that was begun."""
        begun = [token for token in self.tokens if token.kind == "call"]
        return [(self.call_id(token.call), token.text, self.text("arguments", token.call)) for token in begun]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """The numbers of prompt, cached prompt, completion and thinking tokens."""
        messages = self.prompt.messages
        calls = [json.dumps(message["tool_calls"]) if message.get("tool_calls") else "" for message in messages]
        texts = [text_of(message.get("content")) for message in messages]
        costs = [4 + len(_split(text)) + len(_split(call)) for text, call in zip(texts, calls, strict=True)]
        tools = len(_split(json.dumps(self.prompt.tools))) if self.prompt.tools else 0
        thought = sum(token.kind == "reasoning_content" for token in self.tokens)
        return sum(costs) + tools, (sum(costs[:-1]) + tools) // 128 * 128, len(self.tokens), thought


def take_turn(prompt: Prompt, script: Script | None = None) -> Turn:
    """Answer `prompt` by the rules in this module's docstring."""
    said = script or _canned(prompt)
    reasoning = _THINKING if said.reasoning is None else said.reasoning
    tokens = [Token("reasoning_content", text) for text in _split(reasoning)] if prompt.thinking else []
    tokens += [Token("content", text) for text in _split(said.text)]
    for index, (name, arguments) in enumerate(said.calls):
        tokens += [Token("call", name, index), *(Token("arguments", text, index) for text in _split(arguments))]
    if script:
        prompt = replace(prompt, seed=digest(prompt.seed, tokens), max_tokens=None)
    cut = prompt.max_tokens is not None and len(tokens) > prompt.max_tokens
    reason = "length" if cut else said.finish_reason
    return Turn(prompt=prompt, tokens=tuple(tokens[: prompt.max_tokens]), finish_reason=reason)


def _canned(prompt: Prompt) -> Script:
    calls = _calls(prompt)
    content = "" if calls else _content(prompt)
    end = min((at for stop in prompt.stop if stop and (at := content.find(stop)) >= 0), default=len(content))
    return Script(content[:end], calls, None, "tool_calls" if calls else "stop")


def _calls(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    last = prompt.messages[-1] if prompt.messages else {}
    forced = prompt.choice not in {"auto", "none"}
    if not prompt.tools or prompt.choice == "none" or (last.get("role") == "tool" and not forced):
        return ()
    text = text_of(last.get("content"))
    by_name = {str(tool.get("name")): tool for tool in prompt.tools}
    named = [name for name in by_name if re.search(rf"\b{re.escape(name)}\b", text)]
    names = [prompt.choice] if prompt.choice in by_name else named or list(by_name)[:1]
    values = [smallest({"type": "object"} | mapping(by_name[name].get("parameters"))) for name in names]
    return tuple((name, json.dumps(value, ensure_ascii=False)) for name, value in zip(names, values, strict=True))


def _content(prompt: Prompt) -> str:
    if prompt.schema:
        return json.dumps(smallest(prompt.schema), ensure_ascii=False)
    said = [(message.get("role"), text_of(message.get("content"))) for message in prompt.messages]
    question = next((text for role, text in reversed(said) if role == "user"), "")
    if len(question) > _MAX_ECHO:
        question = question[:_MAX_ECHO] + "…"
    results = [text for _, text in takewhile(lambda pair: pair[0] == "tool", reversed(said))]
    result = f"The tool returned: {'; '.join(reversed(results))}" if results else f"You asked: {question}"
    answer = f"{_SENTENCE} {result}"
    in_json = {"answer": answer, "question": question}
    return answer if prompt.schema is None else json.dumps(in_json, ensure_ascii=False)


def _split(text: str) -> list[str]:
    """Return the tokens of `text`; joined, they are the text again."""
    return re.findall(r"\s?\w{1,12}|\s?[^\w\s]|\s", text)
