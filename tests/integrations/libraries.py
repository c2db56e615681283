"""Each library of the documents' table calls through the gateway, and never past it.

These tests are not collected with the rest, because one environment cannot hold all the libraries.
`nox -s integrations` runs each library in its own environment.
"""

from __future__ import annotations

import ast
import asyncio
import re
import socket
from contextlib import contextmanager
from importlib import import_module, metadata
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

import openai
import pytest
from loopback import serve

from deepseek_gateway import create_async_client, create_async_http_client, create_client, create_http_client
from deepseek_gateway.emulator import Emulator
from integrations import LIBRARIES, MESSAGES, WRITTEN, Answer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loopback import Loopback, Received

    from deepseek_gateway import GatewayConfig

# The function of a program -> the remark in the table on a library that cannot do this.
PROGRAMS = {
    "ask": "no synchronous calls",
    "ask_async": "no asynchronous calls",
    "stream": "no streams",
    "use_tool": "no tools",
    "structure": "no structured output",
}
# Programs of libraries that have two forms of these calls. The functions above are then the synchronous form.
SECOND_FORMS = ("stream_async", "use_tool_async", "structure_async")
# What the libraries send besides: statistics of their use, and a request for a list of prices.
OTHER_REQUESTS_OFF = {
    "AGNO_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "MEM0_TELEMETRY": "false",
}


@contextmanager
def trapped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """Serve where a library arrives that follows the variables of OpenAI and DeepSeek."""
    with serve() as trap:
        for name in ("OPENAI_API_KEY", "DEEPSEEK_API_KEY"):
            monkeypatch.setenv(name, "trap")
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "DEEPSEEK_BASE_URL", "DEEPSEEK_API_BASE"):
            monkeypatch.setenv(name, f"{trap.url}/v1")
        yield trap


@pytest.fixture
def received(variables: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Received]]:
    """Give what arrived at the trap, which no variable names in half of the tests."""
    if variables == "no variables":
        yield []
        return
    with trapped(monkeypatch) as trap:
        yield trap.received


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Collect the names of other machines that a library looks up. None is found."""
    looked_up: list[str] = []
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name not in {"127.0.0.1", "::1", "localhost"}:
            looked_up.append(name)
            raise socket.gaierror(socket.EAI_NONAME, "this test has no network")
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name, value in {**OTHER_REQUESTS_OFF, "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    return looked_up


def run(code: list[str], config: GatewayConfig, programs: Any) -> list[Any]:
    """Run the table's code with the imports of the programs. Give the values of its expressions or its variables."""
    names = vars(programs) | {
        "config": config,
        "client": create_client(config),
        "async_client": create_async_client(config),
        "http_client": create_http_client(config),
        "async_http_client": create_async_http_client(config),
    }
    values: list[Any] = []
    variables: dict[str, Any] = {}
    for each in code:
        if isinstance(ast.parse(each).body[0], ast.Expr):
            values.append(eval(each, names))
        else:
            exec(each, names, variables)
    return [value for value in values if value is not None] or list(variables.values())


def check(program: str, result: Any, bodies: list[Any]) -> None:
    """Check that a program got what it asked for."""
    if "stream" in program:
        assert bodies[0]["stream"] is True
        assert len(result) > 2
        assert re.search("canned answer|text='example'", "".join(map(str, result)))
    elif "tool" in program:
        assert bodies[0]["tools"]
        assert "Sunny in example" in str(bodies[1]["messages"])
        assert result
    elif "structure" in program:
        assert isinstance(result, Answer)
        assert result.text == "example"
    else:
        assert "canned answer" in result


@pytest.mark.parametrize("variables", ["trap variables", "no variables"])
@pytest.mark.parametrize("key", ["own key", "stored key"])
@pytest.mark.parametrize("program", [*PROGRAMS, *SECOND_FORMS])
@pytest.mark.parametrize("library", LIBRARIES)
def test_library_calls_through_gateway(
    library: str, program: str, key: str, received: list[Received], hosts: list[str]
) -> None:
    versions, code, remarks = WRITTEN[library]
    for name, version in versions.items():
        assert metadata.version(name.partition("[")[0]) == version, f"the documents name another version of {name}"
    programs = import_module(f"integrations.{LIBRARIES[library]}")
    function = getattr(programs, program, None)
    if program in PROGRAMS:
        assert (function is None) == (PROGRAMS[program] in remarks), f"the remarks in the documents are {remarks!r}"
    if function is None:
        pytest.skip("this library has no such calls")
    exchanges: list[Any] = []
    with Emulator(on_exchange=exchanges.append) as emulator:
        config = emulator.config() if key == "own key" else emulator.config(api_key=None)
        arguments = run(code, config, programs)
        result = asyncio.run(function(*arguments)) if iscoroutinefunction(function) else function(*arguments)
    assert received == []
    assert hosts == []
    assert [exchange.status for exchange in exchanges] == [200] * (2 if "tool" in program else 1)
    for request in emulator.requests:
        assert request.headers["cf-aig-authorization"] == f"Bearer {emulator.gateway_token}"
        assert request.headers.get("authorization") == (f"Bearer {emulator.api_key}" if key == "own key" else None)
        assert "trap" not in str(request.headers)
        assert request.upstream is not None
        assert request.upstream.model == "deepseek-flash"
    check(program, result, [request.json for request in emulator.requests])


def test_trap_catches_client_that_follows_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with trapped(monkeypatch) as trap:
        openai.OpenAI().chat.completions.create(model="deepseek-flash", messages=MESSAGES)
    assert trap.last.header("authorization") == "Bearer trap"
