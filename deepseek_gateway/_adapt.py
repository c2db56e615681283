"""OpenAI's dialect into DeepSeek's: one table. Pure functions over the parsed body of a request.

Each row turns a refusal of DeepSeek, or a parameter that DeepSeek ignores, into a request that works. What the caller
states in DeepSeek's own words wins. null counts as not stated.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._config import GatewayConfig

Body: TypeAlias = dict[str, Any]

# A body without any of these holds nothing to translate. The look-ahead makes the search twice as fast on prose.
_SIGNS = re.compile(rb'"(?=[dmjt])(?:developer|max_completion_tokens|json_schema|tools|tool_choice)"')
_OPENAI_MODEL = re.compile(r"(?:gpt-|chatgpt-|codex-|o[134](?:-|$))")

SCHEMA = "json_schema"
NOT_ENFORCED = (
    "DeepSeek enforces no JSON schema. The schema in response_format is sent as a system message that asks for it, so "
    "validate the answer, as parse() does. (This is said once for each client.)"
)
_INSTRUCTION = "Answer with one JSON object that conforms to this JSON Schema, and with nothing else:"


def rows_for(path: str, body: bytes, config: GatewayConfig) -> tuple[Row, ...]:
    """List the rows that may change a JSON body sent to this path. If there are none, the body is not parsed."""
    if not config.adapt:
        return ()
    if path.endswith("/chat/completions"):
        return CHAT if config.thinking is not None or _SIGNS.search(body) else ()
    return RESPONSES if config.thinking is False and path.endswith("/responses") else ()


def adapted_model(model: str, config: GatewayConfig) -> str:
    """Put the configured model in place of one of OpenAI's names. DeepSeek refuses them (recorded)."""
    return config.model if config.adapt and config.model and _OPENAI_MODEL.match(model) else model


def adapt(body: Body, config: GatewayConfig, rows: tuple[Row, ...]) -> tuple[Body, tuple[str, ...]]:
    """Translate a body, and name the rows that changed it. The given body stays as it is."""
    names: list[str] = []
    for row in rows:
        try:
            translated = row.rule(body, config)
        except (LookupError, TypeError, AttributeError):
            continue  # DeepSeek can say best what is wrong with such a body
        if translated is not body:
            names.append(row.name)
            body = translated
    return body, tuple(names)


def _system(body: Body, _: GatewayConfig) -> Body:
    """Call the system messages of OpenAI's newer models what DeepSeek calls them."""
    messages = [{**each, "role": "system"} if each["role"] == "developer" else each for each in body["messages"]]
    return body if messages == body["messages"] else {**body, "messages": messages}


def _limit(body: Body, _: GatewayConfig) -> Body:
    """Rename the limit of the answer. DeepSeek ignores OpenAI's newer name. Both limit thinking and text together."""
    if body.get("max_completion_tokens") is None or body.get("max_tokens") is not None:
        return body
    kept = {name: value for name, value in body.items() if name != "max_tokens"}
    return {"max_tokens" if name == "max_completion_tokens" else name: value for name, value in kept.items()}


def _schema(body: Body, _: GatewayConfig) -> Body:
    """Ask for a schema in a message. It comes first, so that DeepSeek's prefix cache can keep it."""
    form: Body = body.get("response_format") or {}
    if form.get("type") != SCHEMA:
        return body
    given: Body = form[SCHEMA]
    schema = json.dumps(given.get("schema") or {"type": "object"}, ensure_ascii=False, separators=(",", ":"))
    text = "\n".join(filter(None, (given.get("description"), _INSTRUCTION, schema)))
    messages = [{"role": "system", "content": text}, *body["messages"]]
    return {**body, "messages": messages, "response_format": {"type": "json_object"}}


def _forced_tool(body: Body, _: GatewayConfig) -> Body:
    """Switch thinking off for a call that forces a tool, because DeepSeek cannot do both."""
    forced = body.get("tool_choice") not in (None, "auto", "none")
    return {**body, "thinking": {"type": "disabled"}} if forced and not _states_thinking(body) else body


def _thinking(body: Body, config: GatewayConfig) -> Body:
    """Apply the configured thinking."""
    if config.thinking is None or _states_thinking(body):
        return body
    return {**body, "thinking": {"type": "enabled" if config.thinking else "disabled"}}


def _effort(body: Body, _: GatewayConfig) -> Body:
    """Switch thinking off in the words of `/responses`."""
    stated: Body = body.get("reasoning") or {}
    if stated.get("effort") is not None or body.get("thinking") is not None:
        return body
    return {**body, "reasoning": {**stated, "effort": "none"}}


def _reasoning(body: Body, _: GatewayConfig) -> Body:
    """Add the thoughts that a program dropped. DeepSeek wants them back with tools, and an empty text satisfies it."""
    stated: Body = body.get("thinking") or {}
    off = stated.get("type") == "disabled" or (not stated and body.get("reasoning_effort") == "none")
    if off or not body.get("tools"):
        return body
    dropped = [each["role"] == "assistant" and each.get("reasoning_content") is None for each in body["messages"]]
    if not any(dropped):
        return body
    pairs = zip(dropped, body["messages"], strict=True)
    return {**body, "messages": [{**each, "reasoning_content": ""} if empty else each for empty, each in pairs]}


def _states_thinking(body: Body) -> bool:
    return body.get("thinking") is not None or body.get("reasoning_effort") is not None


class Row(NamedTuple):
    """One row: its name in `GatewayCall.adapted`, and what it does. A rule that changes nothing returns the body."""

    name: str
    rule: Callable[[Body, GatewayConfig], Body]


CHAT = (
    Row("developer", _system),
    Row("max_completion_tokens", _limit),
    Row(SCHEMA, _schema),
    Row("tool_choice", _forced_tool),
    Row("thinking", _thinking),
    Row("reasoning_content", _reasoning),
)
"""In the order in which they apply: the rows on thinking decide whether thoughts are wanted back.

Sources: DeepSeek docs (guides/thinking_mode, api/create-chat-completion) and captured refusals of each request.
"""

RESPONSES = (Row("thinking", _effort),)
"""DeepSeek speaks OpenAI's dialect here, and thinks unless told not to (DeepSeek docs: guides/thinking_mode)."""
