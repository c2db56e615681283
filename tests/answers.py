"""What the gateway and DeepSeek answer: error envelopes, events of streams, and how a test collects them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import chat
from loopback import EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway import GatewayConfig

    Call = Callable[..., Any]

# The SDK waits as long as this tells, so that tests of retries need not.
AT_ONCE = {"retry-after-ms": "1"}
LOGGED = {"cf-aig-log-id": "01jadmcq8g0e4k", "cf-ray": "8f0-FRA", "server": "cloudflare"}
DONE = b"data: [DONE]\n\n"


def long_form(status: int, code: int, text: str) -> dict[str, Any]:
    """The gateway's full envelope (observed 2026-07-31 and 2026-10-02)."""
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


SPENT = "Spend limit exceeded: rule 'r1' (cost limit 5 per 3600s, fixed) for deepseek deepseek-flash"


def failing(call: Call, config: GatewayConfig, use: Callable[[Any], Any] = chat, **options: Any) -> Any:
    with pytest.raises(openai.APIStatusError) as caught:
        call(config, use, **({"max_retries": 1} | options))
    return caught.value


def to_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()


def event(content: Any, **more: Any) -> bytes:
    chunk = {**EVENTS[0], "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "output": []}


def response_event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


DELTA = {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "Hi", "sequence_number": 1}
ANSWERED = (
    response_event("response.created", response=RESPONSE),
    response_event("response.output_text.delta", **DELTA),
    response_event("response.completed", response={**RESPONSE, "instructions": "long " * 200}),
)


class Collected(list[Any]):
    """What was delivered of a stream before it ended or raised."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Any = None


def collect(flavour: str, config: GatewayConfig, use: Callable[[Any], Any], **options: Any) -> Collected:
    """Read a stream to its end, keeping what came before an error."""
    import asyncio  # noqa: PLC0415

    from deepseek_gateway import create_async_client, create_client  # noqa: PLC0415

    got = Collected()
    if flavour == "sync":
        with create_client(config, **options) as client:
            try:
                for item in use(client):
                    got.append(item)
            except openai.OpenAIError as error:
                got.error = error
        return got

    async def main() -> None:
        async with create_async_client(config, transport=flavour, **options) as client:  # type: ignore[arg-type]
            try:
                async for item in await use(client):
                    got.append(item)
            except openai.OpenAIError as error:
                got.error = error

    asyncio.run(main())
    return got


def streamed(client: Any) -> Any:
    return chat(client, stream=True)


def responses_streamed(client: Any) -> Any:
    return client.responses.create(model="m", input="x", stream=True)
