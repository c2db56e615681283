"""The bodies and streams of `/responses`, OpenAI's format that DeepSeek serves (DeepSeek docs: guides/responses_api).

No recording of DeepSeek's own bytes is known. Keys and events are those of OpenAI's format, with the thinking in a
reasoning item as `reasoning_text`.
"""

from collections.abc import Iterator

from deepseek_gateway.emulator._chat import server_sent
from deepseek_gateway.emulator._ids import CREATED, digest
from deepseek_gateway.emulator._json import Json, mapping, sequence
from deepseek_gateway.emulator._turn import Token, Turn

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def responses_body(turn: Turn, fields: Json, *, done: bool = True) -> Json:
    """Return a response object, finished or as a stream begins with it; `fields` are those of the request."""
    prompt, cached, completion, thought = turn.counts
    cut = _INCOMPLETE.get(turn.finish_reason) if done else None
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": prompt + completion,
    }
    return {
        "id": f"resp_{digest('resp', turn.prompt.seed)[:48]}",
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress" if not done else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": cut} if cut else None,
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "model": turn.prompt.model,
        "output": [_item(turn, kind, call) for kind, call, _ in _outputs(turn)] if done else [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": mapping(fields.get("reasoning")).get("effort"), "summary": None},
        "store": False,
        "temperature": fields.get("temperature", 1.0),
        "text": mapping(fields.get("text")) or {"format": {"type": "text"}},
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": sequence(fields.get("tools")),
        "top_p": fields.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": usage if done else None,
        "user": None,
        "metadata": {},
    }


def responses_events(turn: Turn, fields: Json) -> Iterator[bytes]:
    """Yield the named, numbered events of a response; the last one holds the whole response, there is no `[DONE]`."""
    whole = responses_body(turn, fields)
    begun = responses_body(turn, fields, done=False)
    events: list[Json] = [{"type": f"response.{name}", "response": begun} for name in ("created", "in_progress")]
    for index, (kind, call, tokens) in enumerate(_outputs(turn)):
        item, added = _item(turn, kind, call), _item(turn, kind, call, done=False)
        events.append({"type": "response.output_item.added", "output_index": index, "item": added})
        events += _item_events(turn, kind, call, tokens, {"item_id": item["id"], "output_index": index})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{whole['status']}", "response": whole})
    for number, event in enumerate(events):
        yield server_sent({"type": event["type"], "sequence_number": number} | event, named=True)


def _outputs(turn: Turn) -> Iterator[tuple[str, int, list[Token]]]:
    """Yield kind, tool call and tokens of each output item: the thinking, the text, every call."""
    for kind in ("reasoning_content", "content"):
        if tokens := [token for token in turn.tokens if token.kind == kind]:
            yield kind, 0, tokens
    for call in range(len(turn.calls)):
        yield "call", call, [token for token in turn.tokens if token.kind == "arguments" and token.call == call]


def _item(turn: Turn, kind: str, call: int, *, done: bool = True) -> Json:
    """Return an output item, finished or as it first appears in a stream."""
    seed = digest(kind, turn.prompt.seed, call)[:32]
    status = "completed" if done else "in_progress"
    content = [_part(turn, kind)] if done else []
    if kind == "reasoning_content":
        return {"id": f"rs_{seed}", "type": "reasoning", "summary": [], "content": content, "status": status}
    if kind == "content":
        return {"id": f"msg_{seed}", "type": "message", "status": status, "content": content, "role": "assistant"}
    call_id, name, arguments = turn.calls[call]
    item = {"id": f"fc_{seed}", "type": "function_call", "status": status, "arguments": arguments if done else ""}
    return item | {"call_id": call_id, "name": name}


def _part(turn: Turn, kind: str, *, done: bool = True) -> Json:
    text = turn.text(kind) if done else ""
    if kind == "content":
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    return {"type": "reasoning_text", "text": text}


def _item_events(turn: Turn, kind: str, call: int, tokens: list[Token], where: Json) -> Iterator[Json]:
    if kind == "call":
        _, name, arguments = turn.calls[call]
        stem = "response.function_call_arguments"
        for token in tokens:
            yield {"type": f"{stem}.delta"} | where | {"delta": token.text}
        yield {"type": f"{stem}.done"} | where | {"name": name, "arguments": arguments}
        return
    stem = "response.output_text" if kind == "content" else "response.reasoning_text"
    more: Json = {"logprobs": []} if kind == "content" else {}
    where = where | {"content_index": 0}
    yield {"type": "response.content_part.added"} | where | {"part": _part(turn, kind, done=False)}
    for token in tokens:
        yield {"type": f"{stem}.delta"} | where | {"delta": token.text} | more
    yield {"type": f"{stem}.done"} | where | {"text": turn.text(kind)} | more
    yield {"type": "response.content_part.done"} | where | {"part": _part(turn, kind)}
