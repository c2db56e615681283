from __future__ import annotations

from typing import Any

import outlines

from integrations import QUESTION, Answer

__all__ = ["outlines"]


def ask(model: Any, _: Any) -> Any:
    return model(QUESTION)


async def ask_async(_: Any, model: Any) -> Any:
    return await model(QUESTION)


def stream(model: Any, _: Any) -> list[str]:
    return list(model.stream(QUESTION))


async def stream_async(_: Any, model: Any) -> list[str]:
    return [piece async for piece in model.stream(QUESTION)]


def structure(model: Any, _: Any) -> Any:
    return Answer.model_validate_json(model(QUESTION, Answer))


async def structure_async(_: Any, model: Any) -> Any:
    return Answer.model_validate_json(await model(QUESTION, Answer))
