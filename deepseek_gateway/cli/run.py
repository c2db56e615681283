"""The command `run`: a program with its own forwarder, for as long as it runs."""
# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import os
import shutil
import signal
import subprocess
import traceback
from collections.abc import Mapping
from typing import Annotated

import typer

from deepseek_gateway._settings import OPENAI_VARIABLES

from .options import DebugOption, EndpointOption, EnvFileOption, RouteOption, load_settings, say
from .serve import as_text

_NOT_FOUND, _NOT_RUNNABLE, _SIGNALLED = 127, 126, 128  # what a shell reports; to the last it adds the signal's number
_PROXIES = {"http_proxy", "https_proxy", "all_proxy"}
_HOST = "127.0.0.1"


def run(  # noqa: PLR0913  # one parameter for each option
    command: Annotated[
        list[str], typer.Argument(metavar="PROGRAM", help="The program and its arguments.", show_default=False)
    ],
    *,
    log: Annotated[bool, typer.Option("--log", help="Print a line for each call to stderr.")] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,
) -> None:
    """Run a program written for OpenAI through the gateway.

    \b
      deepseek-gateway run -- python my_program.py
      deepseek-gateway run -- aider --model openai/deepseek-flash

    Serves OpenAI's API on a free port of this machine, as `serve` does, while the program runs. The program gets
    OPENAI_BASE_URL, OPENAI_API_BASE and OPENAI_API_KEY, and none of the variables with your OpenAI identity.
    The exit status is the program's. It is 126 or 127 if the program cannot be run or is not found.
    """  # noqa: D301  # \b keeps the lines apart
    config, _ = load_settings(route, env_file, endpoint)
    from .forwarder import forwarding  # noqa: PLC0415  # it imports openai

    with forwarding(config, lambda line: say(as_text(line)) if log else None) as variables:
        try:
            status = execute(command, environment(os.environ, variables))
        except OSError as error:
            problem = "was not found" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
            say(f"{traceback.format_exc() if debug else ''}{command[0]} {problem}.")
            raise typer.Exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUNNABLE) from None
    raise typer.Exit(status)


def environment(environ: Mapping[str, str], variables: Mapping[str, str]) -> dict[str, str]:
    """Give the variables of the program: those of this process, without an OpenAI identity, and those of the forwarder.

    A program behind a proxy would ask the proxy for the forwarder, unless NO_PROXY excepts it.
    """
    made = {name: value for name, value in environ.items() if name not in OPENAI_VARIABLES} | dict(variables)
    if _PROXIES & {name.lower() for name in environ}:
        excepted = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        if excepted != "*":
            made["no_proxy"] = made["NO_PROXY"] = f"{excepted},{_HOST}" if excepted else _HOST
    return made


def execute(command: list[str], environ: Mapping[str, str]) -> int:
    """Run a program to its end and give its exit status. Signals are left to the program.

    A terminal sends Ctrl-C to the program as well, so SIGINT is not passed on: the program would get it twice.
    """
    # Windows finds `promptfoo.cmd` under the name `promptfoo` only so.
    program = shutil.which(command[0], path=environ.get("PATH")) or command[0]
    running: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        for process in running:
            process.send_signal(number)

    def leave_alone(_number: int, _: object) -> None:
        """Unlike SIG_IGN, a handler is not inherited by the program."""

    before = {signal.SIGINT: signal.signal(signal.SIGINT, leave_alone)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    try:
        with subprocess.Popen([program, *command[1:]], env=environ) as process:  # noqa: S603  # the person's own program
            running.append(process)
            status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else _SIGNALLED - status
