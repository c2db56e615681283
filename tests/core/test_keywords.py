"""Settings as keywords of the factories, secrets in wrappers, and the HTTP clients for other libraries."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import KEY, ROUTE_PATH, TOKEN, chat
from pydantic import SecretStr

from deepseek_gateway import (
    ConfigError,
    GatewayConfig,
    create_async_client,
    create_async_http_client,
    create_client,
    create_http_client,
)
from deepseek_gateway._config import Settings
from deepseek_gateway._settings import SETTINGS

if TYPE_CHECKING:
    from calling import Call, ConfigAt
    from loopback import Loopback

FACTORIES = [create_client, create_async_client, create_http_client, create_async_http_client]
VALUES: dict[str, Any] = {
    "account_id": "acct",
    "gateway_id": "gw",
    "api_key": "the-key",
    "gateway_token": "the-token",
    "route": "compat",
    "endpoint": "https://ai.example.com",
    "model": "deepseek-v4-pro",
    "thinking": False,
    "adapt": False,
    "fallback": "direct",
    "direct_endpoint": "https://deepseek.example.com",
}


def config_of(client: Any) -> GatewayConfig:
    return getattr(client, "_client", client)._destination.config  # noqa: SLF001  # no public name leads there


class TestKeywords:
    """Every field of `GatewayConfig` is a keyword of every factory."""

    def test_keywords_are_the_fields_of_the_table(self) -> None:
        assert [setting.field for setting in SETTINGS] == list(Settings.__annotations__) == list(VALUES)

    @pytest.mark.parametrize("factory", FACTORIES)
    def test_keyword_reaches_the_configuration_of_the_client(self, factory: Any) -> None:
        client = factory(**VALUES)
        assert config_of(client) == GatewayConfig(**VALUES)

    @pytest.mark.parametrize("factory", FACTORIES)
    def test_keyword_beats_configuration_and_environment_and_none_leaves_them(
        self, factory: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_API_KEY", "environment-key")
        monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "environment-account")
        for config, account in ((None, "environment-account"), (GatewayConfig(**VALUES), "acct")):
            client = factory(config, api_key="keyword-key", account_id=None, adapt=None)
            merged = config_of(client)
            assert (merged.api_key, merged.account_id) == ("keyword-key", account)

    def test_key_alone_is_enough_where_the_environment_has_the_rest(
        self, call: Call, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DEEPSEEK_GATEWAY_ENDPOINT", gateway.url)
        call(None, chat, api_key=KEY)  # type: ignore[arg-type]
        assert gateway.last.header("authorization") == f"Bearer {KEY}"

    @pytest.mark.parametrize("factory", FACTORIES)
    @pytest.mark.parametrize("config", [None, GatewayConfig(**VALUES)], ids=["environment", "configuration"])
    def test_wrong_value_is_reported_with_the_argument_that_was_passed(self, factory: Any, config: Any) -> None:
        with pytest.raises(
            ConfigError, match=r"- route='providr' is no route; it must be one of provider, compat, rest"
        ):
            factory(config, **(VALUES | {"route": "providr"}))
        with pytest.raises(ConfigError, match="- thinking='maybe' must be on or off"):
            factory(config, **(VALUES | {"thinking": "maybe"}))
        with pytest.raises(ConfigError, match=r"- api_key begins with 'Bearer'; give the key alone"):
            factory(config, **(VALUES | {"api_key": "Bearer the-key"}))
        with pytest.raises(ConfigError, match="- model must be text, not int"):
            factory(config, **(VALUES | {"model": 5}))

    @pytest.mark.parametrize("factory", [create_http_client, create_async_http_client])
    def test_http_client_takes_no_option_of_the_sdk(self, factory: Any) -> None:
        with pytest.raises(TypeError, match=r"takes no timeout: the keywords are account_id, .*, direct_endpoint$"):
            factory(GatewayConfig(**VALUES), timeout=5)


class TestSecrets:
    """A key or token may come in any wrapper with `get_secret_value()`."""

    def test_wrapped_secret_is_taken_out_of_its_wrapper(self) -> None:
        config = GatewayConfig(account_id="acct", api_key=SecretStr(" the-key\n"), gateway_token=SecretStr("the-token"))
        assert (config.api_key, config.gateway_token) == ("the-key", "the-token")
        assert GatewayConfig.from_env({}, account_id="acct", api_key=SecretStr("the-key")).bearer == "the-key"

    def test_wrapped_secret_that_breaks_a_rule_is_not_shown(self) -> None:
        with pytest.raises(ConfigError) as caught:
            GatewayConfig(account_id="acct", api_key=SecretStr("hunter2 hunter2"))
        assert "api_key holds white space" in str(caught.value)
        assert "hunter2" not in str(caught.value)

    def test_blank_wrapped_secret_is_unset(self) -> None:
        assert GatewayConfig(account_id="acct", api_key=SecretStr(" "), gateway_token="t").api_key is None


class TestHttpClients:
    """A library that builds its own OpenAI client reaches the gateway through the HTTP clients alone."""

    @pytest.mark.parametrize("route", ROUTE_PATH)
    @pytest.mark.parametrize("stored", [False, True], ids=["own key", "stored key"])
    def test_client_of_another_library_sends_what_ours_sends(
        self, gateway: Loopback, config_at: ConfigAt, route: str, stored: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
            monkeypatch.setenv(name, "of-openai")
        config = config_at(gateway, route=route, **({"api_key": None} if stored else {}))

        async def main() -> None:
            theirs = openai.AsyncOpenAI(
                base_url=config.base_url, api_key=config.client_key, http_client=create_async_http_client(config)
            )
            async with theirs:
                await chat(theirs, max_completion_tokens=5)

        with openai.OpenAI(
            base_url=config.base_url, api_key=config.client_key, http_client=create_http_client(config)
        ) as theirs:
            chat(theirs, max_completion_tokens=5)
        asyncio.run(main())
        with create_client(config) as ours:
            chat(ours, max_completion_tokens=5)
        sync, asynchronous, expected = gateway.received
        for request in (sync, asynchronous):
            assert request.path == f"{ROUTE_PATH[route]}/chat/completions"
            assert request.json == expected.json
            assert "of-openai" not in str(request.headers)
            for name in ("authorization", "cf-aig-authorization", "cf-aig-gateway-id"):
                assert request.header(name) == expected.header(name)

    def test_client_key_is_the_bearer_or_a_placeholder(self) -> None:
        assert GatewayConfig(account_id="acct", api_key=KEY).client_key == KEY
        assert GatewayConfig(account_id="acct", gateway_token=TOKEN, route="rest").client_key == TOKEN
        assert GatewayConfig(account_id="acct", gateway_token=TOKEN).client_key == "key-stored-at-cloudflare"

    @pytest.mark.skipif(not hasattr(openai, "DefaultAioHttpClient"), reason="this openai has no aiohttp client")
    def test_transport_aiohttp_sends_through_aiohttp(self, gateway: Loopback, config_at: ConfigAt) -> None:
        config = config_at(gateway)

        async def main() -> None:
            client = create_async_http_client(config, transport="aiohttp")
            async with openai.AsyncOpenAI(base_url=config.base_url, api_key=KEY, http_client=client) as theirs:
                await chat(theirs)

        asyncio.run(main())
        assert gateway.last.header("authorization") == f"Bearer {KEY}"
