"""What a cassette may keep of a request and of its response."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway._config import GatewayConfig

REDACTED = "REDACTED"
REST = "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/ai/"
GATEWAY = "https://gateway.ai.cloudflare.com/v1/ACCOUNT/GATEWAY/"
DIRECT = "https://api.deepseek.com/"

_ADDRESSES = (
    (re.compile(r"https?://[^/]+/client/v4/accounts/[^/]+/ai/"), REST),
    (re.compile(r"https?://[^/]+(/v1/[^/]+/[^/]+)?/(?=(deepseek|compat)(/|$))"), GATEWAY),
)
_SENSITIVE = re.compile(r"(.*authorization|.*cookie|cf-ray|.*api-key|x-auth-.*|cf-access-.*)", re.IGNORECASE)
# The request headers that the gateway reads. The SDK's other headers describe the machine.
_KEPT = re.compile(r"accept|content-type|authorization|cf-aig-.*", re.IGNORECASE)
# Replacing a gateway's name in a body would corrupt the body if the name is an ordinary word.
_ORDINARY = {"default", "deepseek", "compat", "gateway", "chat", "ai", "v1"}
# In its 401, DeepSeek repeats the last four characters of the key.
_KEY_TAIL = re.compile(r"\*{4}[^\s\"\\]{1,4}")


def vcr_config(config: GatewayConfig | None = None, *, source: str | None = None) -> dict[str, Any]:
    """Return vcrpy options that keep the secrets of a configuration out of cassettes.

    They redact credential headers, cookies, `cf-ray`, and the account and gateway in the URL. They also redact the
    account id, gateway id, token and key of `config` wherever they appear, and the last four characters of a key that
    DeepSeek repeats in its 401. Ids are replaced only as whole words. A gateway id that is an ordinary word, such as
    `default`, is not replaced in bodies.

    Args:
        config: The configuration used for recording. Without it, only secrets in known places are redacted.
        source: Where the responses come from, if not from the live service. Stored as the header `x-recorded-from`.

    Returns:
        Options for `vcr.VCR()` or the `vcr_config` fixture of pytest-recording.
    """
    redact = _redactor(config)

    def header(name: str, value: str) -> str:
        if name.lower() == "cf-aig-gateway-id":
            return "GATEWAY"
        return REDACTED if is_sensitive(name) else redact(value)

    def before_record_request(request: Any) -> Any:
        request = copy.copy(request)
        uri = request.uri
        if config and uri.startswith(f"{config.direct_endpoint}/"):
            uri = DIRECT + uri.removeprefix(f"{config.direct_endpoint}/")
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


def is_sensitive(header: str) -> bool:
    """Whether the value of a header is a secret, whatever the configuration."""
    return bool(_SENSITIVE.fullmatch(header))


def secrets(config: GatewayConfig | None) -> list[tuple[re.Pattern[str], str]]:
    """Pair a pattern for each secret with its placeholder, the longest secret first because it may contain another."""
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


def _redactor(config: GatewayConfig | None) -> Callable[[str], str]:
    """Make the function that replaces the secrets of a configuration in a text."""
    patterns = secrets(config)

    def redact(text: str) -> str:
        for pattern, placeholder in patterns:
            text = pattern.sub(placeholder, text)
        return _KEY_TAIL.sub(f"****{REDACTED}", text)

    return redact
