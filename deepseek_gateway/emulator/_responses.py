"""The shapes of `/responses`: OpenAI's format, which DeepSeek serves natively (DeepSeek docs: guides/responses_api).

Facts are thin here: no recording of DeepSeek's own bytes is known, so keys and events are those of OpenAI's format,
with the thinking in a reasoning item as `reasoning_text`.
"""

from collections.abc import Iterator

from deepseek_gateway.emulator._answers import CREATED, Json, Token, Turn, digest, server_sent
from deepseek_gateway.emulator._exchange import mapping, sequence


def _item(turn: Turn, kind: str, call: int = 0, *, done: bool = True) -> Json:
    """Return an output item, finished or as it is when it appears in a stream."""
    seed = digest(kind, turn.prompt.seed, call)[:32]
    status = "completed" if done else "in_progress"
    if kind == "reasoning_content":
        content = [_part(turn, kind)] if done else []
        return {"id": f"rs_{seed}", "type": "reasoning", "summary": [], "content": content, "status": status}
    if kind == "content":
        content = [_part(turn, kind)] if done else []
        return {"id": f"msg_{seed}", "type": "message", "status": status, "content": content, "role": "assistant"}
    call_id, name, arguments = turn.calls[call]
    item = {"id": f"fc_{seed}", "type": "function_call", "status": status, "arguments": arguments if done else ""}
    return item | {"call_id": call_id, "name": name}


def _part(turn: Turn, kind: str, *, done: bool = True) -> Json:
    text = turn.text(kind) if done else ""
    if kind == "content":
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"type": "reasoning_text", "text": text}


def _runs(turn: Turn) -> Iterator[tuple[str, int, list[Token]]]:
    """Yield what becomes an output item each: the thinking, the text, every call."""
    for kind in ("reasoning_content", "content"):
        run = [token for token in turn.tokens if token.kind == kind]
        if run:
            yield kind, 0, run
    for call in range(len(turn.calls)):
        yield "call", call, [token for token in turn.tokens if token.kind == "arguments" and token.call == call]


def responses_body(turn: Turn, asked: Json, *, done: bool = True) -> Json:
    """Return a response object, finished or as it is when a stream begins."""
    prompt_tokens, cached, answered, thought = turn.counts
    cut = done and turn.finish_reason == "length"
    return {
        "id": f"resp_{digest('resp', turn.prompt.seed)[:48]}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress" if not done else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "model": turn.prompt.model,
        "output": [_item(turn, kind, call) for kind, call, _ in _runs(turn)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": mapping(asked.get("reasoning")).get("effort"), "summary": None},
        "store": False,
        "temperature": asked.get("temperature", 1.0),
        "text": mapping(asked.get("text")) or {"format": {"type": "text"}},
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": sequence(asked.get("tools")),
        "top_p": asked.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": {
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": answered,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": prompt_tokens + answered,
        }
        if done
        else None,
        "user": None,
        "metadata": {},
    }


def responses_events(turn: Turn, asked: Json) -> Iterator[bytes]:
    """Yield the named, numbered events of a response; there is no `[DONE]`, the last event holds the whole answer."""
    whole = responses_body(turn, asked)
    begun = responses_body(turn, asked, done=False)
    events: list[Json] = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
    for index, (kind, call, run) in enumerate(_runs(turn)):
        item = _item(turn, kind, call)
        events.append(
            {
                "type": "response.output_item.added",
                "output_index": index,
                "item": _item(turn, kind, call, done=False),
            }
        )
        events += _item_events(turn, kind, call, run, {"item_id": item["id"], "output_index": index})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    for number, event in enumerate(events):
        yield server_sent({"type": event["type"], "sequence_number": number} | event, named=True)


def _item_events(turn: Turn, kind: str, call: int, run: list[Token], where: Json) -> Iterator[Json]:
    if kind == "call":
        _, name, arguments = turn.calls[call]
        stem = "response.function_call_arguments"
        for token in run:
            yield {"type": f"{stem}.delta"} | where | {"delta": token.text}
        yield {"type": f"{stem}.done"} | where | {"name": name, "arguments": arguments}
        return
    stem = "response.output_text" if kind == "content" else "response.reasoning_text"
    more: Json = {"logprobs": []} if kind == "content" else {}
    where = where | {"content_index": 0}
    yield {"type": "response.content_part.added"} | where | {"part": _part(turn, kind, done=False)}
    for token in run:
        yield {"type": f"{stem}.delta"} | where | {"delta": token.text} | more
    yield {"type": f"{stem}.done"} | where | {"text": turn.text(kind)} | more
    yield {"type": "response.content_part.done"} | where | {"part": _part(turn, kind)}
