"""The factories: stock clients, the options that they take, and the sockets that they free."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pydantic
import pytest
from calling import KEY, MESSAGES, ROUTE_PATH, TOKEN, chat
from loopback import COMPLETION, Answer, Loopback, Received

from deepseek_gateway import ConfigError, GatewayConfig, create_async_client, create_client
from deepseek_gateway._http import aiohttp_client_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from calling import Call, ConfigAt


class TestSettings:
    """Without a configuration, a factory reads the environment and `.env`. With a configuration, it reads neither."""

    def test_environment_and_nearest_env_file_are_read_without_a_configuration(
        self, call: Call, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path(".env").write_text(f"DEEPSEEK_GATEWAY_ENDPOINT={gateway.url}\nDEEPSEEK_API_KEY=file-key\n", "utf-8")
        monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
        call(None, lambda client: client.models.list(), route="compat")  # type: ignore[arg-type]
        assert gateway.last.path == "/compat/models"
        assert gateway.last.header("authorization") == f"Bearer {KEY}"

    def test_environment_and_env_file_are_not_read_with_a_configuration(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path(".env").write_bytes(b"\xff\xfe not utf-8")
        monkeypatch.setenv("DEEPSEEK_API_KEY", "not this one")
        call(config_at(gateway), chat)
        assert gateway.last.header("authorization") == f"Bearer {KEY}"

    def test_missing_settings_are_named_by_their_variables(self) -> None:
        for factory in (create_client, create_async_client):
            with pytest.raises(ConfigError) as caught:
                factory()
            assert caught.value.missing == ("CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN")

    def test_route_argument_replaces_the_configured_route(self) -> None:
        config = GatewayConfig(account_id="acct", api_key="key", gateway_token="token")
        assert str(create_client(config, route="rest").base_url).startswith("https://api.cloudflare.com/")
        assert create_client(config, route="rest").api_key == "token"
        with pytest.raises(ConfigError, match="CF_AIG_TOKEN"):
            create_client(GatewayConfig(account_id="acct", api_key="key"), route="rest")


class TestStockClients:
    """`type()` of a client is the SDK's class, and every use of a bare client works."""

    @pytest.mark.parametrize(
        "copy",
        [lambda c: c, lambda c: c.with_options(timeout=1), lambda c: c.copy()],
        ids=["client", "with_options", "copy"],
    )
    def test_type_of_a_client_and_its_copies_is_the_sdks_class(self, copy: Callable[[Any], Any]) -> None:
        config = GatewayConfig(account_id="acct", api_key="key")
        assert type(copy(create_client(config))) is openai.OpenAI
        assert type(copy(create_async_client(config))) is openai.AsyncOpenAI

    def test_attributes_of_a_client_come_from_the_configuration_and_the_options(self) -> None:
        config = GatewayConfig(account_id="acct", api_key="key", gateway_token="token")
        client = create_client(
            config, timeout=7, max_retries=5, default_headers={"X-Mine": "1"}, default_query={"q": 1}
        )
        assert str(client.base_url) == config.base_url + "/"
        assert (client.api_key, client.timeout, client.max_retries) == ("key", 7, 5)
        assert client.default_headers["X-Mine"] == "1"
        assert client.default_query == {"q": 1}
        bare = openai.OpenAI(api_key="key", base_url=config.base_url)
        assert (create_client(config).timeout, create_client(config).max_retries) == (bare.timeout, bare.max_retries)

    def test_results_chunks_raw_responses_balance_and_models_can_be_read(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway, route="compat")
        assert call(config, chat).choices[0].message.content == "Hello."
        assert call(config, chat).model_dump(exclude_unset=True) == COMPLETION
        chunks = call(config, lambda client: chat(client, stream=True))
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["Hel", "lo."]
        raw = call(config, lambda client: chat(client.with_raw_response))
        assert raw.parse().choices[0].message.content == "Hello."
        assert raw.headers["content-type"] == "application/json"
        balance = {"is_available": True, "balance_infos": []}
        gateway.answer = lambda _: Answer(balance)
        assert call(config, lambda client: client.get("/user/balance", cast_to=object)) == balance
        assert gateway.last.path.endswith("/compat/user/balance")
        gateway.answer = lambda _: Answer({"object": "list", "data": [{"id": "deepseek-flash", "object": "model"}]})
        assert [model.id for model in call(config, lambda client: client.models.list()).data] == ["deepseek-flash"]

    def test_parse_streaming_response_and_stream_helper_work(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        class Answered(pydantic.BaseModel):
            text: str

        config = config_at(gateway)

        def answer(request: Received) -> Answer:
            message = {"role": "assistant", "content": '{"text": "yes"}'}
            if "response_format" not in request.json:
                return Answer(COMPLETION)
            return Answer({**COMPLETION, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})

        def parsing(client: Any) -> Any:
            completions = (
                client.chat.completions if hasattr(client.chat.completions, "parse") else client.beta.chat.completions
            )
            return completions.parse(model="deepseek-flash", messages=MESSAGES, response_format=Answered)

        def streaming(client: Any) -> Any:
            completions = (
                client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
            )
            return completions.stream(model="deepseek-flash", messages=MESSAGES)

        if flavour == "sync":
            with create_client(config) as client:
                with chat(client.with_streaming_response) as response:
                    assert response.parse().choices[0].message.content == "Hello."
                with streaming(client) as stream:
                    assert [event.delta for event in stream if event.type == "content.delta"] == ["Hel", "lo."]
                gateway.answer = answer
                assert parsing(client).choices[0].message.parsed == Answered(text="yes")
            return

        async def main() -> None:
            async with create_async_client(config, transport=flavour) as client:  # type: ignore[arg-type]
                async with chat(client.with_streaming_response) as response:
                    assert (await response.parse()).choices[0].message.content == "Hello."
                async with streaming(client) as stream:
                    assert [event.delta async for event in stream if event.type == "content.delta"] == ["Hel", "lo."]
                gateway.answer = answer
                assert (await parsing(client)).choices[0].message.parsed == Answered(text="yes")

        asyncio.run(main())

    def test_responses_call_reaches_the_provider_route_with_a_bare_model_name(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer({"id": "resp_1", "object": "response", "output": []})
        response = call(
            config_at(gateway), lambda client: client.responses.create(model="deepseek/deepseek-flash", input="Hi")
        )
        assert response.id == "resp_1"
        assert gateway.last.path == ROUTE_PATH["provider"] + "/responses"
        assert gateway.last.json == {"model": "deepseek-flash", "input": "Hi"} | (
            {"stream": False} if "stream" in gateway.last.json else {}
        )

    def test_copy_with_the_beta_base_url_keeps_credentials_and_model_name(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway, api_key=None)

        def use(client: Any) -> Any:
            beta = client.with_options(base_url=f"{config.base_url}/beta")
            return beta.completions.create(model="deepseek/deepseek-flash", prompt="def f(", suffix=")")

        call(config, use)
        assert gateway.last.path == ROUTE_PATH["provider"] + "/beta/completions"
        assert gateway.last.json["model"] == "deepseek-flash"
        assert gateway.last.header("authorization") is None
        assert gateway.last.header("cf-aig-authorization") == f"Bearer {TOKEN}"

    def test_file_upload_passes_unchanged_with_the_key(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer({"id": "file-1", "object": "file"})
        content = b'{"model": "deepseek-flash"}\x00\xff'
        call(
            config_at(gateway, route="compat"),
            lambda client: client.files.create(
                file=("a.json", io.BytesIO(content), "application/json"), purpose="batch"
            ),
        )
        assert gateway.last.header("content-type").startswith("multipart/form-data; boundary=")  # type: ignore[union-attr]
        assert content in gateway.last.body
        assert gateway.last.header("authorization") == f"Bearer {KEY}"


class TestOptions:
    """A factory takes the options of the SDK that make sense here, and refuses others with a remedy."""

    @pytest.mark.parametrize("factory", [create_client, create_async_client])
    @pytest.mark.parametrize(
        ("option", "remedy"),
        [
            ("base_url", "give another host as endpoint"),
            ("http_client", "http_options="),
            ("organization", "the keywords are account_id, .*, timeout, max_retries, default_headers, default_query"),
            ("temperature", "the keywords are account_id"),
        ],
    )
    def test_refused_option_is_named_with_a_remedy(self, factory: Any, option: str, remedy: str) -> None:
        with pytest.raises(TypeError, match=f"takes no {option}: .*{remedy}"):
            factory(GatewayConfig(account_id="acct", api_key="key"), **{option: "x"})

    def test_wrong_type_of_config_and_unknown_transport_are_refused(self) -> None:
        for factory in (create_client, create_async_client):
            with pytest.raises(TypeError, match="config must be a GatewayConfig, not dict"):
                factory({"account_id": "acct"})  # type: ignore[operator]
        with pytest.raises(ValueError, match="transport must be httpx or aiohttp, not 'requests'"):
            create_async_client(GatewayConfig(account_id="acct", api_key="key"), transport="requests")  # type: ignore[arg-type]

    def test_both_factories_take_the_same_options_except_those_of_async_clients(self) -> None:
        sync, asynchronous = (inspect.signature(f).parameters for f in (create_client, create_async_client))
        assert {name: asynchronous[name] for name in sync} == dict(sync)
        assert set(asynchronous) - set(sync) == {"transport", "merge_chunks"}

    def test_headers_in_http_options_reach_the_gateway(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        headers = {"X-From-Http-Options": "1", "CONNECTION": "close"}
        call(config_at(gateway), chat, http_options={"headers": headers, "timeout": 3})
        assert gateway.last.header("x-from-http-options") == "1"
        assert gateway.last.header("connection") == "close"

    @pytest.mark.parametrize(("http_options", "last"), [({"follow_redirects": True}, "/there"), ({}, "/here")])
    def test_redirects_of_another_service_are_followed_only_if_http_options_say_so(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, http_options: dict[str, Any], last: str
    ) -> None:
        gateway.answer = lambda got: Answer({}, 200 if got.path == "/there" else 307, {"location": "/there"})
        with nullcontext() if http_options else pytest.raises(openai.APIStatusError):
            call(
                config_at(gateway),
                lambda client: client.get(f"{gateway.url}/here", cast_to=object),
                http_options=http_options,
            )
        assert gateway.last.path == last

    def test_login_in_http_options_is_sent_with_a_stored_key(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        call(config_at(gateway, api_key=None), chat, http_options={"auth": ("me", "word")})
        assert gateway.last.header("authorization") == "Basic bWU6d29yZA=="

    def test_missing_aiohttp_client_raises_an_error_that_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(openai, "DefaultAioHttpClient", raising=False)
        aiohttp_client_class.cache_clear()
        with pytest.raises(RuntimeError, match=r"pip install 'deepseek-gateway\[aiohttp\]'"):
            create_async_client(GatewayConfig(account_id="acct", api_key="key"), transport="aiohttp")


class TestClosing:
    """A client frees its sockets as the SDK's own default client does."""

    # asyncio warns about any client that is dropped while its event loop runs, including the SDK's own client.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
    @pytest.mark.parametrize("how", ["with", "close", "dropped", "dropped by the SDK"])
    def test_client_that_is_closed_or_dropped_leaves_no_connection_open(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, how: str
    ) -> None:
        config = config_at(gateway)

        def sync_main() -> None:
            if how == "dropped by the SDK":
                chat(openai.OpenAI(api_key="key", base_url=config.base_url))
                gc.collect()
                return
            client = create_client(config)
            chat(client)
            if how == "with":
                with client:
                    pass
            elif how == "close":
                client.close()
            del client
            gc.collect()

        async def async_main() -> None:
            if how == "dropped by the SDK":
                await chat(openai.AsyncOpenAI(api_key="key", base_url=config.base_url))
            else:
                client = create_async_client(config, transport=flavour)  # type: ignore[arg-type]
                await chat(client)
                if how == "with":
                    async with client:
                        pass
                elif how == "close":
                    await client.close()
                del client
            gc.collect()
            await asyncio.sleep(0)  # a dropped client is closed in a task of this event loop
            assert await asyncio.to_thread(gateway.until, lambda: gateway.open_connections == 0)

        if flavour == "sync":
            sync_main()
            assert gateway.until(lambda: gateway.open_connections == 0)
        else:
            asyncio.run(async_main())
        assert gateway.connections == 1

    def test_closed_client_reports_that_it_is_closed(self) -> None:
        client = create_client(GatewayConfig(account_id="acct", api_key="key"))
        client.close()
        assert client.is_closed()


def test_importing_the_package_reads_no_setting_and_does_not_import_openai() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import deepseek_gateway\n"
        "assert 'openai' not in sys.modules and 'dotenv' not in sys.modules\n"
        "assert not [name for name in opened if name.endswith('.env')]\n"
        "assert deepseek_gateway.GatewayConfig(account_id='a', api_key='k').base_url\n"
        "assert 'openai' not in sys.modules\n"
        "deepseek_gateway.ConfigError\n"
        "assert 'openai' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
