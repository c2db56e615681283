"""The walk of `deepseek-gateway demo`: each route, flavour, way of answering and credential, once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openai import OpenAIError
from rich.text import Text

from deepseek_gateway._client import create_async_client, create_client
from deepseek_gateway._settings import SETTINGS, VARIABLE, Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from deepseek_gateway._config import GatewayConfig

MODEL = "deepseek-flash"
QUESTION = "What is Cloudflare? Answer in one sentence."
_CREDENTIALS = ("Authorization", "cf-aig-authorization")


@dataclass(frozen=True)
class Step:
    """One call of the walk."""

    config: GatewayConfig
    flavour: str
    streamed: bool

    def __str__(self) -> str:
        """Say what the step shows."""
        own = self.config.api_key and self.config.route != "rest"  # the rest route never takes one
        key = "own DeepSeek key" if own else "key stored at Cloudflare"
        return f"{self.config.route} route, {key}, {self.flavour}, {'streamed' if self.streamed else 'plain'}"


@dataclass
class Outcome:
    """What a step put on the wire and got back."""

    url: str = ""
    credentials: tuple[str, ...] = ()
    model: str = ""
    pieces: int = 0
    thinking: str = ""
    answer: str = ""
    trouble: str = ""


def run_on_emulator(console: Console) -> int:
    """Walk against a local emulator; give the exit status."""
    from deepseek_gateway.emulator import Emulator  # noqa: PLC0415  # it needs the extra

    with Emulator() as emulator:
        console.print(
            f"A local emulator at {emulator.url} answers in place of Cloudflare and DeepSeek;"
            " nothing leaves this machine, and its answers are made up.\n"
        )
        steps = [
            *_steps(emulator.config(route="provider")),
            *_steps(emulator.config(route="provider", api_key=None)),
            *_steps(emulator.config(route="compat")),
            *_steps(emulator.config(route="compat", api_key=None)),
            *_steps(emulator.config(route="rest", api_key=None)),
        ]
        status = walk(steps, console)
    console.print("\nAll of this was answered by the local emulator. To go live, set in the environment or in .env:\n")
    for setting in SETTINGS:
        if setting.default is None and setting.field != "endpoint":
            console.print(f"  {setting.variables[0]:<24}{setting.meaning}", markup=False)
    console.print(
        f"\nLeave {VARIABLE['api_key']} out when the key is stored at Cloudflare, and {VARIABLE['gateway_token']} when "
        "authentication is switched off at the gateway. Then:\n"
    )
    console.print("  deepseek-gateway demo --live")
    return status


def run_live(config: GatewayConfig, console: Console, *, only: Route | None = None) -> int:
    """Walk with a person's own settings, as far as they reach or on one route alone; give the exit status."""
    routes: list[Route] = ["provider", "compat"]
    left_out: list[str] = []
    if only:
        routes = [only]
    elif config.endpoint and config.route == "rest":
        routes = ["rest"]
        left_out.append(f"provider and compat, because {VARIABLE['endpoint']} is taken for one of the rest route")
    elif config.endpoint:
        left_out.append(f"rest, because {VARIABLE['endpoint']} is taken for one of the other routes")
    elif not config.gateway_token:
        left_out.append(f"rest, which needs {VARIABLE['gateway_token']}")
    else:
        routes.append("rest")
    if config.api_key and config.gateway_token and "provider" in routes:
        left_out.append(f"a key stored at Cloudflare, which is used when {VARIABLE['api_key']} is not set")
    configs = [replace(config, route=route) for route in routes]
    console.print(f"What answers is at {' and '.join(sorted({urlsplit(each.base_url).netloc for each in configs}))}.")
    for what in left_out:
        console.print(f"Left out: {what}.")
    console.print()
    return walk([step for each in configs for step in _steps(each)], console)


def _steps(config: GatewayConfig) -> Iterator[Step]:
    for flavour in ("sync", "async"):
        for streamed in (False, True):
            yield Step(config, flavour, streamed)


def walk(steps: list[Step], console: Console) -> int:
    """Take every step and print it; the status is 1 as soon as one did not answer as it should."""
    failed = 0
    for number, step in enumerate(steps, 1):
        outcome = take(step)
        console.print(Text(f"{number:>2}/{len(steps)}  {step}", style="bold"))
        credentials = " and ".join(outcome.credentials) or "no credential"
        lines = [("sent", f"POST {outcome.url}"), ("", f"with {credentials}; model {outcome.model}")]
        came = [("thinking", outcome.thinking), ("answer", outcome.answer)]
        if step.streamed:
            came.insert(0, ("came back", f"in {outcome.pieces} chunks"))
        for label, text in (lines if outcome.url else []) + came:
            if text:
                style = "dim" if label == "thinking" else ""
                console.print(Text.assemble((f"       {label:<11}", "cyan"), (text, style)))
        if outcome.trouble:
            failed += 1
            console.print(Text(f"       FAILED     {outcome.trouble}", style="red"))
    console.print(f"\n{len(steps) - failed} of {len(steps)} steps answered as they should.")
    return 1 if failed else 0


def take(step: Step) -> Outcome:
    """Make the call of a step and judge it."""
    outcome = Outcome()
    try:
        if step.flavour == "sync":
            _ask(step, outcome)
        else:
            asyncio.run(_ask_async(step, outcome))
    except OpenAIError as error:
        outcome.trouble = f"{type(error).__name__}: {error}"
        return outcome
    wanted = _wanted(step.config)
    if (outcome.credentials, outcome.model) != wanted:
        outcome.trouble = f"sent {outcome.credentials}, {outcome.model} where {wanted} was due"
    elif not outcome.answer:
        outcome.trouble = "the answer is empty"
    elif step.streamed and outcome.pieces == 1:
        outcome.trouble = "the answer came in one piece, not as a stream"
    elif not outcome.thinking and step.config.route == "provider":
        outcome.trouble = "no thinking came back, which DeepSeek sends unless told not to"
    return outcome


def _wanted(config: GatewayConfig) -> tuple[tuple[str, ...], str]:
    """Say which credential headers and which model name belong on a route."""
    if config.route == "rest":
        return ("Authorization",), f"deepseek/{MODEL}"
    given = (config.api_key, config.gateway_token)
    names = tuple(name for name, value in zip(_CREDENTIALS, given, strict=True) if value)
    return names, MODEL if config.route == "provider" else f"deepseek/{MODEL}"


def _ask(step: Step, outcome: Outcome) -> None:
    def watch(request: Any) -> None:
        _note(request, outcome)

    with create_client(step.config, http_options={"event_hooks": {"request": [watch]}}) as client:
        create: Any = client.chat.completions.create
        answer = create(**_arguments(step))
        for piece in answer if step.streamed else [answer]:
            _collect(piece, outcome)


async def _ask_async(step: Step, outcome: Outcome) -> None:
    async def watch(request: Any) -> None:
        _note(request, outcome)

    async with create_async_client(step.config, http_options={"event_hooks": {"request": [watch]}}) as client:
        create: Any = client.chat.completions.create
        answer = await create(**_arguments(step))
        if step.streamed:
            async for piece in answer:
                _collect(piece, outcome)
        else:
            _collect(answer, outcome)


def _arguments(step: Step) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "stream": step.streamed}


def _note(request: Any, outcome: Outcome) -> None:
    """Keep what goes over the wire: of the credentials the names only."""
    outcome.url = str(request.url)
    outcome.credentials = tuple(name for name in _CREDENTIALS if name in request.headers)
    outcome.model = json.loads(request.content)["model"]


def _collect(piece: Any, outcome: Outcome) -> None:
    """Add a whole answer or a chunk of one; thinking and answer are told apart."""
    outcome.pieces += 1
    for choice in piece.choices:
        part = choice.message if hasattr(choice, "message") else choice.delta
        outcome.answer += part.content or ""
        outcome.thinking += getattr(part, "reasoning_content", None) or ""
