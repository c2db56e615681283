"""The expressions in README's table of other libraries: each library calls through the gateway.

These tests are not collected with the rest, because one environment cannot hold all the libraries.
`nox -s integrations` runs each in its own environment.
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
"""Distribution name -> the version and the expression in README."""

QUESTION = "What is Cloudflare?"
MESSAGES = [{"role": "user", "content": QUESTION}]


class Answer(pydantic.BaseModel):
    text: str


def openai_agents(model: Any) -> Any:
    library: Any = import_module("agents")
    library.set_tracing_disabled(True)  # tracing reports every run to OpenAI
    return library.Runner.run_sync(library.Agent(name="Asker", model=model), QUESTION).final_output


def pydantic_ai(model: Any) -> Any:
    return import_module("pydantic_ai").Agent(model).run_sync(QUESTION).output


def instructor(client: Any) -> Any:
    no_thinking = {"thinking": {"type": "disabled"}}
    return client.create(model="deepseek-flash", messages=MESSAGES, response_model=Answer, extra_body=no_thinking).text


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


# Distribution name -> the modules that define the names in its expression, and a function that calls the model.
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
def test_library_calls_through_gateway(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version, expression = WRITTEN[name]
    modules, ask = LIBRARIES[name]
    assert metadata.version(name.partition("[")[0]) == version, "README names a version other than the installed one"
    monkeypatch.setenv("OPENAI_API_KEY", "tracer")
    monkeypatch.setenv("DSPY_CACHEDIR", str(Path.cwd()))  # an empty cache, so that the call is not answered from it
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
