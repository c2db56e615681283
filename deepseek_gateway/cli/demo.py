"""The command `demo`: every route, credential, flavour and way to answer, once each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openai import OpenAIError
from rich.text import Text

from deepseek_gateway._client import create_async_client, create_client
from deepseek_gateway._request import model_on, request_facts
from deepseek_gateway._settings import DEFAULT_MODEL, SETTINGS, VARIABLE, Route

from .ask import Answer, arguments
from .options import printable, without_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from deepseek_gateway._config import GatewayConfig

_PROMPT = "What is Cloudflare? Answer in one sentence."
_CREDENTIALS = ("Authorization", "cf-aig-authorization")


@dataclass
class Step:
    """One call of the demo, with what it sent and what came back."""

    config: GatewayConfig
    flavour: str
    streamed: bool
    url: str = ""
    credentials: tuple[str, ...] = ()
    model: str | None = None
    answer: Answer = field(default_factory=Answer)
    failure: str = ""

    def __str__(self) -> str:
        """Say what the step shows."""
        own = self.config.api_key and self.config.route != "rest"  # which never sends it
        key = "own DeepSeek key" if own else "key stored at Cloudflare"
        return f"{self.config.route} route, {key}, {self.flavour}, {'streamed' if self.streamed else 'plain'}"

    def on_request(self, request: Any) -> None:
        """Note what is sent; of the credentials, only the names."""
        self.url = str(request.url)
        self.credentials = tuple(name for name in _CREDENTIALS if name in request.headers)
        self.model = request_facts(request, self.config).model


def run_on_emulator(console: Console) -> int:
    """Take every step on a local emulator; return the exit status."""
    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra

    with Emulator() as emulator:
        console.print(f"A local emulator at {emulator.url} answers in place of Cloudflare and DeepSeek.")
        console.print("Nothing leaves this machine, and the answers are made up.\n")
        configs = [
            emulator.config(route="provider"),
            emulator.config(route="provider", api_key=None),
            emulator.config(route="compat"),
            emulator.config(route="compat", api_key=None),
            emulator.config(route="rest", api_key=None),
        ]
        status = walk(steps_for(configs), console)
    console.print("\nThe local emulator answered every step. To go live, set in the environment or in .env:\n")
    for setting in SETTINGS:
        if setting.field in {"account_id", "api_key", "gateway_token"}:
            console.print(f"  {setting.variables[0]:<24}{setting.meaning}", markup=False)
    console.print("\nThen run:\n\n  deepseek-gateway demo --live")
    return status


def run_live(config: GatewayConfig, console: Console, *, only: Route | None = None) -> int:
    """Take every step that a person's own settings allow, or those of one route; return the exit status."""
    routes: tuple[Route, ...] = ("provider", "compat", "rest")
    skipped: list[str] = []
    if only:
        routes = (only,)
    elif config.endpoint:
        kinds: list[tuple[Route, ...]] = [("provider", "compat"), ("rest",)]
        routes, others = reversed(kinds) if config.route == "rest" else kinds
        skipped.append(f"{' and '.join(others)}, because {VARIABLE['endpoint']} is for {' and '.join(routes)}")
    elif not config.gateway_token:
        routes = ("provider", "compat")
        skipped.append(f"rest, which needs {VARIABLE['gateway_token']}")
    if config.api_key and config.gateway_token and "provider" in routes:
        skipped.append(f"a key stored at Cloudflare, which is used when {VARIABLE['api_key']} is not set")
    configs = [replace(config, route=route) for route in routes]
    hosts = sorted({urlsplit(each.base_url).netloc for each in configs})
    console.print(f"The answers come from {' and '.join(hosts)}.")
    for reason in skipped:
        console.print(f"Skipped: {reason}.")
    console.print()
    return walk(steps_for(configs), console)


def steps_for(configs: Iterable[GatewayConfig]) -> list[Step]:
    """Make the four steps of each configuration."""
    return [Step(*case) for case in product(configs, ("sync", "async"), (False, True))]


def walk(steps: list[Step], console: Console) -> int:
    """Take every step and print what happened; return the exit status, which is 1 if a step failed."""
    failed = 0
    for number, step in enumerate(steps, 1):
        console.print(Text(f"{number:>2}/{len(steps)}  {step}", style="bold"))
        take(step)
        if step.url:
            _print(console, "sent", f"POST {step.url}")
            _print(console, "", f"with {' and '.join(step.credentials) or 'no credential'}; model {step.model}")
        if step.streamed:
            _print(console, "came back", f"in {step.answer.chunks} chunks")
        _print(console, "thinking", step.answer.thinking, "dim")
        _print(console, "answer", step.answer.text)
        _print(console, "FAILED", step.failure, "red")
        failed += bool(step.failure)
    console.print(f"\n{len(steps) - failed} of {len(steps)} steps succeeded.")
    return 1 if failed else 0


def _print(console: Console, label: str, text: str, style: str = "") -> None:
    if text:
        console.print(Text.assemble((f"       {label:<11}", "cyan"), (printable(text), style)))


def take(step: Step) -> None:
    """Make the call of a step and check it."""
    try:
        if step.flavour == "sync":
            _call(step)
        else:
            asyncio.run(_call_async(step))
    except (OpenAIError, json.JSONDecodeError) as error:
        step.failure = without_secrets(f"{type(error).__name__}: {error}", asdict(step.config))
        return
    expected = expected_request(step.config)
    if (step.credentials, step.model) != expected:
        step.failure = f"sent {step.credentials}, {step.model} instead of {expected}"
    elif not step.answer.text:
        step.failure = "the answer is empty"
    elif step.streamed and step.answer.chunks == 1:
        step.failure = "the answer came in one piece, not as a stream"
    elif not step.answer.thinking and step.config.route == "provider":
        step.failure = "no thinking came back, which DeepSeek sends by default"


def expected_request(config: GatewayConfig) -> tuple[tuple[str, ...], str]:
    """Say which credential headers and which model name a request should have."""
    given = (config.bearer, config.route != "rest" and config.gateway_token)
    names = tuple(name for name, value in zip(_CREDENTIALS, given, strict=True) if value)
    return names, model_on(config.route, DEFAULT_MODEL)


def _call(step: Step) -> None:
    with create_client(step.config, http_options={"event_hooks": {"request": [step.on_request]}}) as client:
        create: Any = client.chat.completions.create
        reply = create(**arguments(prompt=_PROMPT, model=DEFAULT_MODEL, streamed=step.streamed))
        for chunk in reply if step.streamed else [reply]:
            step.answer.add(chunk)


async def _call_async(step: Step) -> None:
    async def on_request(request: Any) -> None:
        step.on_request(request)

    async with create_async_client(step.config, http_options={"event_hooks": {"request": [on_request]}}) as client:
        create: Any = client.chat.completions.create
        reply = await create(**arguments(prompt=_PROMPT, model=DEFAULT_MODEL, streamed=step.streamed))
        for chunk in [item async for item in reply] if step.streamed else [reply]:
            step.answer.add(chunk)
