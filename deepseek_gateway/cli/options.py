"""What all commands share: their options, the settings that follow from them, and how a person is told of a failure.

Nothing here imports openai: who only mistypes an option, or lacks a setting, does not wait for it.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast
from urllib.parse import urlsplit

import typer

from deepseek_gateway._codes import RequestFacts, deepseek_remedy
from deepseek_gateway._config import GatewayConfig, look_up
from deepseek_gateway._settings import VARIABLE, Route

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

RouteOption: TypeAlias = Annotated[
    Route | None,
    typer.Option(
        "--route", help=f"How requests travel. Default: {VARIABLE['route']}, else provider.", show_default=False
    ),
]
EnvFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        help="Settings file. Default: the nearest .env from here upwards; /dev/null reads none.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
EndpointOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        help=f"Custom domain or local emulator. Default: {VARIABLE['endpoint']}, else Cloudflare's own host.",
        metavar="URL",
        show_default=False,
    ),
]
DebugOption: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE

# Errors that this library makes without naming an `original`; all others without one are the provider's own.
_OWN_CODES = {"wrong_route", "unfit_credential", "redirect_refused"}
# What the SDK says of every lost connection, and what a person can do something with.
_SDK_TEXTS = {"Connection error.": "could not be reached", "Request timed out.": "did not answer in time"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Take out what a terminal would obey instead of show: all control characters but line feed and tab."""
    return _CONTROL.sub("", text)


def say(text: str, *, dim: bool = False) -> None:
    """Tell a person something beside the output, on stderr."""
    typer.secho(printable(text), err=True, dim=(dim and styled()) or None)


def styled() -> bool:
    """Whether stderr is a terminal that may be written to in other than plain characters."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def settings(
    route: Route | None, env_file: Path | None, endpoint: str | None, *, hint: str = ""
) -> tuple[GatewayConfig, Mapping[str, tuple[str, str]]]:
    """Look the settings up, or say all that is wrong with them and exit with status 1.

    Args:
        route: What `--route` said.
        env_file: What `--env-file` said.
        endpoint: What `--endpoint` said.
        hint: What else a person could do who has no settings.

    Returns:
        The configuration, and where its values come from, as `Findings.origins` tells it.
    """
    found = look_up(env_file=env_file or ..., route=route, endpoint=endpoint)
    if found.complaint:
        say(found.complaint.replace(", or pass it to GatewayConfig()", "") + hint)
        raise typer.Exit(1)
    return GatewayConfig(**cast("dict[str, Any]", found.values)), found.origins


@contextmanager
def reporting(config: GatewayConfig | None = None, *, model: str | None = None, debug: bool = False) -> Generator[None]:
    """End a command in which the service said no with one readable message and status 1.

    An interrupt ends it with status 130, a reader that went away with 141, both without a word.

    Args:
        config: The settings in use, if there are any; their secrets are kept out of what is told.
        model: The model that is asked, if one is.
        debug: Whether to show the traceback as well.

    Yields:
        None.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it once more at its end
        raise typer.Exit(BROKEN_PIPE) from None
    except Exception as error:
        openai: Any = sys.modules.get("openai")  # an error of the SDK's cannot come before the SDK
        if config is None or openai is None or not isinstance(error, (openai.OpenAIError, JSONDecodeError)):
            raise
        sent = RequestFacts(
            method="POST",
            route=config.route,
            authorization=config.bearer is not None,
            gateway_token=config.gateway_token is not None,
            key_is_stored=config.api_key is None,
            model=model,
            max_attempts=1,
            secrets=tuple(filter(None, (config.api_key, config.gateway_token))),
        )
        if debug:
            say(sent.hide("".join(traceback.format_exception(error))))
        say(sent.hide(explanation(error, sent)))
        raise typer.Exit(1) from None


def explanation(error: Exception, sent: RequestFacts) -> str:
    """Put an error of the SDK's into a sentence: who said no, why, what to do, and the id to ask about.

    Args:
        error: An `openai.OpenAIError`, or what the SDK lets through when something that is no JSON comes.
        sent: What is known of the request.

    Returns:
        The sentence.
    """
    import openai  # noqa: PLC0415  # it is there already, or there would be no such error

    text = str(error)
    if isinstance(error, openai.APIStatusError):
        said: Any = error.body
        body = cast("dict[str, Any]", said) if isinstance(said, dict) else {}
        text = str(body.get("message") or error.message)
        if "original" not in body and body.get("code") not in _OWN_CODES:
            who = "DeepSeek" if sent.to_deepseek else "the provider behind AI Gateway"
            remedy = deepseek_remedy(error.status_code, text, sent)
            text = f"{error.status_code} from {who}: {text}{f'; {remedy}' if remedy else ''}"
        if error.request_id:
            text += f" (request id {error.request_id})"
    elif isinstance(error, openai.APIConnectionError) and text in _SDK_TEXTS:
        host = urlsplit(str(error.request.url)).netloc
        text = f"{host} {_SDK_TEXTS[text]}{f' ({error.__cause__})' if str(error.__cause__ or '') else ''}"
    elif isinstance(error, JSONDecodeError):
        text = f"What came back is no JSON: {error}"
    elif isinstance(error, openai.APIError) and text == "An error occurred during streaming":
        text += f": {error.body}"
    return text
