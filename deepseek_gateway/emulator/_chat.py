"""The bodies and streams of chat completions and fill-in-the-middle completions."""

from collections.abc import Iterator

from deepseek_gateway.emulator._ids import CREATED, digest
from deepseek_gateway.emulator._json import Json, to_json
from deepseek_gateway.emulator._turn import Token, Turn

_DONE = b"data: [DONE]\n\n"


def server_sent(value: Json, *, named: bool = False) -> bytes:
    """Return one event; only `/responses` names its events (OpenAI's format), others have `data:` lines alone."""
    name = f"event: {value['type']}\n".encode() if named else b""
    return name + b"data: " + to_json(value) + b"\n\n"


def chat_body(turn: Turn, logprobs: int | None) -> Json:
    """Return a chat completion: the fingerprint comes last, only thinking turns have `reasoning_content`."""
    message: Json = {"role": "assistant", "content": turn.text("content")}
    if turn.prompt.thinking:
        message["reasoning_content"] = turn.text("reasoning_content")
    if turn.calls:
        message["tool_calls"] = [
            {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for index, (call_id, name, arguments) in enumerate(turn.calls)
        ]
    choice = {"index": 0, "message": message, "logprobs": _logprobs(turn.tokens, logprobs)}
    return _body(turn, "chat.completion", choice | {"finish_reason": turn.finish_reason})


def chat_events(turn: Turn, logprobs: int | None, *, include_usage: bool) -> Iterator[bytes]:
    """Yield one event for each token, a last chunk with a choice and the usage, then `[DONE]`.

    `include_usage` only adds `"usage":null` to earlier chunks (DeepSeek docs: api/create-chat-completion; recorded).
    """
    thinking: Json = {"reasoning_content": None} if turn.prompt.thinking else {}

    def event(delta: Json, probabilities: Json | None = None, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": probabilities, "finish_reason": finish_reason}
        chunk = _chunk(turn, "chat.completion.chunk", choice)
        if finish_reason or include_usage:
            chunk["usage"] = _usage(turn) if finish_reason else None
        return server_sent(chunk)

    first = {"content": None, "reasoning_content": ""} if turn.prompt.thinking else {"content": ""}
    yield event({"role": "assistant"} | first)
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
        yield event(delta, _logprobs((token,), logprobs))
    yield event({"content": ""} | thinking, finish_reason=turn.finish_reason)
    yield _DONE


def fim_body(turn: Turn) -> Json:
    """Return a fill-in-the-middle completion (DeepSeek docs: api/create-completion; no recording)."""
    return _body(turn, "text_completion", _fim_choice(turn.text("content"), turn.finish_reason))


def fim_events(turn: Turn) -> Iterator[bytes]:
    for token in turn.tokens:
        yield server_sent(_chunk(turn, "text_completion", _fim_choice(token.text)))
    yield server_sent(_chunk(turn, "text_completion", _fim_choice("", turn.finish_reason)) | {"usage": _usage(turn)})
    yield _DONE


def _fim_choice(text: str, finish_reason: str | None = None) -> Json:
    return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}


def _body(turn: Turn, kind: str, choice: Json) -> Json:
    chunk = _chunk(turn, kind, choice)
    fingerprint = chunk.pop("system_fingerprint")
    return chunk | {"usage": _usage(turn), "system_fingerprint": fingerprint}


def _chunk(turn: Turn, kind: str, choice: Json) -> Json:
    """Return a chunk; its fingerprint is 32 hexadecimal digits, as since August 2026 (recorded)."""
    head = {"id": turn.id, "object": kind, "created": CREATED, "model": turn.prompt.model}
    return head | {"system_fingerprint": digest("fingerprint", turn.prompt.model)[:32], "choices": [choice]}


def _usage(turn: Turn) -> Json:
    """Return the usage in DeepSeek's key order; only thinking turns show thinking tokens."""
    prompt, cached, completion, thought = turn.counts
    details = {"completion_tokens_details": {"reasoning_tokens": thought}} if turn.prompt.thinking else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        **details,
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
    }


def _logprobs(tokens: tuple[Token, ...], top: int | None) -> Json | None:
    """Return the log probabilities by kind; a kind without a token has no key (recorded)."""
    if top is None:
        return None
    kinds = [kind for kind in ("content", "reasoning_content") if any(token.kind == kind for token in tokens)]
    return {kind: [_logprob(token.text, top) for token in tokens if token.kind == kind] for kind in kinds} or None


def _logprob(text: str, top: int) -> Json:
    ranked = [(text, -0.01), *((text + "~" * rank, -2.0 * rank) for rank in range(1, top))]
    items = [{"token": token, "logprob": logprob, "bytes": list(token.encode())} for token, logprob in ranked]
    return {**items[0], "top_logprobs": items if top else []}
