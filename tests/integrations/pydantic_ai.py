from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.deepseek import DeepSeekProvider

from integrations import QUESTION, Answer, weather

__all__ = ["DeepSeekProvider", "OpenAIChatModel"]


def ask(model: Any) -> Any:
    return Agent(model).run_sync(QUESTION).output


async def ask_async(model: Any) -> Any:
    return (await Agent(model).run(QUESTION)).output


async def stream(model: Any) -> list[str]:
    async with Agent(model).run_stream(QUESTION) as result:
        return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]


def use_tool(model: Any) -> Any:
    return Agent(model, tools=[weather]).run_sync(QUESTION).output


def structure(model: Any) -> Any:
    return Agent(model, output_type=Answer).run_sync(QUESTION).output
