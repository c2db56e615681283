"""Cassettes without secrets: what vcrpy needs to record calls through the gateway, and a scan for what slipped through.

With pytest-recording (extra `testing`), a project's `conftest.py` needs no more than

    @pytest.fixture
    def vcr_config():
        return deepseek_gateway.testing.vcr_config(GatewayConfig.from_env())

Requests are stored, and matched, under one address whatever account, gateway, custom domain or emulator they went to,
so that a cassette that one person recorded plays for everybody.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway._config import GatewayConfig

REDACTED = "REDACTED"

_SENSITIVE = re.compile(r"(.*authorization|.*cookie|cf-ray|.*api-key|x-auth-.*|cf-access-.*)", re.IGNORECASE)
# What the gateway reads of a request; the rest is the SDK telling of the machine it runs on.
_KEPT = re.compile(r"accept|content-type|authorization|cf-aig-.*", re.IGNORECASE)
_REST = "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/ai/"
_GATEWAY = "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/"
_ADDRESSES = (
    (re.compile(r"https?://[^/]+/client/v4/accounts/[^/]+/ai/"), _REST),
    (re.compile(r"https?://[^/]+(/v1/[^/]+/[^/]+)?/(?=(deepseek|compat)(/|$))"), _GATEWAY),
)
# Names of gateways that are ordinary words, which to replace in a body would spoil it.
_ORDINARY = {"default", "deepseek", "compat", "gateway", "chat", "ai", "v1"}
# DeepSeek's answer to a wrong key repeats the key's last four characters.
_KEY_TAIL = re.compile(r"\*{4}[^\s\"\\]{1,4}")
_STORED_HEADER = r"(?im)^\s*['\"]?({names})['\"]?:\s*+(?:-\s*+)?+(?!{redacted}\b)\S.*$"

_LEAKS = {
    "a credential, cookie or ray id in a header": re.compile(
        _STORED_HEADER.format(names="authorization|cf-aig-authorization|cookie|set-cookie|cf-ray", redacted=REDACTED)
    ),
    "a bearer token": re.compile(rf"(?i)bearer\s+(?!{REDACTED}\b)[\w.~+/-]{{6,}}"),
    "a key": re.compile(r"\bsk-[\w-]{16,}"),
    "an account or gateway in a URL": re.compile(
        r"/accounts/(?!ACCOUNT/)[\w-]+/|/v1/(?!ACCOUNT/GATEWAY/)[\w.~-]+/[\w.~-]+/(?=deepseek|compat)"
    ),
    "the last characters of a key": re.compile(rf"\*{{4}}(?!{REDACTED})[^\s\"\\*]"),
}


def vcr_config(config: GatewayConfig | None = None, *, source: str | None = None) -> dict[str, Any]:
    """Give the options of vcrpy under which no secret of a configuration reaches a cassette.

    Redacted are credential headers, cookies and `cf-ray`, the account and gateway in the URL, and the account id,
    gateway id, token and key of `config` wherever they appear, with the last four characters of a key that DeepSeek
    repeats in its 401. Ids are replaced as whole words only, and a gateway's not in a body if it is an ordinary word
    such as `default`.

    Args:
        config: The configuration that is recorded with; without one, only what has a known place is redacted.
        source: Where the answers come from, if it is not the live service; kept as header `x-recorded-from`.

    Returns:
        Options for `vcr.VCR()` or the `vcr_config` fixture of pytest-recording.
    """
    redact = _redaction(config)

    def header(name: str, value: str) -> str:
        if name.lower() == "cf-aig-gateway-id":
            return "GATEWAY"
        return REDACTED if _SENSITIVE.fullmatch(name) else redact(value)

    def before_record_request(request: Any) -> Any:
        request = copy.copy(request)
        uri = request.uri
        for address, canonical in _ADDRESSES:
            uri = address.sub(canonical, uri, count=1)
        path, mark, query = uri.partition("?")
        request.uri = path + mark + redact(query)
        request.headers = {
            name: header(name, str(value)) for name, value in request.headers.items() if _KEPT.fullmatch(name)
        }
        if request.body:
            request.body = redact(request.body.decode("utf-8", "replace")).encode()
        return request

    def before_record_response(response: dict[str, Any]) -> dict[str, Any]:
        response = copy.deepcopy(response)
        headers = {
            name: [header(name, value) for value in values]
            for name, values in response["headers"].items()
            if name.lower() not in {"set-cookie", "content-length"}
        }
        if source:
            headers["x-recorded-from"] = [source]
        response["headers"] = headers
        response["body"]["string"] = redact(response["body"]["string"].decode("utf-8", "replace")).encode()
        return response

    return {
        "before_record_request": before_record_request,
        "before_record_response": before_record_response,
        "decode_compressed_response": True,
        "match_on": ["method", "uri", "body"],
    }


def leaks(text: str, config: GatewayConfig | None = None) -> list[str]:
    """Look for secrets in the text of a cassette.

    Args:
        text: What the file holds.
        config: Values that must not appear, besides everything that looks like a key, token or account.

    Returns:
        A description of each leak, without the secret itself; empty when there is none.
    """
    found = _found_in(text, config) + _found_in_structure(text, config)
    return list(dict.fromkeys(found))


def _found_in(text: str, config: GatewayConfig | None) -> list[str]:
    """Look at a text as it stands."""
    found = [f"{what}, line {_line(text, match)}" for what, form in _LEAKS.items() for match in form.finditer(text)]
    for form, placeholder in _secrets(config):
        what = "a secret of the configuration" if placeholder == REDACTED else f"the {placeholder.lower()}'s id"
        found += [f"{what}, line {_line(text, match)}" for match in form.finditer(text)]
    return found


def _found_in_structure(text: str, config: GatewayConfig | None) -> list[str]:
    """Look at what vcrpy makes of a cassette: every value of each header, the addresses, and bodies in plain."""
    import yaml  # noqa: PLC0415  # of the extra, and for this alone

    try:
        interactions = yaml.safe_load(text)["interactions"]
    except (yaml.YAMLError, LookupError, TypeError):
        return []
    found: list[str] = []
    for number, interaction in enumerate(interactions, 1):
        request, response = interaction["request"], interaction["response"]
        if not request["uri"].startswith((_REST, _GATEWAY)):
            found.append(f"an address that is not redacted, interaction {number}")
        for name, values in [*request["headers"].items(), *response["headers"].items()]:
            redacted = {"GATEWAY", "default"} if name.lower() == "cf-aig-gateway-id" else {REDACTED}
            sensitive = _SENSITIVE.fullmatch(name) or name.lower() == "cf-aig-gateway-id"
            if sensitive and not redacted.issuperset(values):  # vcrpy writes a list of values for each name
                found.append(f"a secret in the header {name}, interaction {number}")
        for body in (request.get("body"), response["body"].get("string")):
            plain = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
            found += [f"{leak.rpartition(', ')[0]}, interaction {number}" for leak in _found_in(plain, config)]
    return found


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start() + len(match.group()) - len(match.group().lstrip())) + 1


def _secrets(config: GatewayConfig | None) -> list[tuple[re.Pattern[str], str]]:
    """Pair the form of each value to hide with what stands in its place, longest first, in case one holds another."""
    if config is None:
        return []
    gateway_id = None if config.gateway_id in _ORDINARY else config.gateway_id
    pairs = [
        (config.api_key, REDACTED),
        (config.gateway_token, REDACTED),
        (config.account_id, "ACCOUNT"),
        (gateway_id, "GATEWAY"),
    ]
    found = sorted(((value, name) for value, name in pairs if value), key=lambda pair: -len(pair[0]))
    return [
        (re.compile(re.escape(value) if name == REDACTED else rf"(?<![\w-]){re.escape(value)}(?![\w-])"), name)
        for value, name in found
    ]


def _redaction(config: GatewayConfig | None) -> Callable[[str], str]:
    """Make the function that hides a configuration's values in a text."""
    secrets = _secrets(config)

    def redact(text: str) -> str:
        for form, placeholder in secrets:
            text = form.sub(placeholder, text)
        return _KEY_TAIL.sub(f"****{REDACTED}", text)

    return redact
