from __future__ import annotations

from typing import Any

from llama_index.core.agent import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAILike"]


def ask(model: Any) -> Any:
    return model.complete(QUESTION).text


async def ask_async(model: Any) -> Any:
    return (await model.acomplete(QUESTION)).text


def stream(model: Any) -> list[str]:
    return [piece.delta for piece in model.stream_complete(QUESTION) if piece.delta]


async def stream_async(model: Any) -> list[str]:
    return [piece.delta async for piece in await model.astream_complete(QUESTION) if piece.delta]


async def use_tool(model: Any) -> Any:
    return await FunctionAgent(tools=[weather], llm=model).run(QUESTION)


def structure(model: Any) -> Any:
    return model.as_structured_llm(Answer).chat([ChatMessage(QUESTION)]).raw


async def structure_async(model: Any) -> Any:
    return (await model.as_structured_llm(Answer).achat([ChatMessage(QUESTION)])).raw
