"""The emulated DeepSeek. It sees only what reaches it: no gateway header, no gateway token, the path below its host.

What it says is in `_answers` and `_responses`; here is what it accepts, and how it refuses.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from deepseek_gateway.emulator._answers import (
    Json,
    Prompt,
    chat_body,
    chat_chunks,
    digest,
    fim_body,
    fim_chunks,
    take_turn,
)
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply, json_reply, mapping, parse, sequence, to_json
from deepseek_gateway.emulator._responses import responses_body, responses_events

MODELS = ("deepseek-flash", "deepseek-v4-pro")
# Retired names were still served in September 2026, by deepseek-flash and under that name (observed).
RETIRED = ("deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp")
MOST_TOKENS = 393216
_MOST_LOGPROBS = 20

_JSON = "application/json"
# The model layer labels its errors as bytes although they are JSON (recorded).
_BYTES = "application/octet-stream"
_ROLES = ("system", "user", "assistant", "tool", "latest_reminder")
_PARTS = ("text", "image_url", "file")
_DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


class DeepSeekError(Exception):
    """An error in DeepSeek's words: `{"error":{"message","type","param":null,"code"}}`, or bare text.

    The code is `invalid_request_error` almost whatever happened (DeepSeek docs: quick_start/error_codes; observed).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str | None = "invalid_request_error",
        code: str = "invalid_request_error",
        content_type: str | None = _BYTES,
    ) -> None:
        """Keep what the body says; `kind` is None for a plain-text error."""
        super().__init__(message)
        self.message, self.status, self.kind, self.code, self.content_type = message, status, kind, code, content_type

    def reply(self, message: str | None = None) -> Reply:
        """Return the error as it goes over the wire, perhaps with another message."""
        text = self.message if message is None else message
        if self.kind is None:
            headers = (("content-type", self.content_type),) if self.content_type else ()
            return Reply(status=self.status, headers=headers, chunks=(text.encode(),))
        error = {"message": text, "type": self.kind, "param": None, "code": self.code}
        return json_reply(self.status, {"error": error}, self.content_type or _JSON)


def wrong_key(key: str) -> DeepSeekError:
    """DeepSeek repeats the last four characters of a key that it does not know (recorded), a short one whole."""
    shown = "****" + key[-4:] if len(key) > len("****") else key
    message = f"Authentication Fails, Your api key: {shown} is invalid"
    return DeepSeekError(message, status=401, kind="authentication_error", content_type=_JSON)


# Text of 400 to 503 as documented or observed. No body of a 500 is known: that one is only of the family's shape.
# The content type of 402, 429, 500 and 503 is unknown.
STATUS_ERRORS: Mapping[int, DeepSeekError] = {
    400: DeepSeekError("Content Exists Risk"),
    401: wrong_key("emulated-key"),
    402: DeepSeekError("Insufficient Balance", status=402, kind="unknown_error", content_type=_JSON),
    422: DeepSeekError(
        _DESERIALIZE + "missing field `messages` at line 4 column 1", status=422, kind=None, content_type="text/plain"
    ),
    429: DeepSeekError(
        "Too many requests. Your current concurrency is 26, which exceeds your concurrency limit of 25 based on your "
        "remaining balance. Please top up your balance to restore your concurrency.",
        status=429,
        kind="rate_limit_error",
        content_type=_JSON,
    ),
    500: DeepSeekError(
        "Server error, please retry.", status=500, kind="server_error", code="server_error", content_type=_JSON
    ),
    503: DeepSeekError(
        "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers.",
        status=503,
        kind="service_unavailable_error",
        code="service_unavailable_error",
        content_type=_JSON,
    ),
}


@dataclass(frozen=True, slots=True)
class Body:
    """A request body that is a JSON object, and its text for the positions that error messages give."""

    text: str
    json: Json

    @classmethod
    def of(cls, request: ReceivedRequest) -> "Body":
        """Parse the body of `request`."""
        text = request.body.decode(errors="replace")
        try:
            value = parse(text)
        except ValueError as error:
            raise DeepSeekError(f"Failed to parse the request body as JSON: {error}", content_type=_JSON) from None
        return cls(text, mapping(value))

    @property
    def seed(self) -> str:
        """Return what ids are derived from: the question, not whether the answer is streamed."""
        return digest({name: value for name, value in self.json.items() if not name.startswith("stream")})

    def refuse(self, problem: str, after: str | None = None) -> DeepSeekError:
        """Return the error of a body of another shape; its position is the end of the field `after`, or of the body."""
        end = len(self.text)
        found = re.search(rf'"{after}"\s*:\s*', self.text) if after else None
        if found:
            _, end = json.JSONDecoder().raw_decode(self.text, found.end())
        before = self.text[:end]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2].encode())
        return DeepSeekError(f"{_DESERIALIZE}{problem} at line {line} column {column}", content_type=_JSON)

    def require(self, *fields: str) -> None:
        """Refuse the body unless it has all of `fields`."""
        for name in fields:
            if self.json.get(name) is None:
                raise self.refuse(f"missing field `{name}`")

    def one_of(self, problem: str, value: str, allowed: Collection[str], after: str) -> None:
        """Refuse a value that is not in `allowed`, as the deserialiser words it."""
        if value not in allowed:
            names = ", ".join(f"`{name}`" for name in allowed)
            expected = f"expected one of {names}" if len(allowed) > 1 else f"expected {names}"
            raise self.refuse(f"{problem}: unknown variant `{value}`, {expected}", after)


class DeepSeek:
    """The upstream service, with the keys it knows."""

    def __init__(self, keys: Collection[str]) -> None:
        """Serve requests that carry one of `keys`."""
        self._keys = frozenset(keys)
        self._served = 0

    def answer(self, request: ReceivedRequest, error: Reply | None = None) -> Reply:
        """Answer one request, if not with `error`."""
        self._served += 1
        try:
            if error is None:
                self._authenticate(request.headers.get("authorization", ""))
            reply = error or self._route(request)
        except DeepSeekError as refusal:
            reply = refusal.reply()
        return reply.with_headers(("x-ds-trace-id", digest("trace", self._served)[:32]))

    def _authenticate(self, authorization: str) -> None:
        key = re.sub(r"^bearer\b\s*", "", authorization.strip(), flags=re.IGNORECASE)
        if not key:
            raise DeepSeekError("Authentication Fails (governor)", status=401, kind=None, content_type=None)
        if key not in self._keys:
            raise wrong_key(key)

    def _route(self, request: ReceivedRequest) -> Reply:
        """Find the endpoint; `/v1` and `/beta` may precede any of them, and FIM is under `/beta` only."""
        beta = request.path.startswith("/beta/")
        name = request.path.removeprefix("/beta" if beta else "/v1")
        endpoints: dict[str, tuple[str, Callable[[ReceivedRequest], Reply]]] = {
            "/chat/completions": ("POST", _chat),
            "/completions": ("POST", _fim if beta else _fim_elsewhere),
            "/responses": ("POST", _responses),
            "/models": ("GET", _models),
            "/user/balance": ("GET", _balance),
        }
        if name not in endpoints:
            return Reply(status=404)
        method, endpoint = endpoints[name]
        if request.method != method:
            return Reply(status=405, headers=(("allow", method),))
        return endpoint(request)


def _model(name: object) -> str:
    """Return the name under which `name` is served; a provider prefix is not stripped here (observed)."""
    if name in MODELS:
        return str(name)
    if name in RETIRED:
        return MODELS[0]
    raise DeepSeekError(f"The supported API model names are {', '.join(MODELS)}, but you passed {name}.")


def _limit(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
        raise DeepSeekError(f"Invalid max_tokens value, the valid range of max_tokens is [1, {MOST_TOKENS}]")
    return value


def _top(value: object) -> int:
    return min(value, _MOST_LOGPROBS) if isinstance(value, int) else 0


def _thinks(asked: Json, effort: object) -> bool:
    """Thinking is on by default (DeepSeek docs: guides/thinking_mode); the retired `deepseek-chat` meant it off."""
    default = "disabled" if asked.get("model") == "deepseek-chat" else "enabled"
    kind = str(mapping(asked.get("thinking")).get("type", default))
    return kind != "disabled" and effort != "none"


def _choice(value: object) -> str:
    """Return `auto`, `none`, `required`, or the name of the function; chat nests the name, `/responses` does not."""
    if isinstance(value, str):
        return value
    named = mapping(value)
    return str(mapping(named.get("function")).get("name") or named.get("name") or "auto")


def _check_choice(prompt: Prompt) -> Prompt:
    """Refuse a forced tool in thinking mode (recorded)."""
    if prompt.thinking and prompt.choice not in {"auto", "none"}:
        raise DeepSeekError("Thinking mode does not support this tool_choice")
    return prompt


def _check_messages(body: Body, *, thinking: bool) -> list[Json]:
    messages = [mapping(message) for message in sequence(body.json["messages"])]
    if not messages:
        raise DeepSeekError("Empty input messages")
    for index, message in enumerate(messages):
        body.one_of(f"messages[{index}].role", str(message.get("role")), _ROLES, "messages")
        for part in sequence(message.get("content")):
            body.one_of(f"messages[{index}]", str(mapping(part).get("type")), _PARTS, "messages")
    # Documented so; careful observers could not always provoke it. An empty string satisfies it (observed).
    silent = any(message["role"] == "assistant" and message.get("reasoning_content") is None for message in messages)
    if thinking and body.json.get("tools") and silent:
        raise DeepSeekError("The `reasoning_content` in the thinking mode must be passed back to the API.")
    return messages


def _json_mode(asked: Json) -> bool:
    """`json_schema` is for `/responses` only, and JSON mode needs the word in the prompt (guides/json_mode)."""
    kind = str(mapping(asked.get("response_format")).get("type", "text"))
    if kind not in {"text", "json_object"}:
        raise DeepSeekError("This response_format type is unavailable now")
    if kind == "json_object" and "json" not in json.dumps(asked["messages"]).lower():
        raise DeepSeekError(
            "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'."
        )
    return kind == "json_object"


def _stops(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(stop) for stop in sequence(value))


def _chat(request: ReceivedRequest) -> Reply:
    body = Body.of(request)
    body.require("model", "messages")
    asked = body.json
    thinking = _thinks(asked, asked.get("reasoning_effort"))
    messages = _check_messages(body, thinking=thinking)
    if asked.get("stream_options") is not None and not asked.get("stream"):
        raise DeepSeekError("stream_options should be set along with stream = true")
    prompt = _check_choice(
        Prompt(
            seed=body.seed,
            model=_model(asked["model"]),
            messages=messages,
            thinking=thinking,
            tools=[mapping(mapping(tool).get("function")) for tool in sequence(asked.get("tools"))],
            choice=_choice(asked.get("tool_choice")),
            schema={} if _json_mode(asked) else None,
            max_tokens=_limit(asked.get("max_tokens")),
            stop=_stops(asked.get("stop")),
        )
    )
    turn = take_turn(prompt)
    logprobs = _top(asked.get("top_logprobs")) if asked.get("logprobs") else None
    include_usage = bool(mapping(asked.get("stream_options")).get("include_usage"))
    return _answer(asked, chat_body(turn, logprobs), chat_chunks(turn, logprobs, include_usage=include_usage))


def _answer(asked: Json, whole: Json, events: Iterable[bytes]) -> Reply:
    """Return the answer as a whole or, if that was asked for, as a stream of events."""
    if not asked.get("stream"):
        return json_reply(200, whole)
    headers = (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
    return Reply(status=200, headers=headers, chunks=tuple(events), streamed=True, unstreamed=to_json(whole))


def _fim(request: ReceivedRequest) -> Reply:
    """Fill in the middle, without thinking (DeepSeek docs: api/create-completion)."""
    body = Body.of(request)
    body.require("model", "prompt")
    prompt = Prompt(
        seed=body.seed,
        model=_model(body.json["model"]),
        messages=[{"role": "user", "content": body.json["prompt"]}],
        thinking=False,
        tools=[],
        max_tokens=_limit(body.json.get("max_tokens")),
        stop=_stops(body.json.get("stop")),
    )
    turn = take_turn(prompt)
    return _answer(body.json, fim_body(turn), fim_chunks(turn))


def _fim_elsewhere(_: ReceivedRequest) -> Reply:
    raise DeepSeekError(
        'completions api is only available when using beta api (set base_url="https://api.deepseek.com/beta")'
    )


def _as_message(item: Json) -> Json:
    """Return an input item of `/responses` as the chat message that it amounts to."""
    if item.get("type") == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    return {"role": item.get("role", "assistant"), "content": item.get("content")}


def _responses(request: ReceivedRequest) -> Reply:
    """OpenAI's Responses format, stateless; unlike chat it knows JSON schemas (DeepSeek docs: guides/responses_api)."""
    body = Body.of(request)
    body.require("model", "input")
    asked = body.json
    said = asked["input"]
    items = [{"role": "user", "content": said}] if isinstance(said, str) else [mapping(item) for item in sequence(said)]
    answered = [item.get("call_id") for item in items if item.get("type") == "function_call_output"]
    for item in items:
        if item.get("type") == "function_call" and item.get("call_id") not in answered:
            raise DeepSeekError(f"No tool output found for tool call {item.get('call_id')}.")
    form = mapping(mapping(asked.get("text")).get("format"))
    schemas: dict[str, Json] = {"json_object": {}, "json_schema": mapping(form.get("schema"))}
    prompt = _check_choice(
        Prompt(
            seed=body.seed,
            model=_model(asked["model"]),
            messages=[{"role": "system", "content": asked.get("instructions") or ""}, *map(_as_message, items)],
            thinking=_thinks(asked, mapping(asked.get("reasoning")).get("effort")),
            tools=[mapping(tool) for tool in sequence(asked.get("tools")) if mapping(tool).get("type") == "function"],
            choice=_choice(asked.get("tool_choice")),
            schema=schemas.get(str(form.get("type"))),
            max_tokens=_limit(asked.get("max_output_tokens")),
        )
    )
    turn = take_turn(prompt)
    return _answer(asked, responses_body(turn, asked), responses_events(turn, asked))


def _models(_: ReceivedRequest) -> Reply:
    """The list as documented since October 2026; there is no `created` (DeepSeek docs: api/list-models)."""
    return json_reply(200, {"object": "list", "data": [model_entry(name) for name in MODELS]})


def model_entry(name: str) -> Json:
    """Return one item of the list of models."""
    return {
        "id": name,
        "object": "model",
        "owned_by": "deepseek",
        "name": {"deepseek-flash": "DeepSeek-V4.1-Flash", "deepseek-v4-pro": "DeepSeek-V4-Pro"}[name],
        "context_window": 1048576,
        "max_output_tokens": MOST_TOKENS,
        "input_modalities": ["text", "image"] if name == "deepseek-flash" else ["text"],
        "output_modalities": ["text"],
        "effort": {"supported_levels": ["none", "low", "high", "max"], "default_level": "high"},
        "api_capabilities": ["chat_completions", "responses", "fim_completions"],
    }


def _balance(_: ReceivedRequest) -> Reply:
    """Amounts are strings (DeepSeek docs: api/get-user-balance)."""
    amounts = {"total_balance": "10.00", "granted_balance": "0.00", "topped_up_balance": "10.00"}
    return json_reply(200, {"is_available": True, "balance_infos": [{"currency": "USD", **amounts}]})
