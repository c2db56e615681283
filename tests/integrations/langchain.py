from __future__ import annotations

from contextlib import suppress
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from integrations import QUESTION, Answer, weather

with suppress(ImportError):  # it has an environment of its own
    from langchain_deepseek import ChatDeepSeek

__all__ = ["ChatDeepSeek", "ChatOpenAI"]


def ask(model: Any) -> Any:
    return model.invoke(QUESTION).content


async def ask_async(model: Any) -> Any:
    return (await model.ainvoke(QUESTION)).content


def stream(model: Any) -> list[str]:
    return [chunk.content for chunk in model.stream(QUESTION) if chunk.content]


async def stream_async(model: Any) -> list[str]:
    return [chunk.content async for chunk in model.astream(QUESTION) if chunk.content]


def use_tool(model: Any) -> Any:
    known = tool(weather)
    bound = model.bind_tools([known])
    first = bound.invoke(QUESTION)
    return bound.invoke([HumanMessage(QUESTION), first, *map(known.invoke, first.tool_calls)]).content


async def use_tool_async(model: Any) -> Any:
    known = tool(weather)
    bound = model.bind_tools([known])
    first = await bound.ainvoke(QUESTION)
    return (await bound.ainvoke([HumanMessage(QUESTION), first, *map(known.invoke, first.tool_calls)])).content


def structure(model: Any) -> Any:
    return model.with_structured_output(Answer).invoke(QUESTION)


async def structure_async(model: Any) -> Any:
    return await model.with_structured_output(Answer, strict=True).ainvoke(QUESTION)
