"""What a request asks of DeepSeek: its body as a `Prompt`, or DeepSeek's refusal."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from deepseek_gateway.emulator._errors import DESERIALIZE, Refusal, deepseek_refusal
from deepseek_gateway.emulator._ids import digest
from deepseek_gateway.emulator._json import Json, mapping, parse, sequence
from deepseek_gateway.emulator._models import MAX_TOKENS, MODELS, RETIRED
from deepseek_gateway.emulator._schema import schema_in
from deepseek_gateway.emulator._wire import JSON_TYPE, ReceivedRequest

_ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
_PARTS = ("text", "image_url", "file")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A question, from whichever endpoint.

    `tools` are bare functions (`name`, `parameters`). `choice` is `auto`, `none`, `required` or the name of a function.
    `schema` is the JSON schema that the text must fit, an empty one for JSON mode without a schema in the prompt.
    """

    seed: str
    model: str
    messages: list[Json]
    thinking: bool = False
    tools: tuple[Json, ...] = ()
    choice: str = "auto"
    schema: Json | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


class Body:
    """A request body that is a JSON object, and its text for the positions in error messages."""

    def __init__(self, request: ReceivedRequest, *required: str) -> None:
        """Parse the body of `request`; refuse it if it is not JSON or lacks a required field."""
        self.text = request.body.decode(errors="replace")
        try:
            self.json = mapping(parse(self.text))
        except ValueError as error:
            raise deepseek_refusal(f"Failed to parse the request body as JSON: {error}", JSON_TYPE) from None
        for name in required:
            if self.json.get(name) is None:
                raise self.refusal(f"missing field `{name}`")

    def prompt(self, limit: str = "max_tokens", **asked: Any) -> Prompt:
        """Return what is asked; ids are derived from the question, whether or not its answer is streamed."""
        question = {name: value for name, value in self.json.items() if not name.startswith("stream")}
        model, max_tokens = _model(self.json["model"]), _limit(self.json.get(limit))
        return Prompt(seed=digest(question), model=model, max_tokens=max_tokens, **asked)

    def refusal(self, problem: str, after: str | None = None) -> Refusal:
        """Return the deserialiser's refusal; its position is the end of the field `after`, or of the body."""
        end = len(self.text)
        found = re.search(rf'"{after}"\s*:\s*', self.text) if after else None
        if found:
            _, end = json.JSONDecoder().raw_decode(self.text, found.end())
        before = self.text[:end]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2].encode())
        return deepseek_refusal(f"{DESERIALIZE}{problem} at line {line} column {column}", JSON_TYPE)

    def check_variant(self, where: str, value: object, allowed: Collection[str]) -> None:
        """Refuse a value in `messages` that is not in `allowed`."""
        if value not in allowed:
            names = ", ".join(f"`{name}`" for name in allowed)
            raise self.refusal(f"{where}: unknown variant `{value}`, expected one of {names}", "messages")


def chat_prompt(body: Body) -> Prompt:
    fields = body.json
    thinking = _thinking(fields, fields.get("reasoning_effort"))
    messages = _messages(body, thinking=thinking)
    if fields.get("stream_options") is not None and not fields.get("stream"):
        raise deepseek_refusal("stream_options should be set along with stream = true")
    return body.prompt(
        messages=messages,
        thinking=thinking,
        tools=tuple(mapping(mapping(tool).get("function")) for tool in sequence(fields.get("tools"))),
        choice=_choice(fields.get("tool_choice"), thinking=thinking),
        schema=_schema(messages) if _json_mode(fields) else None,
        stop=_stops(fields.get("stop")),
    )


def fim_prompt(body: Body) -> Prompt:
    """Read the body of a FIM completion, which has no thinking (DeepSeek docs: api/create-completion)."""
    messages = [{"role": "user", "content": body.json["prompt"]}]
    return body.prompt(messages=messages, stop=_stops(body.json.get("stop")))


def responses_prompt(body: Body) -> Prompt:
    """Read a body of `/responses`; unlike chat it supports JSON schemas (DeepSeek docs: guides/responses_api)."""
    fields = body.json
    thinking = _thinking(fields, mapping(fields.get("reasoning")).get("effort"))
    given = fields["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else list(map(mapping, sequence(given)))
    answered = [item.get("call_id") for item in items if item.get("type") == "function_call_output"]
    for item in items:
        if item.get("type") == "function_call" and item.get("call_id") not in answered:
            raise deepseek_refusal(f"No tool output found for tool call {item.get('call_id')}.")
    messages: list[Json] = [{"role": "system", "content": fields.get("instructions") or ""}]
    for item in items:
        result = item.get("type") == "function_call_output"
        role, content = ("tool", "output") if result else (item.get("role", "assistant"), "content")
        messages.append({"role": role, "content": item.get(content)})
    form = mapping(mapping(fields.get("text")).get("format"))
    schemas: dict[str, Json] = {"json_object": {}, "json_schema": mapping(form.get("schema"))}
    return body.prompt(
        "max_output_tokens",
        messages=messages,
        thinking=thinking,
        tools=tuple(tool for tool in map(mapping, sequence(fields.get("tools"))) if tool.get("type") == "function"),
        choice=_choice(fields.get("tool_choice"), thinking=thinking),
        schema=schemas.get(str(form.get("type"))),
    )


def _messages(body: Body, *, thinking: bool) -> list[Json]:
    messages = [mapping(message) for message in sequence(body.json["messages"])]
    if not messages:
        raise deepseek_refusal("Empty input messages")
    for index, message in enumerate(messages):
        body.check_variant(f"messages[{index}].role", message.get("role"), _ROLES)
        for part in sequence(message.get("content")):
            body.check_variant(f"messages[{index}]", mapping(part).get("type"), _PARTS)
    # Documented, but careful observers could not always provoke it. An empty string satisfies it (observed).
    silent = any(message["role"] == "assistant" and message.get("reasoning_content") is None for message in messages)
    if thinking and body.json.get("tools") and silent:
        raise deepseek_refusal("The `reasoning_content` in the thinking mode must be passed back to the API.")
    return messages


def _model(name: object) -> str:
    """Return the model that serves `name`; DeepSeek does not strip a provider's prefix (observed)."""
    if name in (*MODELS, *RETIRED):
        return str(name) if name in MODELS else MODELS[0]
    raise deepseek_refusal(f"The supported API model names are {', '.join(MODELS)}, but you passed {name}.")


def _thinking(fields: Json, effort: object) -> bool:
    """Thinking is on by default (DeepSeek docs: guides/thinking_mode), but off for the retired `deepseek-chat`."""
    default = "disabled" if fields.get("model") == "deepseek-chat" else "enabled"
    return mapping(fields.get("thinking")).get("type", default) != "disabled" and effort != "none"


def _choice(value: object, *, thinking: bool) -> str:
    """Return `auto`, `none`, `required`, or a function's name; thinking forbids the last two (recorded)."""
    named = mapping(value)  # chat nests the name, `/responses` does not
    name = mapping(named.get("function")).get("name") or named.get("name") or "auto"
    choice = value if isinstance(value, str) else str(name)
    if thinking and choice not in {"auto", "none"}:
        raise deepseek_refusal("Thinking mode does not support this tool_choice")
    return choice


def _json_mode(fields: Json) -> bool:
    """JSON mode needs the word in the prompt; only `/responses` has `json_schema` (DeepSeek docs: guides/json_mode)."""
    kind = mapping(fields.get("response_format")).get("type", "text")
    if kind not in ("text", "json_object"):
        raise deepseek_refusal("This response_format type is unavailable now")
    if kind == "json_object" and "json" not in json.dumps(fields["messages"]).lower():
        use = "to use 'response_format' of type 'json_object'."
        raise deepseek_refusal(f"Prompt must contain the word 'json' in some form {use}")
    return bool(kind == "json_object")


def _schema(messages: list[Json]) -> Json:
    """Return the schema in the first system message that holds one: DeepSeek follows it, and enforces nothing."""
    texts = (text_of(message.get("content")) for message in messages if message["role"] == "system")
    return next((schema for text in texts if (schema := schema_in(text))), Json())


def text_of(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(mapping(part).get("text", "")) for part in sequence(content))


def _limit(value: object) -> int | None:
    if value is not None and not (isinstance(value, int) and 1 <= value <= MAX_TOKENS):
        raise deepseek_refusal(f"Invalid max_tokens value, the valid range of max_tokens is [1, {MAX_TOKENS}]")
    return value


def _stops(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(map(str, sequence(value)))
