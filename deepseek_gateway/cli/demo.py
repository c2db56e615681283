"""The command `demo`: what the library does, on one screen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

import typer
from openai import AuthenticationError, OpenAIError
from pydantic import BaseModel

from deepseek_gateway._calls import logger, record_calls
from deepseek_gateway._client import create_async_client, create_client
from deepseek_gateway._headers import gateway_headers
from deepseek_gateway._model import model_named
from deepseek_gateway._settings import DEFAULT_MODEL, SETTINGS, Route

from .ask import Answer
from .options import print_beside, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deepseek_gateway._config import GatewayConfig
    from deepseek_gateway.emulator import Emulator

Step: TypeAlias = "tuple[str, Iterator[str]]"  # a title, and what makes the lines below it

_QUESTION: Any = {"model": DEFAULT_MODEL, "messages": [{"role": "user", "content": "What is Cloudflare?"}]}
_CREDENTIALS = ("Authorization", "cf-aig-authorization")


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
            status = take(steps_on(emulator), emulator.config())
    finally:
        logger.removeHandler(quiet)
    typer.echo("\nTo go live, set these in the environment or in .env. Then: deepseek-gateway demo --live")
    for setting in SETTINGS:
        if setting.field in {"account_id", "api_key", "gateway_token"}:
            print_beside(f"  {setting.variables[0]:<23}", setting.meaning.partition(",")[0])
    return status


def run_live(config: GatewayConfig) -> int:
    """Take the steps that a person's own settings allow, on their route, and return the exit status."""
    return take(steps_anywhere([config]), config)


def steps_anywhere(configs: list[GatewayConfig]) -> list[Step]:
    """List the steps that need no emulator: a call with each of the settings, and a stream with the first."""
    calls = [(f'create_client(route="{config.route}")', _call(config)) for config in configs]
    return [*calls, ("A stream: create_async_client(), stream=True", _stream(configs[0]))]


def steps_on(emulator: Emulator) -> list[Step]:
    """List the steps on a local emulator."""
    config = emulator.config()
    return [
        *steps_anywhere([emulator.config(route) for route in get_args(Route)]),
        ("A cache hit: extra_headers=gateway_headers(cache_key=...)", _cache_hit(config)),
        ("An error with its remedy: the token is missing", _error(emulator.config(gateway_token=None))),
        ("A retry: the gateway does not reach DeepSeek", _retry(emulator)),
        ("Structured output: an OpenAI program's parse()", _structured(emulator)),
    ]


def take(steps: list[Step], config: GatewayConfig) -> int:
    """Take the steps and print what happened. Return the exit status, which is 1 if a step failed."""
    failed = 0
    for title, lines in steps:
        print_beside(title, "", bold=True)
        try:
            for line in lines:
                print_beside("  ", line)
        except (OpenAIError, ValueError) as error:
            failed += 1
            print_beside("  FAILED  ", without_secrets(f"{type(error).__name__}: {error}", asdict(config)), fg="red")
    typer.echo(f"\n{len(steps) - failed} of {len(steps)} steps succeeded.")
    return int(failed > 0)


def _call(config: GatewayConfig) -> Iterator[str]:
    sent: list[str] = []

    def on_request(request: Any) -> None:
        credentials = " and ".join(name for name in _CREDENTIALS if name in request.headers) or "no credential"
        sent[:] = f"POST {request.url.path}", f"{model_named(request)}, with {credentials}"

    answer, hooks = Answer(), {"event_hooks": {"request": [on_request]}}
    with record_calls() as calls, create_client(config, http_options=hooks) as client:
        answer.add(client.chat.completions.create(**_QUESTION))
    if not answer.text:
        raise ValueError("the answer is empty")
    yield from (sent[0], f"{sent[1]}: {calls[-1].status} after {calls[-1].elapsed:.3f} s")


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


def _error(config: GatewayConfig) -> Iterator[str]:
    with create_client(config) as client:
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
