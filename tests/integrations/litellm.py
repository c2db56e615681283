from __future__ import annotations

import functools
import json
from typing import Any

import litellm

from integrations import MESSAGES, WEATHER, Answer, weather

__all__ = ["functools", "litellm"]


def ask(completion: Any, _: Any) -> Any:
    return completion(messages=MESSAGES).choices[0].message.content


async def ask_async(_: Any, acompletion: Any) -> Any:
    return (await acompletion(messages=MESSAGES)).choices[0].message.content


def stream(completion: Any, _: Any) -> list[str]:
    chunks = completion(messages=MESSAGES, stream=True)
    return [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]


async def stream_async(_: Any, acompletion: Any) -> list[str]:
    chunks = await acompletion(messages=MESSAGES, stream=True)
    return [chunk.choices[0].delta.content async for chunk in chunks if chunk.choices[0].delta.content]


def use_tool(completion: Any, _: Any) -> Any:
    first = completion(messages=MESSAGES, tools=[WEATHER]).choices[0].message
    (call,) = first.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": weather(**json.loads(call.function.arguments))}
    return completion(messages=[*MESSAGES, first, result], tools=[WEATHER]).choices[0].message.content


def structure(completion: Any, _: Any) -> Any:
    text = completion(messages=MESSAGES, response_format=Answer).choices[0].message.content
    return Answer.model_validate_json(text)


async def structure_async(_: Any, acompletion: Any) -> Any:
    text = (await acompletion(messages=MESSAGES, response_format=Answer)).choices[0].message.content
    return Answer.model_validate_json(text)
