"""What `deepseek-gateway env` does: print what a program needs, or run it with that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, NoReturn, TypeAlias

import typer

from .environment import (
    AMBIENT,
    CUSTOM_HEADERS,
    CUSTOM_HEADERS_SINCE,
    PROGRAMS,
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
from .options import say

if TYPE_CHECKING:
    from deepseek_gateway._config import GatewayConfig

    from .environment import Format, Target, Value

_NOT_FOUND, _NOT_RUNNABLE = 127, 126  # what a shell reports

Origins: TypeAlias = Mapping[str, tuple[str, str]]
"""By field, where its value was found, and the variable's name there."""


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
