"""What the raw server answers to a good request. The emulator says the same sentence, so callers expect one text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.loopback import COMPLETION

MARKER = re.compile(r"chaos-[\w-]+")
"""Names one call. The ends below are those of special calls."""

IS_HASTY, WARM_UP = "-hasty", "-first"
"""A hasty call has a short timeout. The first calls of a caller meet no fault, so that everything is imported."""

_SENTENCE = "This is a canned answer from the local AI Gateway emulator. You asked: "
_WORD = re.compile(r'"const": ?"(\w+)"')
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "deepseek-flash",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
}


@dataclass(frozen=True)
class Reply:
    """The body of a success: one JSON object, or the events of a stream."""

    pieces: tuple[bytes, ...]
    streamed: bool

    @property
    def content_type(self) -> str:
        return "text/event-stream" if self.streamed else "application/json"

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def expected(question: str) -> str:
    """Return the only right answer to a question."""
    return _SENTENCE + question


def marker_in(body: bytes) -> str:
    found = MARKER.search(body.decode("utf-8", "replace"))
    return found.group() if found else ""


def reply_to(path: str, request: dict[str, Any]) -> Reply:
    """Answer a request of chat or of `/responses`. A schema with a constant word is answered with that word."""
    if path.endswith("/responses"):
        return _response(expected(request["input"]), streamed=bool(request.get("stream")))
    word = _WORD.search(request["messages"][0]["content"])
    text = json.dumps({"word": word.group(1)}) if word else expected(request["messages"][-1]["content"])
    if not request.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Reply((_json(COMPLETION | {"choices": [choice]}),), streamed=False)
    chunks = [_chunk({"role": "assistant", "content": ""}), *(_chunk({"content": each}) for each in _words(text))]
    return Reply((*chunks, _chunk({"content": ""}, "stop"), b"data: [DONE]\n\n"), streamed=True)


def _json(value: dict[str, Any]) -> bytes:
    """Write JSON as DeepSeek does: text in UTF-8, so that a piece may end inside a character."""
    return json.dumps(value, ensure_ascii=False).encode()


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+", text)


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = COMPLETION | {"object": "chat.completion.chunk", "choices": [choice]}
    return b"data: %s\n\n" % _json(chunk)


def _response(text: str, *, streamed: bool) -> Reply:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}
    whole = _RESPONSE | {"status": "completed", "output": [item]}
    if not streamed:
        return Reply((_json(whole),), streamed=False)
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _RESPONSE | {"status": "in_progress", "output": []}},
        *({"type": "response.output_text.delta", "delta": each} | where for each in _words(text)),
        {"type": "response.completed", "response": whole},
    ]
    numbered = ({"sequence_number": number} | event for number, event in enumerate(events))
    named = (b"event: %s\ndata: %s\n\n" % (event["type"].encode(), _json(event)) for event in numbered)
    return Reply(tuple(named), streamed=True)
