"""What other programs want to be told, and under which names: one table, and the forms to write it in."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from deepseek_gateway._request import model_on
from deepseek_gateway._settings import DEFAULT_MODEL, OPENAI_VARIABLES, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deepseek_gateway._config import GatewayConfig

Target: TypeAlias = Literal["openai", "litellm", "langchain", "aider", "curl"]
Format: TypeAlias = Literal["shell", "dotenv", "json"]

_KEY, _TOKEN = VARIABLE["api_key"], VARIABLE["gateway_token"]

CUSTOM_HEADERS = "OPENAI_CUSTOM_HEADERS"
CUSTOM_HEADERS_SINCE = (2, 34, 0)
"""The first openai that sends them; read in the published packages, of which 2.33.0 does not."""


@dataclass(frozen=True)
class Secret:
    """A key or token, and the variable in which a person keeps it."""

    variable: str
    value: str = field(repr=False)


Value: TypeAlias = tuple[str | Secret, ...]


class Program(NamedTuple):
    """One program: which variables it reads, how it wants a model named, and what else to know."""

    base_url: tuple[str, ...]
    api_key: tuple[str, ...]
    headers: str | None
    model_prefix: str
    notes: tuple[str, ...] = ()


_SDK = f"{CUSTOM_HEADERS} is sent by openai from {'.'.join(map(str, CUSTOM_HEADERS_SINCE))} on; older ones ignore it."
_BASES = ("OPENAI_BASE_URL", "OPENAI_API_BASE")  # whichever is looked at first, none leads elsewhere

PROGRAMS: dict[str, Program] = {
    "openai": Program(("OPENAI_BASE_URL",), ("OPENAI_API_KEY",), CUSTOM_HEADERS, "", (_SDK,)),
    # Its deepseek/ models would go to DEEPSEEK_API_BASE by an HTTP client that sends no header of ours.
    "litellm": Program(_BASES, ("OPENAI_API_KEY",), CUSTOM_HEADERS, "openai/", (_SDK,)),
    # Both ChatOpenAI and ChatDeepSeek, which keeps DeepSeek's thinking and reads the same variable as this library.
    "langchain": Program((*_BASES, "DEEPSEEK_API_BASE"), ("OPENAI_API_KEY", _KEY), CUSTOM_HEADERS, "", (_SDK,)),
    # It pins an openai that ignores CUSTOM_HEADERS.
    "aider": Program(_BASES, ("OPENAI_API_KEY",), None, "openai/"),
}
"""By what `--for` takes; read in, and but for aider tried with, the versions that README names."""

AMBIENT = tuple(name for name in OPENAI_VARIABLES if name not in {"OPENAI_API_KEY", "OPENAI_BASE_URL"})
"""The variables that an OpenAI client would send to Cloudflare and DeepSeek, and that `env` does not set itself."""


def environment(program: Program, config: GatewayConfig, variables: Mapping[str, str]) -> dict[str, Value]:
    """Give the variables that lead a program through the gateway.

    Args:
        program: A row of `PROGRAMS`.
        config: The settings.
        variables: For `api_key` and `gateway_token` the variables in which they were found.

    Returns:
        Names and values.

    Raises:
        ValueError: The program cannot be led there in this way; the message says what to do.
    """
    key = _bearer(config, variables)
    if key is None:
        raise ValueError(
            f"{_KEY} is not set, so the key is taken to be stored at Cloudflare. But a program of this kind always"
            " sends a key, and any would keep Cloudflare from adding the stored one. Do one of these:\n"
            f"  - set {_KEY};\n"
            f"  - use --route rest, where the key to send is {_TOKEN} (it needs Workers AI Read there);\n"
            "  - in Python, give the program a client made by deepseek_gateway.create_client();\n"
            "  - use --for curl, which sends no key."
        )
    values: dict[str, Value] = dict.fromkeys(program.base_url, (config.base_url,))
    values |= dict.fromkeys(program.api_key, (key,))
    headers = _headers(config, variables)
    if program.headers and headers:
        lines = [(f"{name}: ", *value) for name, value in headers.items()]
        values[program.headers] = lines[0] + tuple(part for line in lines[1:] for part in ("\n", *line))
    return values


def remarks(program: Program, config: GatewayConfig) -> list[str]:
    """Say what a person has to know to use a program with these variables."""
    return [f"The model is called {program.model_prefix}{model_name(config)}.", *header_remarks(program, config)]


def header_remarks(program: Program, config: GatewayConfig) -> list[str]:
    """Say how far the gateway's own headers are sent; nothing if there are none to send."""
    headers = _headers(config, {})
    if not headers or program.headers:
        return list(program.notes) if headers else []
    return [
        "No variable holds the header below; write it into .aider.model.settings.yml:",
        f"- name: {program.model_prefix}{model_name(config)}",
        "  extra_params:",
        "    extra_headers:",
        *(f"      {name}: {_plain(value, '<your {}>')}" for name, value in headers.items()),
    ]


def request_headers(config: GatewayConfig, variables: Mapping[str, str]) -> dict[str, Value]:
    """Give the headers of a request that is made by hand; a stored key goes with no `Authorization` at all."""
    key = _bearer(config, variables)
    authorization: dict[str, Value] = {"Authorization": ("Bearer ", key)} if key else {}
    return {"Content-Type": ("application/json",), **authorization, **_headers(config, variables)}


def as_curl(config: GatewayConfig, headers: Mapping[str, Value], *, show_secrets: bool) -> str:
    """Write a command that asks a question."""
    body = {"model": model_name(config), "messages": [{"role": "user", "content": "What is Cloudflare?"}]}
    lines = [
        f"curl -sS {shlex.quote(config.base_url + '/chat/completions')}",
        *(f"-H {_shell((f'{name}: ', *value), show_secrets=show_secrets)}" for name, value in headers.items()),
        f"-d {shlex.quote(json.dumps(body))}",
    ]
    return " \\\n  ".join(lines)


def as_shell(values: Mapping[str, Value], *, unset: list[str], comments: list[str], show_secrets: bool) -> str:
    """Write lines for `eval`; comments come last, for an `eval` without quotes would take all after them for one."""
    lines = [f"export {name}={_shell(value, show_secrets=show_secrets)}" for name, value in values.items()]
    lines += [f"unset {name}" for name in unset]
    return "\n".join(lines + [f"# {comment}" for comment in comments])


def as_dotenv(values: Mapping[str, Value], *, show_secrets: bool) -> str:
    """Write a `.env` file; references are in the form that dotenv libraries resolve."""
    lines: list[str] = []
    for name, value in values.items():
        text = _plain(value, None if show_secrets else "${{{}}}")
        escaped = text.replace("\\", "\\\\").replace("'", "\\'") if show_secrets else text
        quote = "'" if show_secrets else '"'
        lines.append(f"{name}={quote}{escaped}{quote}")
    return "\n".join(lines)


def as_json(values: Mapping[str, Value], *, show_secrets: bool) -> str:
    """Write one JSON object."""
    return json.dumps(
        {name: _plain(value, None if show_secrets else "${}") for name, value in values.items()}, indent=2
    )


def exact(values: Mapping[str, Value]) -> dict[str, str]:
    """Give the values with their secrets, to run a program with."""
    return {name: _plain(value, None) for name, value in values.items()}


def secrets_in(values: Mapping[str, Value]) -> list[str]:
    """Name the variables that the references in these values refer to, each once."""
    return list(dict.fromkeys(part.variable for value in values.values() for part in value if isinstance(part, Secret)))


def model_name(config: GatewayConfig) -> str:
    """Name the model as the route wants it (Cloudflare docs: usage/providers/deepseek, usage/chat-completion)."""
    return model_on(config.route, DEFAULT_MODEL)


def _bearer(config: GatewayConfig, variables: Mapping[str, str]) -> Secret | None:
    name = "gateway_token" if config.route == "rest" else "api_key"
    return Secret(variables.get(name, VARIABLE[name]), config.bearer) if config.bearer else None


def _headers(config: GatewayConfig, variables: Mapping[str, str]) -> dict[str, Value]:
    token = Secret(variables.get("gateway_token", VARIABLE["gateway_token"]), config.gateway_token or "")
    return {
        name: ("Bearer ", token) if name == "cf-aig-authorization" else (value,)
        for name, value in config.headers.items()
    }


def _plain(value: Value, reference: str | None) -> str:
    """Write a value, with its secrets as references of this form if there is one."""
    return "".join(
        part if isinstance(part, str) else reference.format(part.variable) if reference else part.value
        for part in value
    )


def _shell(value: Value, *, show_secrets: bool) -> str:
    """Quote a value as one word for a POSIX shell."""
    if show_secrets:
        return shlex.quote(_plain(value, None))
    pieces = _plain(value, "\0{}\0").split("\0")  # text and names of variables by turns
    return "".join(f'"${piece}"' if number % 2 else piece and shlex.quote(piece) for number, piece in enumerate(pieces))
