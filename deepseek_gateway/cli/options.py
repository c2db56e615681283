"""What the commands share: their options, the settings, and the message about a failure.

Nothing here imports openai at the top, so a mistyped option or a missing setting is reported at once.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeAlias, cast
from urllib.parse import urlsplit

import typer
from typer.core import TyperGroup

from deepseek_gateway._codes import REDACTED, RequestFacts, deepseek_remedy, hide
from deepseek_gateway._config import GatewayConfig, complaint, look_up
from deepseek_gateway._settings import DEFAULT_MODEL, SETTINGS, VARIABLE, Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"Model to ask, or dynamic/ROUTE with --route compat. Default: {VARIABLE['model']}, else {DEFAULT_MODEL}.",
        metavar="NAME",
    ),
]
RouteOption: TypeAlias = Annotated[
    Route | None, typer.Option("--route", help=f"How requests travel. Default: {VARIABLE['route']}, else provider.")
]
EnvFileOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--env-file",
        help="Settings file. Default: the nearest .env from here upwards; /dev/null reads none.",
        metavar="FILE",
        exists=True,
        dir_okay=False,
    ),
]
EndpointOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--endpoint", help=f"Custom domain or emulator. Default: {VARIABLE['endpoint']}.", metavar="URL"),
]
DebugOption: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

_INTERRUPTED, _BROKEN_PIPE = 130, 141  # what a shell reports for SIGINT and SIGPIPE

# The SDK's messages for every lost connection, and what a person can act on.
_SDK_TEXTS = {"Connection error.": "could not be reached", "Request timed out.": "did not answer in time"}
# The last of these turn the direction of a text, which makes a terminal show it in another order.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PART_OF_A_KEY = re.compile(r"(api key: )\S+", re.IGNORECASE)  # DeepSeek's 401 repeats the last four characters


def printable(text: str) -> str:
    """Remove the control characters that a terminal would obey; line feeds and tabs stay."""
    return _CONTROL.sub("", text)


def without_secrets(text: str, settings: Mapping[str, object]) -> str:
    """Redact every secret of the settings, and the part of a key that DeepSeek repeats, in somebody else's text."""
    text = hide(text, (str(settings.get(setting.field) or "") for setting in SETTINGS if setting.secret))
    return _PART_OF_A_KEY.sub(rf"\1{REDACTED}", text)


def say(text: str, *, dim: bool = False) -> None:
    """Print a remark to stderr, beside the output."""
    typer.secho(printable(text), err=True, dim=(dim and styled(sys.stderr)) or None)


def styled(stream: TextIO) -> bool:
    """Whether a stream is a terminal that may get more than plain characters."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_beside(margin: str, text: str, **style: Any) -> None:
    """Print a text beside its margin, which gets the style. A long URL or path stays in one piece, to be copied."""
    width = max(shutil.get_terminal_size().columns - len(margin), 20)
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = [line for paragraph in printable(text).splitlines() for line in wrapper.wrap(paragraph)]
    typer.secho(margin, nl=False, **(style if styled(sys.stdout) else {}))
    typer.echo(f"\n{' ' * len(margin)}".join(lines))


def assignments(variables: Mapping[str, str], unset: Sequence[str] = ()) -> Iterator[str]:
    """Write variables for a shell. The values need no quoting beyond that of a plain text."""
    yield "# For a POSIX shell:\n"
    yield from (f"export {name}='{value}'" for name, value in variables.items())
    yield from (f"unset {name}" for name in unset)
    yield "\n# For PowerShell:\n"
    yield from (f"$env:{name} = '{value}'" for name, value in variables.items())
    yield from (f"Remove-Item Env:{name}" for name in unset)


def load_settings(
    route: Route | None, env_file: Path | None, endpoint: str | None, *, hint: str = ""
) -> tuple[GatewayConfig, Mapping[str, tuple[str, str]]]:
    """Give the settings and their origins, or report what is wrong with them, with the hint, and exit with status 1."""
    found = look_up(env_file=env_file or ..., route=route, endpoint=endpoint)
    if found.problems:
        say(complaint(found.problems, "", found.looked) + hint)
        raise typer.Exit(1)
    return GatewayConfig(**cast("dict[str, Any]", found.values)), found.origins


class Commands(TyperGroup):
    """The commands. An interrupt ends any of them with status 130, and a closed pipe with 141, without a message."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python reports the pipe again at exit
            raise typer.Exit(_BROKEN_PIPE) from None


def explanation(error: Exception, facts: RequestFacts | None) -> str:
    """Say who refused a call, why, what to do, and which id to ask about; the text may still hold secrets.

    The facts are those of the last request, or None if the error was made before any traffic. A `JSONDecodeError` is
    what the SDK raises for an answer that is not JSON.
    """
    import openai  # noqa: PLC0415  # the error has imported it already

    text = str(error)
    if isinstance(error, openai.APIStatusError):
        given: Any = error.body
        body = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        text = str(body.get("message") or error.message)
        if facts and "original" not in body and body.get("code") != "redirect_refused":  # the provider's own error
            who = "DeepSeek" if facts.to_deepseek else "the provider behind AI Gateway"
            remedy = deepseek_remedy(error.status_code, text, facts)
            text = f"{error.status_code} from {who}: {text}{f'; {remedy}' if remedy else ''}"
        if error.request_id:
            text += f" (request id {error.request_id})"
    elif isinstance(error, openai.APIConnectionError) and text in _SDK_TEXTS:
        host = urlsplit(str(error.request.url)).netloc
        text = f"{host} {_SDK_TEXTS[text]}{f' ({error.__cause__})' if str(error.__cause__ or '') else ''}"
    elif isinstance(error, JSONDecodeError):
        text = f"The answer is no JSON: {error}"
    elif isinstance(error, openai.APIError) and text == "An error occurred during streaming":
        text += f": {error.body}"
    return text
