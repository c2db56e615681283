"""The command `demo`: what the library does, on one screen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

import typer
from openai import AuthenticationError, OpenAIError
from pydantic import BaseModel

from deepseek_gateway._calls import logger, record_calls
from deepseek_gateway._client import create_async_client, create_client
from deepseek_gateway._headers import gateway_headers
from deepseek_gateway._request import request_facts
from deepseek_gateway._settings import DEFAULT_MODEL, SETTINGS, VARIABLE, Route, problems_in

from .ask import Answer
from .options import print_beside, printable, without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from deepseek_gateway._config import GatewayConfig
    from deepseek_gateway.emulator import Emulator

Step: TypeAlias = "tuple[str, Callable[[], Iterable[str]], GatewayConfig]"

_QUESTION: Any = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": "What is Cloudflare?"}]}
_CREDENTIALS = ("Authorization", "cf-aig-authorization")
_ROUTES: tuple[Route, ...] = get_args(Route)


class Company(BaseModel):
    """The answer that the last step asks for."""

    name: str
    founded: int


def run_on_emulator() -> int:
    """Take every step on a local emulator, and return the exit status."""
    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra

    quiet = logging.NullHandler()  # the error texts have the remedies as well
    logger.addHandler(quiet)
    try:
        with Emulator() as emulator:
            typer.echo("A local emulator answers in place of Cloudflare and DeepSeek. No account is needed.\n")
            status = take(steps_on(emulator))
    finally:
        logger.removeHandler(quiet)
    typer.echo("\nTo go live, set these in the environment or in .env. Then: deepseek-gateway demo --live")
    for setting in SETTINGS:
        if setting.field in {"account_id", "api_key", "gateway_token"}:
            print_beside(f"  {setting.variables[0]:<23}", setting.meaning.partition(",")[0])
    return status


def run_live(config: GatewayConfig, *, only: Route | None = None) -> int:
    """Call each route that a person's own settings reach, and stream an answer. Return the exit status."""
    steps: list[Step] = []
    for route in (only,) if only else _ROUTES:
        if why_not := "" if only else unreachable(route, config):
            print_beside("Skipped: ", f"{route}, {why_not}.")
        else:
            steps.append(_call_of(replace(config, route=route)))
    return take([*steps, _stream_of(config)])


def unreachable(route: Route, config: GatewayConfig) -> str:
    """Say why a route cannot be reached with these settings, if it cannot."""
    if missing := [name for each in problems_in(asdict(config) | {"route": route}, {}) for name in each.missing]:
        return f"which needs {' or '.join(missing)}"
    if config.endpoint and "direct" not in {route, config.route} and (route == "rest") != (config.route == "rest"):
        return f"because {VARIABLE['endpoint']} is for the route {config.route}"
    return ""


def steps_on(emulator: Emulator) -> list[Step]:
    """List the steps: a title, what to do, and the settings."""
    config = emulator.config()
    return [
        *(_call_of(emulator.config(route)) for route in _ROUTES),
        _stream_of(config),
        ("A cache hit: extra_headers=gateway_headers(cache_key=...)", partial(_cache_hit, config), config),
        ("An error with its remedy: the token is missing", partial(_error, emulator), config),
        ("A retry: the gateway does not reach DeepSeek", partial(_retry, emulator), config),
        ("Structured output: an OpenAI program's parse()", partial(_structured, emulator), config),
    ]


def take(steps: list[Step]) -> int:
    """Take the steps and print what happened. Return the exit status, which is 1 if a step failed."""
    failed = 0
    for title, act, config in steps:
        print_beside(title, "", bold=True)
        try:
            for line in act():
                print_beside("  ", printable(line))
        except (OpenAIError, ValueError) as error:
            failed += 1
            text = printable(without_secrets(f"{type(error).__name__}: {error}", asdict(config)))
            print_beside("  FAILED  ", text, fg="red")
    typer.echo(f"\n{len(steps) - failed} of {len(steps)} steps succeeded.")
    return int(failed > 0)


def _call_of(config: GatewayConfig) -> Step:
    return f'create_client(route="{config.route}")', partial(_call, config), config


def _call(config: GatewayConfig) -> Iterator[str]:
    sent: list[str] = []

    def on_request(request: Any) -> None:
        credentials = " and ".join(name for name in _CREDENTIALS if name in request.headers) or "no credential"
        sent[:] = f"POST {request.url.path}", f"{request_facts(request, config).model}, with {credentials}"

    answer, hooks = Answer(), {"event_hooks": {"request": [on_request]}}
    with record_calls() as calls, create_client(config, http_options=hooks) as client:
        answer.add(client.chat.completions.create(**_QUESTION))
    if not answer.text:
        raise ValueError("the answer is empty")
    yield from (sent[0], f"{sent[1]}: {calls[-1].status} after {calls[-1].elapsed:.3f} s")


def _stream_of(config: GatewayConfig) -> Step:
    return "A stream: create_async_client(), stream=True", partial(_stream, config), config


def _stream(config: GatewayConfig) -> Iterator[str]:
    answer = Answer()

    async def ask() -> None:
        async with create_async_client(config) as client:
            async for chunk in await client.chat.completions.create(**_QUESTION, stream=True):
                answer.add(chunk)

    asyncio.run(ask())
    yield f"{answer.chunks} chunks: {answer.text}"


def _cache_hit(config: GatewayConfig) -> Iterator[str]:
    with record_calls() as calls, create_client(config) as client:
        for _ in range(2):
            client.chat.completions.create(**_QUESTION, extra_headers=gateway_headers(cache_key="demo"))
    first, second = (call.cache_status for call in calls)
    yield f"{first}, then {second}: the gateway answers the same question without DeepSeek"


def _error(emulator: Emulator) -> Iterator[str]:
    with create_client(emulator.config(gateway_token=None)) as client:
        try:
            client.chat.completions.create(**_QUESTION)
        except AuthenticationError as error:
            yield f"{type(error).__name__}: {cast('dict[str, str]', error.body)['message']}"


def _retry(emulator: Emulator) -> Iterator[str]:
    emulator.fail_next(2005)
    with record_calls() as calls, create_client(emulator.config()) as client:
        client.chat.completions.create(**_QUESTION)
    yield f"{' and then '.join(str(call.status) for call in calls)}: the SDK tries again, because it can help"


def _structured(emulator: Emulator) -> Iterator[str]:
    emulator.answer_next(json=Company(name="Cloudflare", founded=2009))
    with record_calls() as calls, create_client(emulator.config(), model=DEFAULT_MODEL) as client:
        chat: Any = client.chat if hasattr(client.chat.completions, "parse") else client.beta.chat  # openai 1.66
        completion = chat.completions.parse(**_QUESTION | {"model": "gpt-4o"}, response_format=Company)
    yield f"{completion.choices[0].message.parsed!r}; translated: {', '.join(calls[-1].adapted)}"
