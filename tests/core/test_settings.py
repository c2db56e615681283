"""The table of settings: every variable reaches its field, and a value that breaks a rule is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from calling import config_error

import deepseek_gateway
from deepseek_gateway import GatewayConfig
from deepseek_gateway._settings import SETTINGS

PACKAGE = Path(deepseek_gateway.__file__).parent
SECRET = "hunter2secret"


class TestVariables:
    """One table holds the names of the environment variables."""

    @pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.field)
    def test_every_variable_reaches_its_field(self, setting: Any) -> None:
        texts = {"route": "compat", "endpoint": "https://ai.example.com", "thinking": "off", "adapt": "Off"}
        texts |= {"fallback": "direct", "direct_endpoint": "https://deepseek.example.com/v1"}
        text = texts.get(setting.field, "some-value")
        for variable in setting.variables:
            environ = {"CF_AIG_TOKEN": "token", "CLOUDFLARE_ACCOUNT_ID": "acct", variable: text}
            value = getattr(GatewayConfig.from_env(environ), setting.field)
            assert value == (False if setting.is_switch else text)

    def test_variable_is_spelled_only_in_the_table(self) -> None:
        code = {path: path.read_text("utf-8") for path in PACKAGE.glob("*.py")}
        table = "".join(repr(setting.variables) for setting in SETTINGS)
        for setting in SETTINGS:
            for variable in setting.variables:
                assert variable in table
                spelled = [path.name for path, text in code.items() if re.search(rf"[\"'{{]{variable}\b", text)]
                assert spelled == ["_settings.py"], f"{variable} is spelled in {spelled}"


# The columns are: variable, value, and a part of the error.
MALFORMED: dict[str, tuple[str, str, str]] = {
    "key with a space": ("DEEPSEEK_API_KEY", f"{SECRET} {SECRET}", "white space"),
    "key with a line break": ("DEEPSEEK_API_KEY", f"{SECRET}\n{SECRET}", "line break"),
    "key with a null": ("DEEPSEEK_API_KEY", f"{SECRET}\x00", "control character"),
    "key with a delete": ("DEEPSEEK_API_KEY", f"{SECRET}\x7f", "control character"),
    "key with an accent": ("DEEPSEEK_API_KEY", f"{SECRET}é", "outside ASCII"),
    "key with a zero-width space": ("DEEPSEEK_API_KEY", f"{SECRET}\u200bx", "outside ASCII"),
    "key in quotation marks": ("DEEPSEEK_API_KEY", f'"{SECRET}"', "in quotation marks"),
    "key is a variable": ("DEEPSEEK_API_KEY", "$DEEPSEEK_API_KEY", "placeholder"),
    "key with Bearer": ("DEEPSEEK_TOKEN", f"Bearer {SECRET}", "begins with 'Bearer'"),
    "token in angle brackets": ("CF_AIG_TOKEN", "<your-token>", "placeholder"),
    "token with bearer": ("CF_AIG_TOKEN", f"bearer {SECRET}", "begins with 'Bearer'"),
    "token with a header": ("CF_AIG_TOKEN", f"{SECRET}\r\nX-Evil: 1", "line break"),
    "account in quotation marks": ("CLOUDFLARE_ACCOUNT_ID", "'acct'", 'holds "\'"'),
    "account with a slash": ("CLOUDFLARE_ACCOUNT_ID", "a/b", "holds '/'"),
    "account with a question mark": ("CLOUDFLARE_ACCOUNT_ID", "a?b", "holds '?'"),
    "account with a hash": ("CLOUDFLARE_ACCOUNT_ID", "a#b", "holds '#'"),
    "account with a percent": ("CLOUDFLARE_ACCOUNT_ID", "a%2fb", "holds '%'"),
    "account with a space": ("CLOUDFLARE_ACCOUNT_ID", "a b", "holds ' '"),
    "account with a line break": ("CLOUDFLARE_ACCOUNT_ID", "a\nb", "holds '\\n'"),
    "account with a backslash": ("CLOUDFLARE_ACCOUNT_ID", "a\\b", "holds '\\\\'"),
    "account with an umlaut": ("CLOUDFLARE_ACCOUNT_ID", "äcct", "holds 'ä'"),
    "account of two dots": ("CLOUDFLARE_ACCOUNT_ID", "..", "is no id"),
    "account in braces": ("CLOUDFLARE_ACCOUNT_ID", "{account_id}", "placeholder"),
    "account in angle brackets": ("CLOUDFLARE_ACCOUNT_ID", "<account>", "placeholder"),
    "account is a variable": ("CLOUDFLARE_ACCOUNT_ID", "$CLOUDFLARE_ACCOUNT_ID", "placeholder"),
    "account of an example": ("CLOUDFLARE_ACCOUNT_ID", "YOUR_ACCOUNT_ID", "placeholder"),
    "gateway in braces": ("CLOUDFLARE_AI_GATEWAY_ID", "{gateway_id}", "placeholder"),
    "gateway of an example": ("CLOUDFLARE_AI_GATEWAY_ID", "your-gateway-name", "placeholder"),
    "gateway is a URL": ("CLOUDFLARE_AI_GATEWAY_ID", "https://gateway.ai.cloudflare.com/v1/a/b", "is a URL"),
    "route is a key": ("DEEPSEEK_GATEWAY_ROUTE", SECRET, "is no route"),
    "thinking is a key": ("DEEPSEEK_THINKING", SECRET, "must be on or off"),
    "endpoint is a key": ("DEEPSEEK_GATEWAY_ENDPOINT", SECRET, "is not an http(s) URL"),
    "model holds a key": ("DEEPSEEK_MODEL", f"x {SECRET}", "contains white space"),
    "account holds a key": ("CLOUDFLARE_ACCOUNT_ID", f"x/{SECRET}", "holds '/'"),
    "model with a space": ("DEEPSEEK_MODEL", "deepseek flash", "DEEPSEEK_MODEL='deepseek flash' contains white space"),
    "thinking is a word": ("DEEPSEEK_THINKING", "maybe", "DEEPSEEK_THINKING='maybe' must be on or off"),
    "adapt is a number": ("DEEPSEEK_GATEWAY_ADAPT", "2", "DEEPSEEK_GATEWAY_ADAPT='2' must be on or off"),
    "account is a header": ("CLOUDFLARE_ACCOUNT_ID", f"Bearer {SECRET}", "holds ' '"),
    "route of another kind": ("DEEPSEEK_GATEWAY_ROUTE", "universal", "must be one of provider, compat, rest, direct"),
    "fallback to another route": ("DEEPSEEK_GATEWAY_FALLBACK", "compat", "must be direct, or not set"),
    "direct endpoint without TLS": ("DEEPSEEK_DIRECT_ENDPOINT", "http://api.deepseek.com", "use https"),
    "direct endpoint, no URL": ("DEEPSEEK_DIRECT_ENDPOINT", "api.deepseek.com", "is not an http(s) URL"),
    "endpoint without TLS": ("DEEPSEEK_GATEWAY_ENDPOINT", "http://ai.example.com", "use https"),
    "endpoint like loopback": ("DEEPSEEK_GATEWAY_ENDPOINT", "http://127.0.0.1.example.com", "use https"),
    "endpoint, bad host": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://-_.é*", "no valid host"),
    "endpoint, host outside ASCII": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://h\u00aax.example", "in ASCII"),
    "endpoint, octal host": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://0177.0.0.1", "no valid host"),
    "endpoint, hexadecimal host": ("DEEPSEEK_GATEWAY_ENDPOINT", "http://0x7f.1", "no valid host"),
    "endpoint, host of one number": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://2130706433", "no valid host"),
    "endpoint, dots": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com/a/../b", "path segment of dots"),
    "endpoint, escaped dots": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com/%2e%2E/", "path segment of dots"),
    "endpoint, password": (
        "DEEPSEEK_GATEWAY_ENDPOINT",
        f"https://user:{SECRET}@ai.example.com",
        "user name or password",
    ),
    "endpoint, query": ("DEEPSEEK_GATEWAY_ENDPOINT", f"https://ai.example.com?key={SECRET}", "query or fragment"),
    "endpoint, fragment": ("DEEPSEEK_GATEWAY_ENDPOINT", f"https://ai.example.com#{SECRET}", "query or fragment"),
    "endpoint, empty query": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com?", "query or fragment"),
    "endpoint, empty fragment": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com#", "query or fragment"),
    "endpoint, no scheme": ("DEEPSEEK_GATEWAY_ENDPOINT", "ai.example.com", "is not an http(s) URL"),
    "endpoint, WebSocket": ("DEEPSEEK_GATEWAY_ENDPOINT", "wss://ai.example.com", "is not an http(s) URL"),
    "endpoint, no host": ("DEEPSEEK_GATEWAY_ENDPOINT", "https:///deepseek", "is not an http(s) URL"),
    "endpoint, bad port": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com:port", "is not a valid URL"),
    "endpoint, space": ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.exa mple.com", "white space"),
    "endpoint, braces": (
        "DEEPSEEK_GATEWAY_ENDPOINT",
        "https://gateway.ai.cloudflare.com/v1/{account_id}/gw",
        "placeholder",
    ),
}
# The columns are: endpoint, and a part of the error.
NO_GATEWAYS = {
    "no path": ("https://gateway.ai.cloudflare.com", "set CLOUDFLARE_ACCOUNT_ID instead"),
    "v1": ("https://gateway.ai.cloudflare.com/v1", "set CLOUDFLARE_ACCOUNT_ID instead"),
    "no gateway": ("https://gateway.ai.cloudflare.com/v1/acct", "set CLOUDFLARE_ACCOUNT_ID instead"),
    "a segment too many": ("https://gateway.ai.cloudflare.com/v1/a/b/c", "is no gateway's address"),
    "API": ("https://api.cloudflare.com/client/v4", "is no gateway's address"),
}
MALFORMED |= {f"endpoint, {name}": ("DEEPSEEK_GATEWAY_ENDPOINT", *row) for name, row in NO_GATEWAYS.items()}


class TestRules:
    """A value that would break the URL, leak a secret or be dropped silently is refused."""

    @pytest.mark.parametrize(("variable", "value", "said"), MALFORMED.values(), ids=MALFORMED)
    def test_malformed_value_is_refused_with_its_variable_and_no_secret_is_shown(
        self, variable: str, value: str, said: str
    ) -> None:
        environ = {"CLOUDFLARE_ACCOUNT_ID": "acct", "CF_AIG_TOKEN": "token", variable: value}
        error = config_error(environ)
        assert f"- {variable}" in str(error)
        assert said in str(error)
        assert SECRET not in str(error)
        assert error.missing == ()

    @pytest.mark.parametrize(
        ("endpoint", "right"),
        [
            ("https://ai.example.com/deepseek", "https://ai.example.com"),
            ("https://ai.example.com/compat/", "https://ai.example.com"),
            ("https://ai.example.com/DeepSeek", "https://ai.example.com"),
            ("https://ai.example.com/compat/chat/completions", "https://ai.example.com"),
            ("https://ai.example.com/v1/chat/completions", "https://ai.example.com"),
            ("https://ai.example.com/deepseek/beta", "https://ai.example.com"),
            ("https://ai.example.com/v1", "https://ai.example.com"),
            (
                "https://api.cloudflare.com/client/v4/accounts/a/ai/v1",
                "https://api.cloudflare.com/client/v4/accounts/a/ai",
            ),
            (
                "https://api.cloudflare.com/client/v4/accounts/a/ai/run",
                "https://api.cloudflare.com/client/v4/accounts/a/ai",
            ),
            ("https://gateway.ai.cloudflare.com/v1/a/g/deepseek", "https://gateway.ai.cloudflare.com/v1/a/g"),
            (
                "https://gateway.ai.cloudflare.com/v1/a/deepseek/deepseek",
                "https://gateway.ai.cloudflare.com/v1/a/deepseek",
            ),
            ("http://localhost:8787/v1/a/g/compat", "http://localhost:8787/v1/a/g"),
        ],
    )
    def test_endpoint_with_a_route_appended_is_refused_with_the_right_value(self, endpoint: str, right: str) -> None:
        error = config_error({"DEEPSEEK_API_KEY": "key", "DEEPSEEK_GATEWAY_ENDPOINT": endpoint})
        assert f"use {right}\n" in f"{error}\n"
        assert GatewayConfig(endpoint=right, api_key="key").endpoint == right

    @pytest.mark.parametrize(
        "endpoint",
        [
            "http://127.0.0.1:1",
            "http://127.8.9.10",
            "http://[::1]:8787",
            "http://localhost",
            "http://gateway.localhost:80",
            "https://gateway.ai.cloudflare.com/v1/acct/deepseek",
            "https://gateway.ai.cloudflare.com/v1/acct/compat",
            "https://ai.example.com/team/ai",
        ],
    )
    def test_usable_endpoint_is_accepted_without_its_trailing_slashes(self, endpoint: str) -> None:
        assert GatewayConfig(endpoint=endpoint + "//", api_key="key").endpoint == endpoint

    @pytest.mark.parametrize("name", ["default", "my_gateway-2", "Old.Name~1", "a" * 64], ids=lambda name: name[:12])
    def test_id_that_fits_a_url_is_accepted(self, name: str) -> None:
        assert GatewayConfig(account_id="0" * 32, gateway_id=name, api_key="key").gateway_id == name
