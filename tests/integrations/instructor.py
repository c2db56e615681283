from __future__ import annotations

import json
from typing import Any

import instructor

from integrations import MESSAGES, WEATHER, Answer, weather

__all__ = ["instructor"]


def ask(client: Any, _: Any) -> Any:
    return client.create(model="deepseek-flash", messages=MESSAGES, response_model=None).choices[0].message.content


async def ask_async(_: Any, client: Any) -> Any:
    answer = await client.create(model="deepseek-flash", messages=MESSAGES, response_model=None)
    return answer.choices[0].message.content


def stream(client: Any, _: Any) -> list[Any]:
    return list(client.create_partial(model="deepseek-flash", messages=MESSAGES, response_model=Answer))


async def stream_async(_: Any, client: Any) -> list[Any]:
    partials = client.create_partial(model="deepseek-flash", messages=MESSAGES, response_model=Answer)
    return [partial async for partial in partials]


def use_tool(client: Any, _: Any) -> Any:
    options = {"model": "deepseek-flash", "response_model": None, "tools": [WEATHER]}
    first = client.create(messages=MESSAGES, **options).choices[0].message
    (call,) = first.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": weather(**json.loads(call.function.arguments))}
    return client.create(messages=[*MESSAGES, first.model_dump(), result], **options).choices[0].message.content


def structure(client: Any, _: Any) -> Any:
    return client.create(model="deepseek-flash", messages=MESSAGES, response_model=Answer)


async def structure_async(_: Any, client: Any) -> Any:
    return await client.create(model="deepseek-flash", messages=MESSAGES, response_model=Answer)
