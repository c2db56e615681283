from __future__ import annotations

from typing import Any

import dspy
import litellm

from integrations import QUESTION, Answer, weather

__all__ = ["dspy", "litellm"]

dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
# Without these dspy describes schemas and tools in its prompts, which the emulator cannot follow.
CAPABILITIES = {"supports_response_schema": True, "supports_function_calling": True}
litellm.register_model({"openai/deepseek-flash": {"litellm_provider": "openai", "mode": "chat", **CAPABILITIES}})


class Typed(dspy.Signature):
    question: str = dspy.InputField()
    answer: Answer = dspy.OutputField()


class Calling(dspy.Signature):
    question: str = dspy.InputField()
    tools: list[dspy.Tool] = dspy.InputField()
    calls: dspy.ToolCalls = dspy.OutputField()


def ask(model: Any) -> Any:
    return model(QUESTION)[0]["text"]


async def ask_async(model: Any) -> Any:
    return (await model.acall(QUESTION))[0]["text"]


async def stream(model: Any) -> list[str]:
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        return [str(piece) async for piece in dspy.streamify(dspy.Predict(Typed))(question=QUESTION)]


def use_tool(model: Any) -> Any:
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        (call,) = dspy.Predict(Calling)(question=QUESTION, tools=[dspy.Tool(weather)]).calls.tool_calls
        return dspy.Predict("question, result -> answer")(question=QUESTION, result=weather(**call.args)).answer


def structure(model: Any) -> Any:
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        return dspy.Predict(Typed)(question=QUESTION).answer


async def structure_async(model: Any) -> Any:
    with dspy.context(lm=model, adapter=dspy.JSONAdapter()):
        return (await dspy.Predict(Typed).acall(question=QUESTION)).answer
