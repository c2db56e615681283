"""Where the values come from: `GatewayConfig`, the environment and `.env`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from ._settings import SETTINGS, VARIABLE, Route

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import EllipsisType

# The path of each route below the endpoint (Cloudflare docs: usage/providers/deepseek, usage/chat-completion,
# usage/rest-api).
_PATH = {"provider": "/deepseek", "compat": "/compat", "rest": "/v1"}
_GATEWAY_HOST = "https://gateway.ai.cloudflare.com/v1"
_REST_HOST = "https://api.cloudflare.com/client/v4/accounts"
_VARIABLES = {setting.field: " or ".join(setting.variables) for setting in SETTINGS}


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
        route: `provider`, `compat` or `rest`.
        endpoint: The URL before `/deepseek`, `/compat` or `/v1`, of a custom domain or a local emulator. Plain `http`
            is accepted for loopback hosts only.

    Raises:
        ConfigError: Something is missing or malformed. The message names every problem and its remedy.
    """

    account_id: str | None = None
    gateway_id: str = "default"
    api_key: str | None = field(default=None, repr=False)
    gateway_token: str | None = field(default=None, repr=False)
    route: Route = "provider"
    endpoint: str | None = None

    def __post_init__(self) -> None:
        values = _normalised({setting.field: getattr(self, setting.field) for setting in SETTINGS})
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _refuse(*_complaint(values, _VARIABLES))

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        env_file: str | os.PathLike[str] | EllipsisType | None = ...,
        **overrides: str | None,
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
        _refuse(found.complaint, found.missing)
        return cls(**found.values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @property
    def base_url(self) -> str:
        """The `base_url` for an OpenAI client on this route, without a trailing slash."""
        endpoint = self.endpoint
        if endpoint is None and self.route == "rest":
            endpoint = f"{_REST_HOST}/{self.account_id}/ai"
        elif endpoint is None:
            endpoint = f"{_GATEWAY_HOST}/{self.account_id}/{self.gateway_id}"
        return endpoint + _PATH[self.route]

    @property
    def headers(self) -> dict[str, str]:
        """Cloudflare's own headers, for libraries that take values instead of a client.

        `cf-aig-gateway-id` on the rest route, else `cf-aig-authorization` if there is a token. Never `Authorization`.
        """
        if self.route == "rest":
            return {"cf-aig-gateway-id": self.gateway_id}
        return {"cf-aig-authorization": f"Bearer {self.gateway_token}"} if self.gateway_token else {}

    @property
    def bearer(self) -> str | None:
        """The value to send as `Authorization: Bearer`, or None when the key is stored at Cloudflare.

        The gateway token on the rest route, else the DeepSeek key. If it is None, send no `Authorization` header.
        """
        return self.gateway_token if self.route == "rest" else self.api_key


class Findings(NamedTuple):
    """What was found for each field, where, and what is wrong with it. Made without importing openai."""

    values: dict[str, object]
    origins: dict[str, tuple[str, str]]
    """`argument`, `environment` or the path of a `.env` file, and the name there. Defaults have no origin."""
    complaint: str
    """The message of a `ConfigError`. Empty when the settings suffice."""
    missing: tuple[str, ...]
    env_file: str | os.PathLike[str] | None


def look_up(
    environ: Mapping[str, str] | None = None,
    *,
    env_file: str | os.PathLike[str] | EllipsisType | None = ...,
    **overrides: str | None,
) -> Findings:
    """Do the work of `GatewayConfig.from_env()`, but report problems instead of raising an exception."""
    if unknown := set(overrides) - set(_VARIABLES):
        listed = ", ".join(sorted(unknown))
        raise TypeError(f"GatewayConfig has no field {listed}; its fields are {', '.join(_VARIABLES)}")
    problems: list[str] = []
    sources = [("environment", os.environ if environ is None else environ)]
    path = env_file
    if path is ...:
        path = _nearest_env_file() if environ is None else None
    if path is not None:
        try:
            sources.append((os.fspath(path), _read_env_file(path)))
        except (OSError, UnicodeDecodeError) as error:
            why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            remedy = "correct env_file or the file, or pass env_file=None to read no file"
            problems.append(f"the file {os.fspath(path)} cannot be read ({why}); {remedy}")
    values: dict[str, object] = {}
    origins: dict[str, tuple[str, str]] = {}
    for setting in SETTINGS:
        # An argument beats every variable, and a variable of the environment any in the file.
        candidates = [(overrides.get(setting.field), ("argument", setting.field))]
        candidates += [(source.get(name), (origin, name)) for origin, source in sources for name in setting.variables]
        found = [(value, origin) for given, origin in candidates if (value := _stripped(given)) is not None]
        if found:
            values[setting.field], origins[setting.field] = found[0]
    values = _normalised(values)
    names = _VARIABLES | {field: name for field, (origin, name) in origins.items() if origin != "argument"}
    complaint, missing = _complaint(values, names, problems)
    looked = f"the environment and {os.fspath(path)}" if path is not None else "the environment; no .env file was read"
    return Findings(values, origins, complaint and f"{complaint}\nLooked in {looked}.", missing, path)


def _stripped(value: object) -> object:
    return (value.strip() or None) if isinstance(value, str) else value


def _normalised(values: Mapping[str, object]) -> dict[str, object]:
    stripped = {setting.field: _stripped(values.get(setting.field)) or setting.default for setting in SETTINGS}
    if isinstance(endpoint := stripped["endpoint"], str):
        stripped["endpoint"] = endpoint.rstrip("/")
    if isinstance(route := stripped["route"], str):
        stripped["route"] = route.lower()
    return stripped


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


def _complaint(
    values: Mapping[str, object], names: Mapping[str, str], unreadable: Iterable[str] = ()
) -> tuple[str, tuple[str, ...]]:
    """Say in one message everything that is wrong, and name the variables that are missing."""
    problems = [*(((), line) for line in unreadable), *_problems(values, names)]
    missing = tuple(variable for variables, _ in problems for variable in variables)
    lines = ["deepseek_gateway cannot be configured:", *(line for _, line in problems)]
    where = "\nSet it in the environment or in a .env file, or pass it to GatewayConfig()." if missing else ""
    return ("\n  - ".join(lines) + where if problems else ""), missing


def _refuse(complaint: str, missing: tuple[str, ...]) -> None:
    if complaint:
        from ._errors import ConfigError  # noqa: PLC0415  # it imports openai, which takes 400 ms

        raise ConfigError(complaint, missing=missing)


def _problems(values: Mapping[str, object], names: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give each problem as the variables that are missing, if any, and a sentence. Secrets are never shown."""
    about = {setting.field: f"{setting.meaning} ({setting.source})" for setting in SETTINGS}
    account, key, token = (VARIABLE[name] for name in ("account_id", "api_key", "gateway_token"))
    if values["account_id"] is None and values["endpoint"] is None:
        yield (account,), f"{account} is not set or blank: {about['account_id']}"
    if values["gateway_token"] is None and values["route"] == "rest":
        yield (token,), f"{token} is not set or blank, and the rest route needs it: {about['gateway_token']}"
    elif values["gateway_token"] is None and values["api_key"] is None:
        sentence = f"neither {key} nor {token} is set (blank is unset); give at least one:"
        yield (key, token), f"{sentence}\n      {key}: {about['api_key']}\n      {token}: {about['gateway_token']}"
    for setting in SETTINGS:
        value, name = values[setting.field], names[setting.field]
        if value is not None and not isinstance(value, str):
            yield (), f"{name} must be text, not {type(value).__name__}"
        elif value and (broken := setting.rule(value)):
            yield (), f"{name} {broken}"
