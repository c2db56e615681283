"""Which secrets did redaction miss?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ._redaction import DIRECT, GATEWAY, REDACTED, REST, is_sensitive, secrets

if TYPE_CHECKING:
    from deepseek_gateway._config import GatewayConfig

_STORED_HEADER = r"(?im)^\s*['\"]?({names})['\"]?:\s*+(?:-\s*+)?+(?!{redacted}\b)\S.*$"
_PATTERNS = {
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


def leaks(text: str, config: GatewayConfig | None = None) -> list[str]:
    """Look for secrets in the text of a cassette.

    Args:
        text: The content of the file.
        config: Values that must not appear, besides anything that looks like a key, token or account.

    Returns:
        A description of each leak, without the secret itself. The list is empty if there is none.
    """
    found = _in_text(text, config) + _in_interactions(text, config)
    return list(dict.fromkeys(found))


def _in_text(text: str, config: GatewayConfig | None) -> list[str]:
    """Search a text as it stands."""
    found = [f"{what}, line {_line(text, match)}" for what, form in _PATTERNS.items() for match in form.finditer(text)]
    for pattern, placeholder in secrets(config):
        what = "a secret of the configuration" if placeholder == REDACTED else f"the {placeholder.lower()}'s id"
        found += [f"{what}, line {_line(text, match)}" for match in pattern.finditer(text)]
    return found


def _in_interactions(text: str, config: GatewayConfig | None) -> list[str]:
    """Search the cassette as vcrpy reads it: the addresses, every value of each header, and the decoded bodies."""
    import yaml  # noqa: PLC0415  # from the extra `testing`, which `vcr_config` does not need

    try:
        interactions = yaml.safe_load(text)["interactions"]
    except (yaml.YAMLError, LookupError, TypeError):
        return []
    found: list[str] = []
    for number, interaction in enumerate(interactions, 1):
        request, response = interaction["request"], interaction["response"]
        if not request["uri"].startswith((REST, GATEWAY, DIRECT)):
            found.append(f"an address that is not redacted, interaction {number}")
        for name, values in [*request["headers"].items(), *response["headers"].items()]:
            is_gateway_id = name.lower() == "cf-aig-gateway-id"
            allowed = {"GATEWAY", "default"} if is_gateway_id else {REDACTED}
            if (is_gateway_id or is_sensitive(name)) and not allowed.issuperset(values):  # vcrpy writes lists of values
                found.append(f"a secret in the header {name}, interaction {number}")
        for body in (request.get("body"), response["body"].get("string")):
            plain = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
            found += [f"{leak.rpartition(', ')[0]}, interaction {number}" for leak in _in_text(plain, config)]
    return found


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start() + len(match.group()) - len(match.group().lstrip())) + 1
