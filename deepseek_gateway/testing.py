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
    from ._config import GatewayConfig

REDACTED = "REDACTED"

_CREDENTIALS = {"authorization", "cf-aig-authorization"}
_PERSONAL = {*_CREDENTIALS, "cookie", "set-cookie", "cf-ray"}
# What the gateway reads of a request; the rest is the SDK telling of the machine it runs on.
_KEPT = re.compile(r"accept|content-type|authorization|cf-aig-.*", re.IGNORECASE)
_ADDRESSES = (
    (
        re.compile(r"https?://[^/]+/client/v4/accounts/[^/]+/ai/"),
        "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/ai/",
    ),
    (
        re.compile(r"https?://[^/]+(/v1/[^/]+/[^/]+)?/(?=(deepseek|compat)(/|$))"),
        "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/",
    ),
)
# DeepSeek's answer to a wrong key repeats the key's last four characters.
_KEY_TAIL = re.compile(r"\*{4}[^\s\"\\]{1,4}")
_STORED_HEADER = r"(?im)^\s*['\"]?({names})['\"]?:\s*+(?:-\s*+)?+(?!{redacted}\b)\S.*$"

_LEAKS = {
    "a credential, cookie or ray id in a header": re.compile(
        _STORED_HEADER.format(names="|".join(sorted(_PERSONAL)), redacted=REDACTED)
    ),
    "a bearer token": re.compile(rf"(?i)bearer\s+(?!{REDACTED}\b)[\w.~+/-]{{6,}}"),
    "a key": re.compile(r"\bsk-[\w-]{16,}"),
    "an account or gateway id in a URL": re.compile(
        r"/accounts/(?!ACCOUNT/)[\w-]+/|/v1/(?!ACCOUNT/GATEWAY/)[0-9a-f]{32}/"
    ),
    "the last characters of a key": re.compile(rf"\*{{4}}(?!{REDACTED})[^\s\"\\*]"),
}


def vcr_config(config: GatewayConfig | None = None, *, source: str | None = None) -> dict[str, Any]:
    """Give the options of vcrpy under which no secret of a configuration reaches a cassette.

    Redacted are both credential headers, cookies and `cf-ray`, the account and gateway in the URL, and the account id,
    gateway id, token and key of `config` wherever they appear, with the last four characters of a key that DeepSeek
    repeats in its 401.

    Args:
        config: The configuration that is recorded with; without one, only what has a known place is redacted.
        source: Where the answers come from, if it is not the live service; kept as header `x-recorded-from`.

    Returns:
        Options for `vcr.VCR()` or the `vcr_config` fixture of pytest-recording.
    """
    redact = _redaction(config)

    def before_record_request(request: Any) -> Any:
        request = copy.copy(request)
        for address, canonical in _ADDRESSES:
            request.uri = address.sub(canonical, request.uri, count=1)
        request.uri = redact(request.uri)
        request.headers = {
            name: REDACTED if name.lower() in _CREDENTIALS else redact(str(value))
            for name, value in request.headers.items()
            if _KEPT.fullmatch(name)
        }
        if request.body:
            request.body = redact(request.body.decode("utf-8", "replace")).encode()
        return request

    def before_record_response(response: dict[str, Any]) -> dict[str, Any]:
        response = copy.deepcopy(response)
        headers = {
            name: [REDACTED] if name.lower() in _PERSONAL else [redact(value) for value in values]
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
    found = [f"{what}, line {_line(text, match)}" for what, form in _LEAKS.items() for match in form.finditer(text)]
    for value, placeholder in _secrets(config):
        found += [f"the {placeholder}, line {_line(text, match)}" for match in re.finditer(re.escape(value), text)]
    return found


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start() + len(match.group()) - len(match.group().lstrip())) + 1


def _secrets(config: GatewayConfig | None) -> list[tuple[str, str]]:
    """Pair each value to hide with what stands in its place, longest first, in case one holds another."""
    if config is None:
        return []
    pairs = [
        (config.api_key, REDACTED),
        (config.gateway_token, REDACTED),
        (config.account_id, "ACCOUNT"),
        # "default" is everybody's gateway and an ordinary word.
        (None if config.gateway_id == "default" else config.gateway_id, "GATEWAY"),
    ]
    return sorted(((value, name) for value, name in pairs if value), key=lambda pair: -len(pair[0]))


def _redaction(config: GatewayConfig | None) -> Any:
    """Make the function that hides a configuration's values in a text."""
    secrets = _secrets(config)

    def redact(text: str) -> str:
        for value, placeholder in secrets:
            text = text.replace(value, placeholder)
        return _KEY_TAIL.sub(f"****{REDACTED}", text)

    return redact
