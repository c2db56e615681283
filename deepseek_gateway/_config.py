"""Where the values come from: `GatewayConfig`, the environment and `.env`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TypedDict, Unpack

from ._settings import PLACEHOLDER, SETTINGS, SWITCH, Problem, Route, problems_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

# The path of each route below the endpoint (Cloudflare docs: usage/providers/deepseek, usage/chat-completion,
# usage/rest-api).
_PATH = {"provider": "/deepseek", "compat": "/compat", "rest": "/v1", "direct": ""}
_GATEWAY_HOST = "https://gateway.ai.cloudflare.com/v1"
_REST_HOST = "https://api.cloudflare.com/client/v4/accounts"
_FIELDS = {setting.field: setting for setting in SETTINGS}


class Secret(Protocol):
    """A secret in a wrapper that does not show it, such as pydantic's `SecretStr`."""

    def get_secret_value(self) -> str: ...


class Settings(TypedDict, total=False):
    """The fields of `GatewayConfig` as keyword arguments. None leaves a field to the variables or its default."""

    account_id: str | None
    gateway_id: str | None
    api_key: str | Secret | None
    gateway_token: str | Secret | None
    route: Route | None
    endpoint: str | None
    model: str | None
    thinking: bool | None
    adapt: bool | None
    fallback: Literal["direct"] | None
    direct_endpoint: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayConfig:
    """How to reach DeepSeek through one Cloudflare AI Gateway.

    An immutable, hashable, picklable value. Its `repr` contains no secret, but its pickle does. White space around a
    value is dropped. A blank value counts as absent.

    Args:
        account_id: Cloudflare account id. Needed unless `endpoint` is given.
        gateway_id: Name of the gateway. Cloudflare makes the one called `default` by itself, with authentication on.
        api_key: DeepSeek key. Leave it out when the key is stored at Cloudflare. Then no `Authorization` header is
            sent, because any would keep Cloudflare from adding the stored key.
        gateway_token: Cloudflare API token. Needed where the gateway asks for authentication, for stored keys and
            on the rest route.
        route: `provider`, `compat`, `rest`, or `direct`. The last is DeepSeek itself. It needs `api_key`, and nothing
            is sent that is meant for Cloudflare.
        endpoint: The URL before `/deepseek`, `/compat` or `/v1`, of a custom domain or a local emulator. Plain `http`
            is accepted for loopback hosts only.
        model: The DeepSeek model that is used where a program names one of OpenAI's, such as `gpt-4o`.
        thinking: Whether DeepSeek thinks, in calls that do not say. DeepSeek's own default is to think.
        adapt: Whether requests are translated from OpenAI's dialect into DeepSeek's. If False, `model` and `thinking`
            do nothing, and every body is sent as it is, apart from the model's prefix on a route.
        fallback: `direct` sends calls with a key of your own to DeepSeek itself while the gateway is down: when no
            connection to it can be made, or Cloudflare's edge answers that it is unreachable. Then calls go past the
            gateway's policies and log.
        direct_endpoint: Where the route `direct` and the fallback lead.

    Raises:
        ConfigError: Something is missing or malformed. The message names every problem and its remedy.
    """

    account_id: str | None = None
    gateway_id: str = "default"
    api_key: str | None = field(default=None, repr=False)
    gateway_token: str | None = field(default=None, repr=False)
    route: Route = "provider"
    endpoint: str | None = None
    model: str | None = None
    thinking: bool | None = None
    adapt: bool = True
    fallback: Literal["direct"] | None = None
    direct_endpoint: str = "https://api.deepseek.com"

    if TYPE_CHECKING:  # a dataclass cannot say that a field is given as a `Secret` and read as a text

        def __init__(self, **settings: Unpack[Settings]) -> None: ...

    def __post_init__(self) -> None:
        values = _normalised({name: getattr(self, name) for name in _FIELDS})
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _refuse(tuple(problems_in(values, {})))

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        env_file: str | os.PathLike[str] | EllipsisType | None = ...,
        **overrides: Unpack[Settings],
    ) -> Self:
        """Read the settings from the environment and a `.env` file. Neither is changed.

        An override beats a variable of the environment, which beats the file, which beats the default.

        Args:
            environ: The variables to read instead of `os.environ`. Then no file is looked for.
            env_file: The `.env` file to read. None reads no file. The default is the nearest `.env` from the working
                directory upwards, if there is one.
            **overrides: Fields of `GatewayConfig`. None leaves a field to the variables.

        Returns:
            The configuration.

        Raises:
            ConfigError: Something is missing or malformed, or the file cannot be read.
            TypeError: An override is not a field of `GatewayConfig`.
        """
        found = look_up(environ, env_file=env_file, **overrides)
        _refuse(found.problems, found.looked)
        values: Any = found.values
        return cls(**values)

    @property
    def base_url(self) -> str:
        """The `base_url` for an OpenAI client on this route, without a trailing slash."""
        endpoint = self.direct_endpoint if self.route == "direct" else self.endpoint
        if endpoint is None and self.route == "rest":
            endpoint = f"{_REST_HOST}/{self.account_id}/ai"
        elif endpoint is None:
            endpoint = f"{_GATEWAY_HOST}/{self.account_id}/{self.gateway_id}"
        return endpoint + _PATH[self.route]

    @property
    def headers(self) -> dict[str, str]:
        """Cloudflare's own headers, for libraries that take values instead of a client.

        `cf-aig-gateway-id` on the rest route and nothing on the direct route, else `cf-aig-authorization` if there is a
        token. Never `Authorization`.
        """
        if self.route == "rest":
            return {"cf-aig-gateway-id": self.gateway_id}
        token = self.gateway_token if self.route != "direct" else None
        return {"cf-aig-authorization": f"Bearer {token}"} if token else {}

    @property
    def bearer(self) -> str | None:
        """The value to send as `Authorization: Bearer`, or None when the key is stored at Cloudflare.

        The gateway token on the rest route, else the DeepSeek key. If it is None, send no `Authorization` header.
        """
        return self.gateway_token if self.route == "rest" else self.api_key

    @property
    def client_key(self) -> str:
        """The value to pass as `api_key` to a library that builds its own OpenAI client.

        `bearer`, or a placeholder when the key is stored at Cloudflare. The HTTP clients of this package never send it.
        """
        return self.bearer or PLACEHOLDER


class Findings(NamedTuple):
    """What was found for each field, where, and what is wrong with it. Made without importing openai."""

    values: dict[str, object]
    origins: dict[str, tuple[str, str]]
    """`argument`, `environment` or the path of a `.env` file, and the name there. Defaults have no origin."""
    problems: tuple[Problem, ...]
    env_file: str | os.PathLike[str] | None

    @property
    def looked(self) -> str:
        """Where the values were looked for, as a sentence."""
        file = "the environment; no .env file was read"
        return f"Looked in {file if self.env_file is None else f'the environment and {os.fspath(self.env_file)}'}."


def look_up(
    environ: Mapping[str, str] | None = None,
    *,
    env_file: str | os.PathLike[str] | EllipsisType | None = ...,
    **overrides: Unpack[Settings],
) -> Findings:
    """Do the work of `GatewayConfig.from_env()`, but report problems instead of raising an exception."""
    if unknown := set(overrides) - set(_FIELDS):
        listed = ", ".join(sorted(unknown))
        raise TypeError(f"GatewayConfig has no field {listed}; its fields are {', '.join(_FIELDS)}")
    problems: list[Problem] = []
    sources = [("environment", os.environ if environ is None else environ)]
    path = env_file
    if path is ...:
        path = _nearest_env_file() if environ is None else None
    if path is not None:
        try:
            sources.append((os.fspath(path), _read_env_file(path)))
        except (OSError, ValueError) as error:  # ValueError: the path holds a null character
            why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
            remedy = "correct env_file or the file, or pass env_file=None to read no file"
            problems.append(Problem(f"the file {os.fspath(path)!r} cannot be read ({why}); {remedy}"))
    values: dict[str, object] = {}
    origins: dict[str, tuple[str, str]] = {}
    for name, setting in _FIELDS.items():
        # An argument beats every variable, and a variable of the environment any in the file.
        candidates: list[tuple[object, tuple[str, str]]] = [(overrides.get(name), ("argument", name))]
        candidates += [(source.get(each), (origin, each)) for origin, source in sources for each in setting.variables]
        found = [(value, origin) for given, origin in candidates if (value := _stripped(given)) is not None]
        if found:
            values[name], origins[name] = found[0]
    values = _normalised(values)
    problems += problems_in(values, {name: used for name, (_, used) in origins.items()})
    return Findings(values, origins, tuple(problems), path)


def _stripped(value: object) -> object:
    """Take a secret out of its wrapper and white space off a text. A blank text is None."""
    reveal = getattr(value, "get_secret_value", None)
    value = reveal() if reveal else value
    return (value.strip() or None) if isinstance(value, str) else value


def _normalised(values: Mapping[str, object]) -> dict[str, object]:
    found = {name: _stripped(values.get(name)) for name in _FIELDS}
    for name, setting in _FIELDS.items():
        value = found[name]
        if value is None:
            found[name] = setting.default
        elif isinstance(value, str) and setting.is_switch:
            found[name] = SWITCH.get(value.lower(), value)
    for name, value in found.items():
        if name in {"endpoint", "direct_endpoint"} and isinstance(value, str):
            found[name] = value.rstrip("/")
        elif name in {"route", "fallback"} and isinstance(value, str):
            found[name] = value.lower()
    return found


def _nearest_env_file() -> str | None:
    from dotenv import find_dotenv  # noqa: PLC0415  # importing it takes 20 ms

    try:
        return find_dotenv(usecwd=True) or None  # its default is to start at this very file
    except OSError:  # the working directory is gone
        return None


def _read_env_file(path: str | os.PathLike[str]) -> dict[str, str]:
    from dotenv import dotenv_values  # noqa: PLC0415  # importing it takes 20 ms

    with open(path, encoding="utf-8-sig") as stream:  # noqa: PTH123  # a path-like or a pipe will do
        return {name: value for name, value in dotenv_values(stream=stream).items() if value is not None}


def _refuse(problems: tuple[Problem, ...], looked: str = "") -> None:
    """Raise one `ConfigError` about everything that is wrong."""
    if problems:
        from ._errors import ConfigError  # noqa: PLC0415  # it imports openai, which takes 400 ms

        missing = tuple(variable for problem in problems for variable in problem.missing)
        raise ConfigError(complaint(problems, ", or pass it as an argument", looked), missing=missing)


def complaint(problems: tuple[Problem, ...], or_else: str, looked: str) -> str:
    """Say in one message everything that is wrong. `or_else` is a third way to set what is missing."""
    text = "\n  - ".join(("deepseek_gateway cannot be configured:", *(problem.sentence for problem in problems)))
    where = f"Set it in the environment or in a .env file{or_else}."
    return "\n".join(
        (text, *([where] if any(problem.missing for problem in problems) else []), *filter(None, [looked]))
    )
