"""A JSON answer as the event stream that was asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Object: TypeAlias = dict[str, Any]


def as_events(answer: Object) -> bytes:
    """Turn a whole answer into events. With guardrails on, the gateway answers a streamed call with JSON.

    (Cloudflare docs: features/guardrails/usage-considerations.)
    """
    if answer.get("object") == "response":
        events = ({**event, "sequence_number": number} for number, event in enumerate(_response_events(answer)))
        return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
    # A plain completion (FIM) has the form of a chunk already.
    chunks = [answer] if answer.get("object") == "text_completion" else _chunks(answer)
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"


def _chunks(answer: Object) -> Iterator[Object]:
    """Cut a chat completion into chunks in DeepSeek's order: thinking, text, tool calls, finish reason and usage."""
    common = {key: value for key, value in answer.items() if key != "usage"} | {"object": "chat.completion.chunk"}
    choices: list[Object] = answer["choices"]
    for number, choice in enumerate(choices):
        index = choice.get("index", number)
        message: Object = dict(choice["message"])
        tools: list[Object] = message.pop("tool_calls", None) or []
        first = {"role": message.pop("role", "assistant")}
        deltas: list[Object] = [first, *({key: value} for key, value in message.items() if value)]
        deltas.sort(key=lambda delta: "content" in delta)  # thinking comes before the answer
        deltas += [{"tool_calls": [{"index": position, **call}]} for position, call in enumerate(tools)]
        for position, delta in enumerate(deltas):
            last = position == len(deltas) - 1
            end = {name: choice.get(name) if last else None for name in ("logprobs", "finish_reason")}
            chunk = {**common, "choices": [{"index": index, "delta": delta, **end}]}
            if last and number == len(choices) - 1 and "usage" in answer:
                chunk["usage"] = answer["usage"]
            yield chunk


_FIELDS = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}  # of the parts that are streamed


def _response_events(answer: Object) -> Iterator[Object]:
    """Cut a `/responses` object into events. The last event holds the whole object."""
    begun: Object = {**answer, "status": "in_progress", "output": []}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(answer.get("output") or []):
        at = {"item_id": item.get("id", ""), "output_index": index}
        blank: Object = {"status": "in_progress", "content": [], "arguments": ""}
        empty = {**item, **{key: value for key, value in blank.items() if key in item}}
        yield {"type": "response.output_item.added", "output_index": index, "item": empty}
        for position, part in enumerate(item.get("content") or []):
            where = {**at, "content_index": position}
            name, field = part.get("type"), _FIELDS.get(part.get("type"), "")
            yield {"type": "response.content_part.added", **where, "part": {**part, field: ""} if field else part}
            if field:
                extra: Object = {"logprobs": part.get("logprobs") or []} if name == "output_text" else {}
                yield {"type": f"response.{name}.delta", **where, "delta": part.get(field, ""), **extra}
                yield {"type": f"response.{name}.done", **where, field: part.get(field, ""), **extra}
            yield {"type": "response.content_part.done", **where, "part": part}
        if "arguments" in item:
            call = {"name": item.get("name", ""), "arguments": item["arguments"]}
            yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
            yield {"type": "response.function_call_arguments.done", **at, **call}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    status = answer.get("status")
    terminal = status if status in {"failed", "incomplete"} else "completed"
    yield {"type": f"response.{terminal}", "response": answer}
