"""Other libraries: what README's table says to write makes what they ask with, and they ask through the gateway.

Not collected with the rest, as one environment cannot hold them all: `nox -s integrations` runs each in its own.
"""

from __future__ import annotations

import re
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
import pytest

from deepseek_gateway import create_async_client, create_client
from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
WRITTEN = {
    name: (version, expression)
    for name, version, expression in re.findall(r"(?m)^\| ([\w\[\]-]+) ([\d.]+) \| `(.+)` \|$", README)
}
"""What is on PyPI: the version that README names, and what it says to write."""

QUESTION = "What is Cloudflare?"
MESSAGES = [{"role": "user", "content": QUESTION}]


class Answer(pydantic.BaseModel):
    text: str


def openai_agents(model: Any) -> Any:
    library: Any = import_module("agents")
    library.set_tracing_disabled(True)  # it tells OpenAI of every run
    return library.Runner.run_sync(library.Agent(name="Asker", model=model), QUESTION).final_output


def pydantic_ai(model: Any) -> Any:
    return import_module("pydantic_ai").Agent(model).run_sync(QUESTION).output


def instructor(client: Any) -> Any:
    thoughtless = {"thinking": {"type": "disabled"}}
    return client.create(model="deepseek-flash", messages=MESSAGES, response_model=Answer, extra_body=thoughtless).text


def langchain(model: Any) -> Any:
    return model.invoke(QUESTION).content


def llama_index(model: Any) -> Any:
    return model.complete(QUESTION).text


def smolagents(model: Any) -> Any:
    return model([import_module("smolagents").ChatMessage(role="user", content=QUESTION)]).content


def agno(model: Any) -> Any:
    return import_module("agno.agent").Agent(model=model, telemetry=False).run(QUESTION).content


def litellm(answer: Any) -> Any:
    return answer.choices[0].message.content


def dspy(model: Any) -> Any:
    return model(QUESTION)[0]


# What is on PyPI -> where the names in its expression come from, and how to ask with what it makes.
LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "openai-agents": (("agents",), openai_agents),
    "pydantic-ai-slim[openai]": (("pydantic_ai.models.openai", "pydantic_ai.providers.deepseek"), pydantic_ai),
    "instructor": (("instructor",), instructor),
    "langchain-openai": (("langchain_openai",), langchain),
    "langchain-deepseek": (("langchain_deepseek",), langchain),
    "llama-index-llms-openai-like": (("llama_index.llms.openai_like",), llama_index),
    "smolagents": (("smolagents",), smolagents),
    "agno": (("agno.models.openai",), agno),
    "litellm": (("litellm",), litellm),
    "dspy": (("dspy",), dspy),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_asks_through_the_gateway(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version, expression = WRITTEN[name]
    modules, ask = LIBRARIES[name]
    assert metadata.version(name.partition("[")[0]) == version, "README names the version that was tried"
    monkeypatch.setenv("OPENAI_API_KEY", "tracer")
    monkeypatch.setenv("DSPY_CACHEDIR", str(Path.cwd()))  # or it knows the answer from the last run
    with Emulator() as emulator:
        for variable, value in emulator.environ.items():
            monkeypatch.setenv(variable, value)
        names = {key: value for module in modules for key, value in vars(import_module(module)).items()}
        names |= {
            modules[0]: import_module(modules[0]),
            "client": create_client(),
            "async_client": create_async_client(),
            "config": emulator.config(),
            "messages": MESSAGES,
        }
        assert ask(eval(expression, names))
        request = emulator.requests[-1]
    assert request.headers["cf-aig-authorization"] == f"Bearer {emulator.gateway_token}"
    assert "tracer" not in str(request.headers)
    assert request.upstream is not None
    assert request.upstream.json["model"] == "deepseek-flash"
