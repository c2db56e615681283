"""The command `serve`: a local OpenAI API for every other program, in any language."""
# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import json
import os
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from queue import SimpleQueue
from time import localtime, strftime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from deepseek_gateway._config import GatewayConfig
from deepseek_gateway._settings import OPENAI_VARIABLES

from .interruption import cannot_listen, end_when_interrupted, until_none
from .options import DebugOption, EndpointOption, EnvFileOption, RouteOption, assignments, load_settings, say

if TYPE_CHECKING:
    from .forwarder import Line


def serve(  # noqa: PLR0913  # one parameter for each option
    *,
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free one.")
    ] = 8788,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines: first the variables, then an object for each call.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Serve OpenAI's API on this machine.

    For programs in any language. Calls go through the gateway with your settings. Prints the variables that lead a
    program here, with a key that is new in each run, and a line for each call. Ctrl-C ends it.
    """
    config, _ = load_settings(route, env_file, endpoint)
    from .forwarder import forwarding  # noqa: PLC0415  # it imports openai

    lines: SimpleQueue[Line | None] = SimpleQueue()
    end_when_interrupted(lines)
    try:
        with forwarding(config, lines.put, port) as variables:
            typer.echo(json.dumps(variables) if as_json else "\n".join(introduction(config, variables, os.environ)))
            for line in until_none(lines):
                typer.echo(as_json_object(line) if as_json else as_text(line))
    except OSError as error:
        message = cannot_listen(port, error)
        say(f"{traceback.format_exc()}{message}" if debug else message)
        raise typer.Exit(1) from None


def introduction(config: GatewayConfig, variables: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """Say how to lead a program here."""
    ambient = [name for name in OPENAI_VARIABLES if name in environ and name not in variables]
    host = urlsplit(config.base_url).netloc
    yield f"# OpenAI's API on this machine, answered by {host} on the {config.route} route."
    yield from assignments(variables, unset=ambient)
    yield "\n# The key is new in each run. The calls are shown below; Ctrl-C ends the server.\n"


def as_text(line: "Line") -> str:
    """Write a call in one line: time, method and path, model, status, cache, tokens, milliseconds.

    Whatever callers send is escaped, because it could move the cursor of the terminal.
    """
    call = line.call
    path, model, cache = (
        ascii(text)[1:-1] for text in (line.path, (call and call.model) or "-", (call and call.cache_status) or "-")
    )
    used = call and call.usage
    tokens = f"{used.prompt_tokens} + {used.completion_tokens} tokens" if used else "-"
    status = " ".join(filter(None, (str(line.status or ""), line.ending)))
    clock = strftime("%H:%M:%S", localtime(line.began))
    return f"{clock}  {line.method} {path}  {model}  {status}  {cache}  {tokens}  {line.seconds * 1000:.0f} ms"


def as_json_object(line: "Line") -> str:
    """Write a call as a JSON object."""
    call: dict[str, Any] = asdict(line.call) if line.call else {}
    own = {
        "time": datetime.fromtimestamp(line.began, UTC).isoformat(timespec="milliseconds"),
        "method": line.method,
        "path": line.path,
        "status": line.status,
        "ending": line.ending or "complete",
        "elapsed": round(line.seconds, 6),
    }
    return json.dumps(own | {name: value for name, value in call.items() if name not in own})
