"""The command `env`: print the variables that a program needs, or run the program with them."""
# No `from __future__ import annotations` here: Typer reads the annotations as objects.

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, NoReturn, TypeAlias

import typer

from deepseek_gateway._config import GatewayConfig

from .environment import (
    AMBIENT,
    CUSTOM_HEADERS,
    CUSTOM_HEADERS_SINCE,
    PROGRAMS,
    Format,
    Target,
    Value,
    as_curl,
    as_dotenv,
    as_json,
    as_shell,
    environment,
    exact,
    header_remarks,
    remarks,
    request_headers,
    secrets_in,
)
from .options import DebugOption, EndpointOption, EnvFileOption, RouteOption, load_settings, say

_NOT_FOUND, _NOT_RUNNABLE = 127, 126  # what a shell reports

Origins: TypeAlias = Mapping[str, tuple[str, str]]
"""By field, where its value was found, and the variable's name there."""


def env(  # noqa: PLR0913  # one parameter for each option
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROGRAM", help="Run this program with its arguments.", show_default=False),
    ] = None,
    *,
    target: Annotated[Target, typer.Option("--for", help="The program that reads the variables.")] = "openai",
    form: Annotated[Format | None, typer.Option("--format", help="How to print. Default: shell.")] = None,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Print keys and tokens instead of references to their variables.")
    ] = False,
    route: RouteOption = None,
    env_file: EnvFileOption = None,
    endpoint: EndpointOption = None,
    debug: DebugOption = False,  # noqa: ARG001  # every command takes it
) -> None:
    """Point another program at the gateway by environment variables.

    Prints the variables, or runs a program with them and keeps its exit status.

    \b
      eval "$(deepseek-gateway env)"                 for this shell
      deepseek-gateway env -- python my_program.py   for one program
      deepseek-gateway env --for curl                as a curl command

    Without --for, the variables are those of the openai package, for any program that makes its own OpenAI client.
    Variables that would send your OpenAI identity along (OPENAI_ORG_ID and the like) are unset.
    """  # noqa: D301  # \b keeps the lines apart
    if command and (form or show_secrets or target == "curl"):
        raise typer.BadParameter("a program is run without --format, --show-secrets and --for curl")
    if target == "curl" and form not in {None, "shell"}:
        raise typer.BadParameter("--for curl prints a shell command and takes no other --format")
    config, origins = load_settings(route, env_file, endpoint)
    if command:
        run(target, config, command)
    show(target, config, origins, form=form or "shell", show_secrets=show_secrets)


def show(target: Target, config: GatewayConfig, origins: Origins, *, form: Format, show_secrets: bool) -> None:
    """Print what a program needs; what a person has to know besides goes into comments, or to stderr."""
    variables = {name: variable for name, (_, variable) in origins.items()}
    comments: list[str] = []
    if target == "curl":
        values = request_headers(config, variables)
        text = as_curl(config, values, show_secrets=show_secrets)
    else:
        values = _values(target, config, variables)
        ambient = [name for name in AMBIENT if name in os.environ and name not in values]
        comments = remarks(PROGRAMS[target], config)
        if form == "shell":
            text = as_shell(values, unset=ambient, comments=comments, show_secrets=show_secrets)
            comments = []
        else:
            write = as_dotenv if form == "dotenv" else as_json
            text = write(values, show_secrets=show_secrets)
            comments += [f"{name} is set here and would be sent along; unset it." for name in ambient]
    typer.echo(text)
    for comment in comments:
        say(comment)
    if not show_secrets:
        _warn_of_unset(secrets_in(values), origins)


def run(target: Target, config: GatewayConfig, command: list[str]) -> NoReturn:
    """Run a program with what it needs, in the place of this one; say so if that fails."""
    values = _values(target, config, {})
    if PROGRAMS[target].headers is None:
        for line in header_remarks(PROGRAMS[target], config):
            say(line)
    environ = {name: value for name, value in os.environ.items() if name not in AMBIENT} | exact(values)
    try:
        if sys.platform == "win32":  # where exec would give the prompt back at once, and lose the status
            raise typer.Exit(subprocess.call(command, env=environ))  # noqa: S603  # a program of the person's own
        os.execvpe(command[0], command, environ)  # noqa: S606  # likewise
    except FileNotFoundError:
        say(f"{command[0]}: no such program was found.")
        raise typer.Exit(_NOT_FOUND) from None
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}.")
        raise typer.Exit(_NOT_RUNNABLE) from None


def _values(target: Target, config: GatewayConfig, variables: Mapping[str, str]) -> dict[str, Value]:
    """Give the variables of a program, or say why there are none, and what is known to keep them from working."""
    try:
        values = environment(PROGRAMS[target], config, variables)
    except ValueError as error:
        say(str(error))
        raise typer.Exit(1) from None
    if CUSTOM_HEADERS in values and (old := _old_openai()):
        say(f"The openai installed here ({old}) ignores {CUSTOM_HEADERS}: it sends no {', '.join(config.headers)}.")
    return values


def _old_openai() -> str | None:
    """Give the version of the openai installed here if it sends no custom headers."""
    version = metadata.version("openai")
    return version if tuple(map(int, re.findall(r"\d+", version)[:3])) < CUSTOM_HEADERS_SINCE else None


def _warn_of_unset(used: list[str], origins: Origins) -> None:
    """Say which of the variables that are referred to only a file knows: a shell would put nothing in their place."""
    for origin, variable in origins.values():
        if variable in used and origin != "environment":
            say(
                f"{variable} is set in {origin} but not in the environment: export it, print its value with"
                " --show-secrets, or run your program by `deepseek-gateway env -- PROGRAM`."
            )
