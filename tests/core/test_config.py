"""Settings: where values come from, the configuration that they make, and the one error for all problems."""

from __future__ import annotations

import os
import pickle
import re
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import config_error

from deepseek_gateway import ConfigError, GatewayConfig
from deepseek_gateway._config import look_up

if TYPE_CHECKING:
    from pathlib import Path

ENOUGH = {"CLOUDFLARE_ACCOUNT_ID": "acct", "DEEPSEEK_API_KEY": "key"}
SECRET = "hunter2secret"


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
            id="rest",
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
def test_base_url_headers_and_bearer_follow_the_route(
    settings: dict[str, Any], base_url: str, headers: dict[str, str], bearer: str | None
) -> None:
    config = GatewayConfig(**settings)
    assert (config.base_url, config.headers, config.bearer) == (base_url, headers, bearer)


@pytest.mark.parametrize(
    ("in_argument", "in_environ", "in_file", "expected"),
    [
        pytest.param("argument", {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "argument", id="argument"),
        pytest.param(None, {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "environ", id="environment"),
        pytest.param("  ", {"DEEPSEEK_API_KEY": "environ"}, "DEEPSEEK_API_KEY=file", "environ", id="blank argument"),
        pytest.param(None, {"DEEPSEEK_API_KEY": " \t"}, "DEEPSEEK_API_KEY=file", "file", id="blank environment"),
        pytest.param(None, {}, "DEEPSEEK_API_KEY=file", "file", id="file"),
        pytest.param(None, {}, "DEEPSEEK_TOKEN=file", "file", id="file, second name"),
        pytest.param(None, {}, "DEEPSEEK_API_KEY=first\nDEEPSEEK_TOKEN=second", "first", id="file, both names"),
        pytest.param(
            None, {"DEEPSEEK_TOKEN": "second", "DEEPSEEK_API_KEY": "first"}, "", "first", id="environment, both names"
        ),
        pytest.param(
            None, {"DEEPSEEK_TOKEN": "environ"}, "DEEPSEEK_API_KEY=file", "environ", id="environment, second name"
        ),
    ],
)
def test_argument_beats_environment_and_environment_beats_file(
    tmp_path: Path, in_argument: str | None, in_environ: dict[str, str], in_file: str, expected: str
) -> None:
    env_file = tmp_path / "settings.env"
    env_file.write_text(in_file + "\nCLOUDFLARE_ACCOUNT_ID=acct\n", "utf-8")
    assert GatewayConfig.from_env(in_environ, env_file=env_file, api_key=in_argument).api_key == expected


@pytest.mark.parametrize("form", ["key", "  key \n", "\tkey"], ids=["none", "spaces and line break", "tab"])
def test_outer_white_space_is_stripped_and_a_blank_value_is_unset(form: str) -> None:
    assert GatewayConfig(account_id=f" {form}", api_key=form, gateway_id=" ", route=" compat ") == GatewayConfig(  # type: ignore[arg-type]
        account_id="key", api_key="key", route="compat"
    )


def test_route_is_case_insensitive() -> None:
    assert GatewayConfig.from_env({**ENOUGH, "DEEPSEEK_GATEWAY_ROUTE": "Compat"}).route == "compat"


class TestEnvFile:
    """`.env` is searched for in the working directory and its parents. An unreadable file is an error."""

    def test_nearest_file_in_the_working_directory_or_its_parents_is_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=far\nDEEPSEEK_API_KEY=far", "utf-8")
        near = tmp_path / "project"
        below = near / "src" / "app"
        below.mkdir(parents=True)
        (near / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=near\nDEEPSEEK_API_KEY=near", "utf-8")
        monkeypatch.chdir(below)
        assert GatewayConfig.from_env().account_id == "near"

    def test_reading_the_file_changes_neither_the_environment_nor_the_file(self, tmp_path: Path) -> None:
        env_file = tmp_path / ".env"
        env_file.write_text("CLOUDFLARE_ACCOUNT_ID=acct\nDEEPSEEK_API_KEY=key\nOTHER=x", "utf-8")
        before = dict(os.environ), env_file.read_bytes()
        GatewayConfig.from_env()
        assert (dict(os.environ), env_file.read_bytes()) == before

    def test_no_file_is_read_with_a_mapping_or_with_env_file_none(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID=acct\nDEEPSEEK_API_KEY=key", "utf-8")
        assert config_error({}).missing
        with pytest.raises(ConfigError):
            GatewayConfig.from_env(env_file=None)

    def test_byte_order_mark_quotes_comments_and_export_are_understood(self, tmp_path: Path) -> None:
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
        ids=["missing", "UTF-16", "directory"],
    )
    def test_named_file_that_cannot_be_read_raises_an_error_with_the_reason(
        self, tmp_path: Path, content: Any, said: str
    ) -> None:
        path = tmp_path / "named.env"
        if content == "directory":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
        error = config_error(ENOUGH, env_file=path)
        assert f"the file {str(path)!r} {said}" in str(error)
        assert "env_file=None" in str(error)
        assert error.missing == ()

    def test_null_character_in_the_path_of_the_file_raises_an_error_with_the_reason(self) -> None:
        error = config_error(ENOUGH, env_file="\0")
        assert "the file '\\x00' cannot be read (embedded null byte)" in str(error)


class TestErrors:
    """Every problem with the settings is reported in one `ConfigError`."""

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
        ids=[
            "nothing set",
            "blank account",
            "no credential",
            "endpoint, no credential",
            "rest, key only",
            "rest, no token",
        ],
    )
    def test_every_missing_setting_is_named_in_one_error(
        self, environ: dict[str, str], missing: tuple[str, ...]
    ) -> None:
        error = config_error(environ)
        assert error.missing == missing
        assert all(name in str(error) for name in missing)
        assert "\nSet it in the environment or in a .env file, or pass it as an argument.\nLooked in " in str(error)
        assert isinstance(error, openai.OpenAIError)
        assert pickle.loads(pickle.dumps(error)).missing == missing

    def test_missing_and_malformed_settings_are_reported_in_one_error(self) -> None:
        error = config_error({"CF_AIG_TOKEN": "two words", "DEEPSEEK_GATEWAY_ROUTE": "x"}, env_file="no-such.env")
        lines = [line for line in str(error).splitlines() if line.startswith("  - ")]
        assert [re.search(r"CLOUDFLARE_ACCOUNT_ID|CF_AIG_TOKEN|ROUTE|no-such", line)[0] for line in lines] == [  # type: ignore[index]
            "no-such",
            "CLOUDFLARE_ACCOUNT_ID",
            "CF_AIG_TOKEN",
            "ROUTE",
        ]
        assert error.missing == ("CLOUDFLARE_ACCOUNT_ID",)

    def test_error_names_the_env_file_that_was_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"Looked in the environment; no \.env file was read\."):
            GatewayConfig.from_env()
        (tmp_path / ".env").write_text("CLOUDFLARE_ACCOUNT_ID: a\n", "utf-8")
        with pytest.raises(ConfigError, match=re.escape(f"Looked in the environment and {tmp_path / '.env'}.")):
            GatewayConfig.from_env()

    def test_error_about_malformed_settings_does_not_say_where_to_set_them(self) -> None:
        error = config_error({**ENOUGH, "DEEPSEEK_THINKING": "x"})
        assert str(error).splitlines() == [
            "deepseek_gateway cannot be configured:",
            "  - DEEPSEEK_THINKING='x' must be on or off",
            "Looked in the environment; no .env file was read.",
        ]

    def test_key_that_is_not_text_is_refused_and_not_shown(self) -> None:
        with pytest.raises(ConfigError, match="must be text, not bytes") as caught:
            GatewayConfig(account_id="acct", api_key=SECRET.encode())  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)

    def test_overrides_that_are_no_fields_are_named_in_order(self) -> None:
        with pytest.raises(TypeError, match="has no field a, b; its fields are"):
            GatewayConfig.from_env(ENOUGH, b=1, a=1)

    def test_override_that_is_not_a_field_is_refused(self) -> None:
        with pytest.raises(TypeError, match="has no field base_url; its fields are account_id, gateway_id"):
            GatewayConfig.from_env(ENOUGH, base_url="https://ai.example.com")


def test_origin_of_every_value_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("DEEPSEEK_MODEL=deepseek-flash\nCLOUDFLARE_ACCOUNT_ID=other", "utf-8")
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "acct")
    found = look_up(api_key="key")
    assert found.origins == {
        "account_id": ("environment", "CLOUDFLARE_ACCOUNT_ID"),
        "api_key": ("argument", "api_key"),
        "model": (str(tmp_path / ".env"), "DEEPSEEK_MODEL"),
    }


def test_configuration_is_frozen_hashable_and_picklable_and_its_repr_holds_no_secret() -> None:
    config = GatewayConfig(account_id="acct", api_key=SECRET, gateway_token=SECRET + "2")
    assert repr(config).startswith(
        "GatewayConfig(account_id='acct', gateway_id='default', route='provider', endpoint=None"
    )
    assert "api_key" not in repr(config)
    assert "gateway_token" not in repr(config)
    assert str(config) == f"{config}" == repr(config)
    assert pickle.loads(pickle.dumps(config)) == config
    assert len({config, GatewayConfig(account_id="acct", api_key=SECRET, gateway_token=SECRET + "2")}) == 1
    with pytest.raises(AttributeError):
        config.api_key = "other"  # type: ignore[misc]
