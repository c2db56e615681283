from __future__ import annotations

from typing import Any

from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.functions import KernelArguments, kernel_function

from integrations import QUESTION, Answer, weather

__all__ = ["OpenAIChatCompletion"]


class Weather:
    weather = staticmethod(kernel_function(weather))


async def ask_async(model: Any) -> Any:
    return (await ChatCompletionAgent(service=model).get_response(QUESTION)).content.content


async def stream(model: Any) -> list[str]:
    pieces = ChatCompletionAgent(service=model).invoke_stream(QUESTION)
    return [piece.content.content async for piece in pieces if piece.content.content]


async def use_tool(model: Any) -> Any:
    return (await ChatCompletionAgent(service=model, plugins=[Weather()]).get_response(QUESTION)).content.content


async def structure(model: Any) -> Any:
    settings = OpenAIChatPromptExecutionSettings(response_format=Answer)
    agent = ChatCompletionAgent(service=model, arguments=KernelArguments(settings=settings))
    return Answer.model_validate_json((await agent.get_response(QUESTION)).content.content)
