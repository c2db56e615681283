"""Settings in, configuration or one clear error out."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import openai
import pytest

import deepseek_gateway
from deepseek_gateway import ConfigError, GatewayConfig
from deepseek_gateway._settings import SETTINGS

ENOUGH = {"CLOUDFLARE_ACCOUNT_ID": "acct", "DEEPSEEK_API_KEY": "key"}
PACKAGE = Path(deepseek_gateway.__file__).parent


def problems(environ: dict[str, str], **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        GatewayConfig.from_env(environ, **options)
    return caught.value


@pytest.mark.parametrize(
    ("settings", "base_url", "headers", "bearer"),
    [
        pytest.param(
            {"account_id": "acct", "api_key": "key"},
            "https://gateway.ai.cloudflare.com/v1/acct/default/deepseek",
            {},
            "key",
            id="own key, open gateway",
        ),
        pytest.param(
            {"account_id": "acct", "gateway_id": "gw", "api_key": "key", "gateway_token": "token"},
            "https://gateway.ai.cloudflare.com/v1/acct/gw/deepseek",
            {"cf-aig-authorization": "Bearer token"},
            "key",
            id="own key, authenticated gateway",
        ),
        pytest.param(
            {"account_id": "acct", "gateway_id": "gw", "gateway_token": "token", "route": "compat"},
            "https://gateway.ai.cloudflare.com/v1/acct/gw/compat",
            {"cf-aig-authorization": "Bearer token"},
            None,
            id="stored key, compat",
        ),
        pytest.param(
            {"account_id": "acct", "gateway_id": "gw", "api_key": "key", "gateway_token": "token", "route": "rest"},
            "https://api.cloudflare.com/client/v4/accounts/acct/ai/v1",
            {"cf-aig-gateway-id": "gw"},
            "token",
            id="rest, where the token is the key",
        ),
        pytest.param(
            {"endpoint": "https://ai.example.com", "gateway_token": "token"},
            "https://ai.example.com/deepseek",
            {"cf-aig-authorization": "Bearer token"},
            None,
            id="custom domain, no account id",
        ),
        pytest.param(
            {"endpoint": "http://127.0.0.1:8787/", "gateway_token": "token", "route": "rest"},
            "http://127.0.0.1:8787/v1",
            {"cf-aig-gateway-id": "default"},
            "token",
            id="loopback endpoint with a trailing slash",
        ),
    ],
)
def test_a_configuration_gives_the_values_of_its_route(
    settings: dict[str, Any], base_url: str, headers: dict[str, str], bearer: str | None
) -> None:
    config = GatewayConfig(**settings)
    assert (config.base_url, config.headers, config.bearer) == (base_url, headers, bearer)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.field)
def test_every_variable_reaches_its_field(setting: Any) -> None:
    value = {"route": "compat", "endpoint": "https://ai.example.com"}.get(setting.field, "some-value")
    for variable in setting.variables:
        environ = {"CF_AIG_TOKEN": "token", "CLOUDFLARE_ACCOUNT_ID": "acct", variable: value}
        assert getattr(GatewayConfig.from_env(environ), setting.field) == value


def test_variables_are_spelled_in_the_table_only() -> None:
    code = {path: path.read_text("utf-8") for path in PACKAGE.glob("*.py")}
    table = "".join(repr(setting.variables) for setting in SETTINGS)
    for setting in SETTINGS:
        for variable in setting.variables:
            assert variable in table
            spelled = [path.name for path, text in code.items() if re.search(rf"[\"'{{]{variable}\b", text)]
            assert spelled == ["_settings.py"], f"{variable} is spelled in {spelled}"


@pytest.mark.parametrize(
    ("in_argument", "in_environ", "in_file", "expected"),
    [
        ("argument", {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "argument"),
        (None, {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "environ"),
        ("  ", {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "environ"),
        (None, {"DEEPSEEK_API_KEY": " \t"}, "DEEPSEEK_API_KEY=file", "file"),
        (None, {}, "DEEPSEEK_API_KEY=file", "file"),
        (None, {}, "DEEPSEEK_TOKEN=file", "file"),
        (None, {}, "DEEPSEEK_API_KEY=first\nDEEPSEEK_TOKEN=second", "first"),
        (None, {"DEEPSEEK_TOKEN": "second", "DEEPSEEK_API_KEY": "first"}, "", "first"),
        (None, {"DEEPSEEK_TOKEN": "environ"}, "DEEPSEEK_API_KEY=file", "environ"),
    ],
)
def test_argument_beats_environment_beats_file(
    tmp_path: Path, in_argument: str | None, in_environ: dict[str, str], in_file: str, expected: str
) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(in_file + "\nCLOUDFLARE_ACCOUNT_ID=acct\n", "utf-8")
    assert GatewayConfig.from_env(in_environ, env_file=env_file, api_key=in_argument).api_key == expected


def test_the_case_of_a_route_does_not_matter() -> None:
    assert GatewayConfig.from_env({**ENOUGH, "DEEPSEEK_GATEWAY_ROUTE": "Compat"}).route == "compat"


def test_an_error_says_which_file_was_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Looked in the environment; no \.env file was read\."):
        GatewayConfig.from_env()
    (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID: a\n", "utf-8")
    with pytest.raises(ConfigError, match=re.escape(f"Looked in the environment and {tmp_path / '.env'}.")):
        GatewayConfig.from_env()


@pytest.mark.parametrize("form", ["key", "  key \n", "\tkey"])
def test_outer_white_space_is_dropped(form: str) -> None:
    assert GatewayConfig(account_id=f" {form}", api_key=form, gateway_id=" ", route=" compat ") == GatewayConfig(  # type: ignore[arg-type]
        account_id="key", api_key="key", route="compat"
    )


class TestEnvFile:
    """Where `.env` is looked for, and what may be wrong with it."""

    def test_the_nearest_one_upwards_from_the_working_directory_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=far\nDEEPSEEK_API_KEY=far", "utf-8")
        near = tmp_path / "project"
        below = near / "src" / "app"
        below.mkdir(parents=True)
        (near / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=near\nDEEPSEEK_API_KEY=near", "utf-8")
        monkeypatch.chdir(below)
        assert GatewayConfig.from_env().account_id == "near"

    def test_reading_changes_neither_the_environment_nor_the_file(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("CLOUDFLARE_ACCOUNT_ID=acct\nDEEPSEEK_API_KEY=key\nOTHER=x", "utf-8")
        before = dict(os.environ), env_file.read_bytes()
        GatewayConfig.from_env()
        assert (dict(os.environ), env_file.read_bytes()) == before

    def test_a_mapping_or_none_keeps_it_from_being_looked_for(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=acct\nDEEPSEEK_API_KEY=key", "utf-8")
        assert problems({}).missing
        with pytest.raises(ConfigError):
            GatewayConfig.from_env(env_file=None)

    def test_a_byte_order_mark_quotes_and_export_are_understood(self, tmp_path: Path) -> None:
        text = "\ufeffexport CLOUDFLARE_ACCOUNT_ID='acct'\r\nDEEPSEEK_API_KEY=\"key\"  # mine\r\n"
        (tmp_path / ".env").write_text(text, "utf-8")
        assert GatewayConfig.from_env() == GatewayConfig(account_id="acct", api_key="key")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "cannot be read (No such file or directory)"),
            ("CLOUDFLARE_ACCOUNT_ID=acct".encode("utf-16"), "cannot be read (it is not UTF-8 text)"),
            ("directory", "cannot be read"),
        ],
    )
    def test_a_named_file_that_cannot_be_read_is_an_error(self, tmp_path: Path, content: Any, said: str) -> None:
        path = tmp_path / "named.env"
        if content == "directory":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        error = problems(ENOUGH, env_file=path)
        assert f"the file {path} {said}" in str(error)
        assert "env_file=None" in str(error)
        assert error.missing == ()


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, ("CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN")),
        ({"CLOUDFLARE_ACCOUNT_ID": "  ", "DEEPSEEK_API_KEY": "key"}, ("CLOUDFLARE_ACCOUNT_ID",)),
        ({"CLOUDFLARE_ACCOUNT_ID": "acct"}, ("DEEPSEEK_API_KEY", "CF_AIG_TOKEN")),
        ({"DEEPSEEK_GATEWAY_ENDPOINT": "https://ai.example.com"}, ("DEEPSEEK_API_KEY", "CF_AIG_TOKEN")),
        ({"DEEPSEEK_GATEWAY_ROUTE": "rest", "DEEPSEEK_API_KEY": "key"}, ("CLOUDFLARE_ACCOUNT_ID", "CF_AIG_TOKEN")),
        ({"DEEPSEEK_GATEWAY_ROUTE": "rest", **ENOUGH}, ("CF_AIG_TOKEN",)),
    ],
)
def test_all_that_is_missing_is_named_at_once(environ: dict[str, str], missing: tuple[str, ...]) -> None:
    error = problems(environ)
    assert error.missing == missing
    assert all(name in str(error) for name in missing)
    assert isinstance(error, openai.OpenAIError)
    assert pickle.loads(pickle.dumps(error)).missing == missing


SECRET = "hunter2secret"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DEEPSEEK_API_KEY", f"{SECRET} {SECRET}", "white space"),
        ("DEEPSEEK_API_KEY", f"{SECRET}\n{SECRET}", "line break"),
        ("DEEPSEEK_API_KEY", f"{SECRET}\x00", "control character"),
        ("DEEPSEEK_API_KEY", f"{SECRET}\x7f", "control character"),
        ("DEEPSEEK_API_KEY", f"{SECRET}é", "outside ASCII"),
        ("DEEPSEEK_API_KEY", f"{SECRET}\u200bx", "outside ASCII"),
        ("DEEPSEEK_API_KEY", f'"{SECRET}"', "in quotation marks"),
        ("DEEPSEEK_API_KEY", "$DEEPSEEK_API_KEY", "placeholder"),
        ("CF_AIG_TOKEN", "<your token>".replace(" ", "-"), "placeholder"),
        ("DEEPSEEK_GATEWAY_ROUTE", SECRET, "is no route"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://-_.é*", "no valid host"),
        ("CLOUDFLARE_ACCOUNT_ID", "'acct'", 'holds "\'"'),
        ("DEEPSEEK_TOKEN", f"Bearer {SECRET}", "begins with 'Bearer'"),
        ("CF_AIG_TOKEN", f"bearer {SECRET}", "begins with 'Bearer'"),
        ("CF_AIG_TOKEN", f"{SECRET}\r\nX-Evil: 1", "line break"),
        ("CLOUDFLARE_ACCOUNT_ID", "a/b", "holds '/'"),
        ("CLOUDFLARE_ACCOUNT_ID", "a?b", "holds '?'"),
        ("CLOUDFLARE_ACCOUNT_ID", "a#b", "holds '#'"),
        ("CLOUDFLARE_ACCOUNT_ID", "a%2fb", "holds '%'"),
        ("CLOUDFLARE_ACCOUNT_ID", "a b", "holds ' '"),
        ("CLOUDFLARE_ACCOUNT_ID", "a\nb", "holds '\\n'"),
        ("CLOUDFLARE_ACCOUNT_ID", "a\\b", "holds '\\\\'"),
        ("CLOUDFLARE_ACCOUNT_ID", "äcct", "holds 'ä'"),
        ("CLOUDFLARE_ACCOUNT_ID", "..", "is no id"),
        ("CLOUDFLARE_ACCOUNT_ID", "{account_id}", "placeholder"),
        ("CLOUDFLARE_ACCOUNT_ID", "<account>", "placeholder"),
        ("CLOUDFLARE_ACCOUNT_ID", "$CLOUDFLARE_ACCOUNT_ID", "placeholder"),
        ("CLOUDFLARE_ACCOUNT_ID", "YOUR_ACCOUNT_ID", "placeholder"),
        ("CLOUDFLARE_AI_GATEWAY_ID", "{gateway_id}", "placeholder"),
        ("CLOUDFLARE_AI_GATEWAY_ID", "your-gateway-name", "placeholder"),
        ("CLOUDFLARE_AI_GATEWAY_ID", "https://gateway.ai.cloudflare.com/v1/a/b", "is a URL"),
        ("DEEPSEEK_GATEWAY_ROUTE", "universal", "must be one of provider, compat, rest"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "http://ai.example.com", "use https"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "http://127.0.0.1.example.com", "use https"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", f"https://user:{SECRET}@ai.example.com", "user name or password"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", f"https://ai.example.com?key={SECRET}", "query or fragment"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", f"https://ai.example.com#{SECRET}", "query or fragment"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com?", "query or fragment"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://gateway.ai.cloudflare.com", "set CLOUDFLARE_ACCOUNT_ID instead"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://gateway.ai.cloudflare.com/v1", "set CLOUDFLARE_ACCOUNT_ID instead"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://gateway.ai.cloudflare.com/v1/acct", "set CLOUDFLARE_ACCOUNT_ID instead"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://gateway.ai.cloudflare.com/v1/a/b/c", "is no gateway's address"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://api.cloudflare.com/client/v4", "is no gateway's address"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "ai.example.com", "is not an http(s) URL"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "wss://ai.example.com", "is not an http(s) URL"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https:///deepseek", "is not an http(s) URL"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.example.com:port", "is not a valid URL"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://ai.exa mple.com", "white space"),
        ("DEEPSEEK_GATEWAY_ENDPOINT", "https://gateway.ai.cloudflare.com/v1/{account_id}/gw", "placeholder"),
    ],
)
def test_a_malformed_value_is_refused_by_name_and_never_shown(variable: str, value: str, said: str) -> None:
    environ = {"CLOUDFLARE_ACCOUNT_ID": "acct", "CF_AIG_TOKEN": "token", variable: value}
    error = problems(environ)
    assert f"- {variable} " in str(error)
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
        ("https://api.cloudflare.com/client/v4/accounts/a/ai/v1", "https://api.cloudflare.com/client/v4/accounts/a/ai"),
        (
            "https://api.cloudflare.com/client/v4/accounts/a/ai/run",
            "https://api.cloudflare.com/client/v4/accounts/a/ai",
        ),
        ("https://gateway.ai.cloudflare.com/v1/a/g/deepseek", "https://gateway.ai.cloudflare.com/v1/a/g"),
        ("https://gateway.ai.cloudflare.com/v1/a/deepseek/deepseek", "https://gateway.ai.cloudflare.com/v1/a/deepseek"),
        ("http://localhost:8787/v1/a/g/compat", "http://localhost:8787/v1/a/g"),
    ],
)
def test_an_endpoint_with_the_route_appended_is_answered_with_the_right_value(endpoint: str, right: str) -> None:
    error = problems({**ENOUGH, "DEEPSEEK_GATEWAY_ENDPOINT": endpoint})
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
def test_endpoints_that_work_are_taken(endpoint: str) -> None:
    assert GatewayConfig(endpoint=endpoint + "//", api_key="key").endpoint == endpoint


def test_ids_that_cloudflare_may_have_given_are_taken() -> None:
    for name in ("default", "my_gateway-2", "Old.Name~1", "a" * 64):
        assert GatewayConfig(account_id="0" * 32, gateway_id=name, api_key="key").gateway_id == name


def test_missing_and_malformed_come_in_one_error() -> None:
    error = problems({"CF_AIG_TOKEN": "two words", "DEEPSEEK_GATEWAY_ROUTE": "x"}, env_file="no-such.env")
    lines = [line for line in str(error).splitlines() if line.startswith("  - ")]
    assert [re.search(r"CLOUDFLARE_ACCOUNT_ID|CF_AIG_TOKEN|ROUTE|no-such", line)[0] for line in lines] == [  # type: ignore[index]
        "CLOUDFLARE_ACCOUNT_ID",
        "no-such",
        "CF_AIG_TOKEN",
        "ROUTE",
    ]
    assert error.missing == ("CLOUDFLARE_ACCOUNT_ID",)


def test_a_value_that_is_no_text_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="must be text, not bytes") as caught:
        GatewayConfig(account_id="acct", api_key=SECRET.encode())  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_an_override_that_is_no_field_is_refused() -> None:
    with pytest.raises(TypeError, match="has no field base_url; its fields are account_id, gateway_id"):
        GatewayConfig.from_env(ENOUGH, base_url="https://ai.example.com")


def test_a_configuration_is_a_value_without_secrets_in_its_repr() -> None:
    config = GatewayConfig(account_id="acct", api_key=SECRET, gateway_token=SECRET + "2")
    assert repr(config) == "GatewayConfig(account_id='acct', gateway_id='default', route='provider', endpoint=None)"
    assert str(config) == f"{config}" == repr(config)
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, GatewayConfig(account_id="acct", api_key=SECRET, gateway_token=SECRET + "2")}) == 1
    with pytest.raises(AttributeError):
        config.api_key = "other"  # type: ignore[misc]
