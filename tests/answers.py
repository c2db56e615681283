"""Responses of the gateway and of DeepSeek: error envelopes and the events of streams."""

from __future__ import annotations

import json
from typing import Any

from loopback import EVENTS

# The SDK waits only this long before a retry, so that tests of retries are fast.
AT_ONCE = {"retry-after-ms": "1"}
LOGGED = {"cf-aig-log-id": "01jadmcq8g0e4k", "cf-ray": "8f0-FRA", "server": "cloudflare"}
DONE = b"data: [DONE]\n\n"
SPENT = "Spend limit exceeded: rule 'r1' (cost limit 5 per 3600s, fixed) for deepseek deepseek-flash"


def long_form(status: int, code: int, text: str) -> dict[str, Any]:
    """Return the gateway's full envelope (observed 2026-07-31 and 2026-10-02)."""
    return {
        "success": False,
        "result": [],
        "messages": [],
        "error": [{"code": code, "message": text}],
        "name": "AiGatewayError",
        "httpCode": status,
        "internalCode": code,
        "message": text,
        "description": text,
    }


def short_form(code: int, text: str) -> dict[str, Any]:
    return {"success": False, "error": [{"code": code, "message": text}]}


def rest_form(code: int, text: str) -> dict[str, Any]:
    return {"success": False, "errors": [{"code": code, "message": text}], "messages": [], "result": None}


def policy_form(text: str, **more: Any) -> dict[str, Any]:
    return {"success": False, "error": {"message": text, **more}}


def to_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def event(content: str) -> bytes:
    """Return one event of a chat stream, as DeepSeek frames it."""
    chunk = {**EVENTS[0], "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": []}


def response_event(kind: str, **fields: Any) -> bytes:
    """Return one event of a `/responses` stream."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


DELTA = {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "Hi", "sequence_number": 1}
RESPONSE_EVENTS = (
    response_event("response.created", response=RESPONSE),
    response_event("response.output_text.delta", **DELTA),
    response_event("response.completed", response={**RESPONSE, "instructions": "long " * 200}),
)
