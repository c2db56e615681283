"""The settings: one table of fields and variables, and the rules that a value must meet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Literal, NamedTuple, TypeAlias, get_args
from urllib.parse import urlsplit

Route: TypeAlias = Literal["provider", "compat", "rest", "direct"]
"""Cloudflare's passthrough to DeepSeek, its OpenAI-compatible endpoint, its REST API, or DeepSeek itself."""

ROUTES: tuple[str, ...] = get_args(Route)

DEEPSEEK_ONLY: frozenset[Route] = frozenset({"provider", "direct"})
"""The routes that lead to DeepSeek alone, and know its models without a prefix."""


_Rule: TypeAlias = Callable[[Any], str | None]
"""Says which rule a value breaks and what to do, as the rest of a sentence about it. None: the value is fine."""

_KEY_RULES = (
    (r"(?i)^bearer(\s|$)", "begins with 'Bearer'; give the key alone, the prefix is added for you"),
    (r"[\s\x00-\x1f\x7f]", "holds white space, a line break or a control character; copy the key again, in one piece"),
    (r"[^\x00-\x7f]", "holds a character outside ASCII, which no key has; copy the key again"),
    (r"^['\"]", "is in quotation marks; leave them out"),
    (r"^[<{$]", "is a placeholder from some documentation; put your own key in its place"),
)


def _key_rule(key: str) -> str | None:
    """Check a key or token: it travels in an HTTP header and must fit there."""
    return next((sentence for pattern, sentence in _KEY_RULES if re.search(pattern, key)), None)


_PLACEHOLDER = re.compile(r"[{}<>$]|^(your[-_])?((cf|cloudflare)[-_])?(account|gateway)[-_](id|name)$", re.IGNORECASE)


def _id_rule(value: str) -> str | None:
    """Check an account or gateway id: it becomes one segment of the URL's path."""
    if "://" in value:
        return f"is a URL; give the id alone (a whole URL goes into {VARIABLE['endpoint']})"
    if _PLACEHOLDER.search(value):
        return "is a placeholder from some documentation; put your own id in its place"
    if bad := re.search(r"[^A-Za-z0-9._~!&()*+,:=@-]", value):
        return f"holds {bad.group()!r}, which no id has; give the id alone, as the dashboard shows it"
    return "is no id; give it as the dashboard shows it" if value in {".", ".."} else None


def _route_rule(value: str) -> str | None:
    return None if value in ROUTES else f"is no route; it must be one of {', '.join(ROUTES)}"


# People append these to a base URL out of habit. The SDK or this library appends them by itself.
_APPENDED = re.compile(
    r"(/(deepseek|compat|v1|beta|run|chat|completions|responses|embeddings|models|messages|user/balance))+$",
    re.IGNORECASE,
)
# A gateway may be called "deepseek", so the two segments after /v1 are not looked at.
_ACCOUNT_AND_GATEWAY = re.compile(r"/v1/(?!chat/completions\b)[^/]+/[^/]+")
# The path before the route at Cloudflare's own hosts (Cloudflare docs: usage/providers/deepseek, usage/rest-api).
_CLOUDFLARE = {
    "gateway.ai.cloudflare.com": r"/v1/[^/]+/[^/]+",
    "api.cloudflare.com": r"/client/v4/accounts/[^/]+/ai",
}


_HOST = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*|[^\W_](?:[\w.-]*[^\W_])?", re.ASCII)
_NUMBERS = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*")  # systems read these as addresses
_DOTS = re.compile(r"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)


def _url_rule(endpoint: str) -> str | None:  # noqa: PLR0911  # a list of rules, one sentence each
    """Check a base URL."""
    if re.search(r"[\s\x00-\x1f\x7f\\]", endpoint):
        return "contains white space, a control character or a backslash; give it as one plain URL"
    try:
        url = urlsplit(endpoint)
        _ = url.port
    except ValueError:
        return "is not a valid URL; give it like https://ai.example.com"
    if "@" in url.netloc:
        return (
            f"contains a user name or password; secrets go into {VARIABLE['api_key']} and {VARIABLE['gateway_token']}"
        )
    if url.query or url.fragment or endpoint.endswith(("?", "#")):
        return "has a query or fragment; leave out everything from the first '?' or '#'"
    if url.scheme not in {"http", "https"} or not url.hostname:
        return "is not an http(s) URL; give it like https://ai.example.com"
    if not _HOST.fullmatch(url.hostname) or (_NUMBERS.fullmatch(url.hostname) and not _address(url.hostname)):
        return "has no valid host; give it in ASCII, like https://ai.example.com"
    if _DOTS.search(url.path):
        return "has a path segment of dots, which would lead elsewhere; give the path that it leads to"
    if re.search(r"[{}<>$]", endpoint):
        return "contains a placeholder from some documentation; put your own value in its place"
    if url.scheme == "http" and not _is_loopback(url.hostname):
        return f"would send your keys unencrypted to {url.hostname}; use https (plain http is for loopback hosts only)"
    return None


def _endpoint_rule(endpoint: str) -> str | None:
    """Check an endpoint. Where the right value is known, the sentence gives it."""
    if broken := _url_rule(endpoint):
        return broken
    url = urlsplit(endpoint)
    kept = _ACCOUNT_AND_GATEWAY.match(url.path)
    head = kept.end() if kept else 0
    path = url.path[:head] + _APPENDED.sub("", url.path[head:])
    shape = _CLOUDFLARE.get(url.hostname or "")
    if shape and not re.fullmatch(shape, path):
        return f"is no gateway's address at Cloudflare; leave it out and set {VARIABLE['account_id']} instead"
    if path != url.path:
        return f"must end before what the library appends; use {url.scheme}://{url.netloc}{path}"
    return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _model_rule(value: str) -> str | None:
    """Check a model name no further than the body of a request needs. New names appear every quarter."""
    return "contains white space; give the name alone" if re.search(r"[\s\x00-\x1f\x7f]", value) else None


SWITCH = {"on": True, "off": False, "true": True, "false": False, "1": True, "0": False}
"""The texts of a variable that is on or off, in lower case."""


def _switch_rule(value: object) -> str | None:
    return None if isinstance(value, bool) else "must be on or off"


def _fallback_rule(value: str) -> str | None:
    return None if value == "direct" else "must be direct, or not set"


class Setting(NamedTuple):
    """One setting: its field in `GatewayConfig`, its variables, the rule for its values, and what a person needs."""

    field: str
    variables: tuple[str, ...]
    rule: _Rule
    default: str | bool | None
    meaning: str
    source: str
    secret: bool = False

    @property
    def is_switch(self) -> bool:
        """Whether the value is a bool, which a variable spells as a text of `SWITCH`."""
        return self.rule is _switch_rule


SETTINGS = (
    Setting(
        "account_id",
        ("CLOUDFLARE_ACCOUNT_ID",),
        _id_rule,
        None,
        "Cloudflare account id; not needed when the endpoint is set",
        "Cloudflare dashboard, Account home, menu beside the account's name, Copy account ID",
    ),
    Setting(
        "gateway_id",
        ("CLOUDFLARE_AI_GATEWAY_ID", "CLOUDFLARE_GATEWAY_ID"),
        _id_rule,
        "default",
        "name of the gateway",
        "Cloudflare dashboard, AI, AI Gateway",
    ),
    Setting(
        "api_key",
        ("DEEPSEEK_API_KEY", "DEEPSEEK_TOKEN"),
        _key_rule,
        None,
        "your DeepSeek key; leave it out when the key is stored at Cloudflare",
        "platform.deepseek.com, API keys",
        secret=True,
    ),
    Setting(
        "gateway_token",
        ("CF_AIG_TOKEN",),
        _key_rule,
        None,
        "Cloudflare API token, which gateways ask for unless that is switched off: with AI Gateway Run for the provider"
        " and compat routes, with Workers AI Read for rest",
        "Cloudflare dashboard, My Profile, API Tokens",
        secret=True,
    ),
    Setting(
        "route",
        ("DEEPSEEK_GATEWAY_ROUTE",),
        _route_rule,
        "provider",
        "provider, compat, rest, or direct for DeepSeek without the gateway",
        "your choice",
    ),
    Setting(
        "endpoint",
        ("DEEPSEEK_GATEWAY_ENDPOINT",),
        _endpoint_rule,
        None,
        "custom domain or local emulator, in place of Cloudflare's own host",
        "Cloudflare dashboard, AI, AI Gateway, Settings, Custom domains",
    ),
    Setting(
        "model",
        ("DEEPSEEK_MODEL",),
        _model_rule,
        None,
        "DeepSeek model that is used where a program names one of OpenAI's, such as gpt-4o",
        "your choice",
    ),
    Setting(
        "thinking",
        ("DEEPSEEK_THINKING",),
        _switch_rule,
        None,
        "on or off, for calls that do not say; DeepSeek's own default is on",
        "your choice",
    ),
    Setting(
        "adapt",
        ("DEEPSEEK_GATEWAY_ADAPT",),
        _switch_rule,
        True,  # noqa: FBT003  # a default, not an argument
        "on or off: whether requests are translated from OpenAI's dialect",
        "your choice",
    ),
    Setting(
        "fallback",
        ("DEEPSEEK_GATEWAY_FALLBACK",),
        _fallback_rule,
        None,
        "direct: with a key of your own, go to DeepSeek itself while the gateway is down",
        "your choice",
    ),
    Setting(
        "direct_endpoint",
        ("DEEPSEEK_DIRECT_ENDPOINT",),
        _url_rule,
        "https://api.deepseek.com",
        "where the route direct and the fallback lead",
        "DeepSeek's documentation",
    ),
)
"""The only place that spells the variables. Error texts and README's table are made from it."""

PLACEHOLDER = "key-stored-at-cloudflare"
"""The `api_key` of the SDK when no key is configured, because the SDK insists on one. It is never sent."""

VARIABLE = {setting.field: setting.variables[0] for setting in SETTINGS}

DEFAULT_MODEL = "deepseek-flash"

# A URL can hold a password or a key in its query, and a key can be pasted into the wrong setting. Keys are long words.
_MAY_HOLD_A_SECRET = re.compile(r"[@?#]|bearer|\bsk-|[\w-]{13,}", re.IGNORECASE)


class Problem(NamedTuple):
    """One thing that is wrong with the settings."""

    sentence: str
    missing: tuple[str, ...] = ()
    """The variables of which one is missing."""


def problems_in(values: Mapping[str, object], names: Mapping[str, str]) -> Iterator[Problem]:
    """Find what is wrong. `names` are what the caller used, where that is not the field itself. No secret is shown."""
    about = {setting.field: f"{setting.meaning} ({setting.source})" for setting in SETTINGS}
    route, account, key, token = (
        values["route"],
        *(VARIABLE[name] for name in ("account_id", "api_key", "gateway_token")),
    )
    if route == "direct":
        if values["api_key"] is None:
            yield Problem(f"{key} is not set or blank, and the direct route needs it", (key,))
    else:
        if values["account_id"] is None and values["endpoint"] is None:
            yield Problem(f"{account} is not set or blank: {about['account_id']}", (account,))
        if values["gateway_token"] is None and route == "rest":
            sentence = f"{token} is not set or blank, and the rest route needs it: {about['gateway_token']}"
            yield Problem(sentence, (token,))
        elif values["gateway_token"] is None and values["api_key"] is None:
            sentence = f"neither {key} nor {token} is set (blank is unset); give at least one:"
            lines = f"{sentence}\n      {key}: {about['api_key']}\n      {token}: {about['gateway_token']}"
            yield Problem(lines, (key, token))
    for setting in SETTINGS:
        value, used = values[setting.field], names.get(setting.field, setting.field)
        if value is None:
            continue
        if not setting.is_switch and not isinstance(value, str):
            yield Problem(f"{used} must be text, not {type(value).__name__}")
        elif broken := setting.rule(value):
            hidden = setting.secret or _MAY_HOLD_A_SECRET.search(str(value))
            yield Problem(f"{used} {broken}" if hidden else f"{used}={value!r} {broken}")


class OpenAIVariable(NamedTuple):
    """How a bare OpenAI client uses a variable, and the header lines that it makes of the value."""

    use: str
    header: str = ""


OPENAI_VARIABLES = {
    "OPENAI_API_KEY": OpenAIVariable("as the key, unless it is given one"),
    "OPENAI_ADMIN_KEY": OpenAIVariable("as the key of some calls", "Authorization: Bearer {}"),
    "OPENAI_ORG_ID": OpenAIVariable("as the header OpenAI-Organization", "OpenAI-Organization: {}"),
    "OPENAI_PROJECT_ID": OpenAIVariable("as the header OpenAI-Project", "OpenAI-Project: {}"),
    "OPENAI_CUSTOM_HEADERS": OpenAIVariable("as headers, one for each line", "{}"),
    "OPENAI_BASE_URL": OpenAIVariable("as the address of every request, unless it is given one"),
}
"""The variables that a bare OpenAI client reads, whatever its base URL is (measured, and read in the SDK's source)."""
