"""The factories: stock clients, and what they put on the wire."""

from __future__ import annotations

import asyncio
import gc
import inspect
import io
import subprocess
import sys
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

    Call = Callable[..., Any]
    ConfigAt = Callable[..., GatewayConfig]

# Route, settings -> Authorization, cf-aig-authorization, cf-aig-gateway-id as they must arrive
# (Cloudflare docs: configuration/authentication, configuration/bring-your-own-keys, usage/rest-api).
CREDENTIALS = [
    ("provider", {"gateway_token": None}, f"Bearer {KEY}", None, None),
    ("provider", {}, f"Bearer {KEY}", f"Bearer {TOKEN}", None),
    ("provider", {"api_key": None}, None, f"Bearer {TOKEN}", None),
    ("compat", {"gateway_token": None}, f"Bearer {KEY}", None, None),
    ("compat", {}, f"Bearer {KEY}", f"Bearer {TOKEN}", None),
    ("compat", {"api_key": None}, None, f"Bearer {TOKEN}", None),
    ("rest", {}, f"Bearer {TOKEN}", None, "my-gateway"),
    ("rest", {"api_key": None}, f"Bearer {TOKEN}", None, "my-gateway"),
]

TRACERS = {
    "OPENAI_API_KEY": "tracer-api-key",
    "OPENAI_ADMIN_KEY": "tracer-admin-key",
    "OPENAI_ORG_ID": "tracer-organization",
    "OPENAI_PROJECT_ID": "tracer-project",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/tracer-base-url",
    "OPENAI_CUSTOM_HEADERS": (
        "X-Custom: tracer-custom\nAuthorization: Bearer tracer-authorization\ncf-aig-authorization: tracer-gateway\n"
        "Content-Type: text/tracer\nUser-Agent: tracer-agent\ncf-aig-gateway-id: tracer-gateway-id"
    ),
}


@pytest.mark.parametrize("environment", ["clean", "tracers", "tracers set later"])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(("route", "settings", "authorization", "token", "gateway_id"), CREDENTIALS)
def test_each_route_and_credential_arrives_where_it_belongs_and_nothing_else_does(
    call: Call,
    gateway: Loopback,
    config_at: ConfigAt,
    monkeypatch: pytest.MonkeyPatch,
    route: str,
    settings: dict[str, Any],
    authorization: str | None,
    token: str | None,
    gateway_id: str | None,
    stream: bool,
    environment: str,
) -> None:
    def set_tracers() -> None:
        for name, value in TRACERS.items():
            monkeypatch.setenv(name, value)

    if environment == "tracers":
        set_tracers()

    def use(client: Any) -> Any:
        if environment == "tracers set later":
            set_tracers()
        return chat(client.with_options(timeout=9).copy(), stream=stream)

    call(config_at(gateway, route=route, **settings), use)

    request = gateway.last
    assert (request.method, request.path) == ("POST", ROUTE_PATH[route] + "/chat/completions")
    assert request.header("authorization") == authorization
    assert request.header("cf-aig-authorization") == token
    assert request.header("cf-aig-gateway-id") == gateway_id
    assert request.header("content-type") == "application/json"
    assert request.header("host") == gateway.url.removeprefix("http://")
    assert "OpenAI/Python" in (request.header("user-agent") or "")
    assert request.json == {
        "model": "deepseek-flash" if route == "provider" else "deepseek/deepseek-flash",
        "messages": MESSAGES,
        **({"stream": stream} if stream else {"stream": False}),
    }
    assert not [header for header in request.headers if "tracer" in header[1] or header[0].startswith("openai-")]
    assert len(gateway.received) == 1


def test_no_other_header_arrives_and_none_that_describes_the_machine(
    call: Call, gateway: Loopback, config_at: ConfigAt
) -> None:
    call(config_at(gateway), chat)
    theirs = "host", "content-type", "content-length", "accept", "accept-encoding", "connection", "user-agent"
    told = "x-stainless-read-timeout", "x-stainless-retry-count"
    assert {name for name, _ in gateway.last.headers} == {*theirs, *told, "authorization", "cf-aig-authorization"}


def test_a_stored_key_is_hidden_by_no_login_in_netrc(
    call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    # httpx 0.23 looks there; some other HTTP libraries do.
    Path("netrc").write_text("machine 127.0.0.1 login tracer password tracer\n", "utf-8")
    monkeypatch.setenv("NETRC", str(Path("netrc").absolute()))
    call(config_at(gateway, api_key=None), chat)
    assert gateway.last.header("authorization") is None


def test_without_a_configuration_the_environment_and_the_nearest_env_file_are_read(
    call: Call, gateway: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text(f"DEEPSEEK_GATEWAY_ENDPOINT={gateway.url}\nDEEPSEEK_API_KEY=file-key\n", "utf-8")
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    call(None, lambda client: client.models.list(), route="compat")  # type: ignore[arg-type]
    assert gateway.last.path == "/compat/models"
    assert gateway.last.header("authorization") == f"Bearer {KEY}"


def test_with_a_configuration_nothing_else_is_read(
    call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_bytes(b"\xff\xfe not utf-8")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "not this one")
    call(config_at(gateway), chat)
    assert gateway.last.header("authorization") == f"Bearer {KEY}"


class TestStockClients:
    """`type()` is the SDK's, and all that a bare client can do works."""

    @pytest.mark.parametrize(
        "copy", [lambda c: c, lambda c: c.with_options(timeout=1), lambda c: c.copy()], ids=["made", "options", "copy"]
    )
    def test_the_type_is_exactly_the_sdks(self, copy: Callable[[Any], Any]) -> None:
        config = GatewayConfig(account_id="acct", api_key="key")
        assert type(copy(create_client(config))) is openai.OpenAI
        assert type(copy(create_async_client(config))) is openai.AsyncOpenAI

    def test_values_that_libraries_read_off_a_client_are_those_of_the_configuration(self) -> None:
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

    def test_every_way_to_read_an_answer(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
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

    def test_structured_output_streaming_response_and_stream_helper(
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

    def test_a_responses_call_reaches_the_provider_route(
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

    def test_beta_keeps_the_seam(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        config = config_at(gateway, api_key=None)

        def use(client: Any) -> Any:
            beta = client.with_options(base_url=f"{config.base_url}/beta")
            return beta.completions.create(model="deepseek/deepseek-flash", prompt="def f(", suffix=")")

        call(config, use)
        assert gateway.last.path == ROUTE_PATH["provider"] + "/beta/completions"
        assert gateway.last.json["model"] == "deepseek-flash"
        assert gateway.last.header("authorization") is None
        assert gateway.last.header("cf-aig-authorization") == f"Bearer {TOKEN}"

    def test_a_file_upload_passes_through_untouched(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
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


class TestCredentialsPerCall:
    """A key or header that is given per call, or by `with_options()`, wins."""

    @pytest.mark.parametrize(
        ("route", "settings", "expected"),
        [
            ("provider", {}, (None, f"Bearer {TOKEN}")),
            ("provider", {"api_key": None}, (None, f"Bearer {TOKEN}")),
            ("compat", {"api_key": None}, (None, f"Bearer {TOKEN}")),
            ("rest", {}, (None, None)),
        ],
    )
    def test_a_key_is_rotated_per_copy(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        route: str,
        settings: dict[str, Any],
        expected: tuple[None, str | None],
    ) -> None:
        config = config_at(gateway, route=route, **settings)
        call(config, lambda client: chat(client.with_options(api_key="rotated")))
        assert gateway.last.header("authorization") == "Bearer rotated"
        assert gateway.last.header("cf-aig-authorization") == expected[1]
        call(config, lambda client: chat(client, extra_headers={"Authorization": openai.Omit()}))  # type: ignore[attr-defined]
        assert gateway.last.header("authorization") is expected[0]

    @pytest.mark.parametrize("name", ["Authorization", "authorization", "cf-aig-authorization", "CF-AIG-Authorization"])
    @pytest.mark.parametrize("settings", [{}, {"api_key": None}], ids=["own key", "stored key"])
    def test_a_header_replaces_the_configured_one(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, name: str, settings: dict[str, Any]
    ) -> None:
        config = config_at(gateway, **settings)
        call(config, lambda client: chat(client, extra_headers={name: "Bearer mine"}))
        assert gateway.last.header(name.lower()) == "Bearer mine"
        call(config, lambda client: chat(client.with_options(default_headers={name: "Bearer mine"})))
        assert gateway.last.header(name.lower()) == "Bearer mine"

    def test_an_option_of_the_gateway_arrives_once_however_it_is_written(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        use = lambda client: chat(client, extra_headers={"CF-AIG-Metadata": "later"})  # noqa: E731
        call(config_at(gateway), use, default_headers={"cf-aig-metadata": "earlier"})
        assert gateway.last.header("cf-aig-metadata") == "later"

    def test_the_gateway_is_chosen_per_call_on_the_rest_route(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway, route="rest")
        call(config, lambda client: chat(client, extra_headers={"cf-aig-gateway-id": "another"}))
        assert gateway.last.header("cf-aig-gateway-id") == "another"

    def test_own_default_headers_stay_though_the_environment_names_the_same(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: blue")
        call(config_at(gateway), chat, default_headers={"X-Team": "blue"})
        assert gateway.last.header("x-team") == "blue"

    def test_the_environments_does_not_stay_because_the_callers_is_called_alike(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: tracer\ncf-aig-authorization: Bearer tracer")
        call(config_at(gateway), chat, default_headers={"X-Team": "blue", "CF-AIG-Authorization": "Bearer mine"})
        assert gateway.last.header("x-team") == "blue"
        assert gateway.last.header("cf-aig-authorization") == "Bearer mine"

    def test_an_organization_that_was_there_for_a_copy_only_does_not_arrive(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def use(client: Any) -> Any:
            monkeypatch.setenv("OPENAI_ORG_ID", "tracer")
            copy = client.with_options(timeout=5)
            monkeypatch.delenv("OPENAI_ORG_ID")
            return chat(copy)

        call(config_at(gateway), use)
        assert gateway.last.header("openai-organization") is None

    def test_what_was_there_when_the_client_was_made_does_not_arrive_later(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: tracer")

        def use(client: Any) -> Any:
            monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
            return chat(client)

        call(config_at(gateway), use)
        assert gateway.last.header("x-team") is None


class TestOptions:
    """What the factories take, and what they refuse with a remedy."""

    @pytest.mark.parametrize("factory", [create_client, create_async_client])
    @pytest.mark.parametrize(
        ("option", "remedy"),
        [
            ("api_key", r"GatewayConfig\(api_key=...\) or set DEEPSEEK_API_KEY"),
            ("base_url", r"GatewayConfig\(endpoint=...\)"),
            ("http_client", "http_options="),
            ("organization", "the options are timeout, max_retries, default_headers, default_query"),
            ("temperature", "the options are timeout"),
        ],
    )
    def test_an_option_that_makes_no_sense_here(self, factory: Any, option: str, remedy: str) -> None:
        with pytest.raises(TypeError, match=f"takes no {option}: .*{remedy}"):
            factory(GatewayConfig(account_id="acct", api_key="key"), **{option: "x"})

    def test_what_is_no_configuration_or_transport(self) -> None:
        for factory in (create_client, create_async_client):
            with pytest.raises(TypeError, match="config must be a GatewayConfig, not dict"):
                factory({"account_id": "acct"})  # type: ignore[operator]
        with pytest.raises(ValueError, match="transport must be httpx or aiohttp, not 'requests'"):
            create_async_client(GatewayConfig(account_id="acct", api_key="key"), transport="requests")  # type: ignore[arg-type]

    def test_settings_that_do_not_suffice(self) -> None:
        for factory in (create_client, create_async_client):
            with pytest.raises(ConfigError) as caught:
                factory()
            assert caught.value.missing == ("CLOUDFLARE_ACCOUNT_ID", "DEEPSEEK_API_KEY", "CF_AIG_TOKEN")

    def test_a_route_given_to_the_factory_replaces_the_configured_one(self) -> None:
        config = GatewayConfig(account_id="acct", api_key="key", gateway_token="token")
        assert str(create_client(config, route="rest").base_url).startswith("https://api.cloudflare.com/")
        assert create_client(config, route="rest").api_key == "token"
        with pytest.raises(ConfigError, match="CF_AIG_TOKEN"):
            create_client(GatewayConfig(account_id="acct", api_key="key"), route="rest")

    def test_both_factories_take_the_same_options(self) -> None:
        sync, asynchronous = (inspect.signature(f).parameters for f in (create_client, create_async_client))
        assert {name: asynchronous[name] for name in sync} == dict(sync)
        assert set(asynchronous) - set(sync) == {"transport"}

    def test_http_options_reach_the_http_client(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        call(config_at(gateway), chat, http_options={"headers": {"X-From-Http-Options": "1"}, "timeout": 3})
        assert gateway.last.header("x-from-http-options") == "1"

    def test_a_login_in_them_counts(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        call(config_at(gateway, api_key=None), chat, http_options={"auth": ("me", "word")})
        assert gateway.last.header("authorization") == "Basic bWU6d29yZA=="

    def test_an_aiohttp_client_that_is_not_there_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(openai, "DefaultAioHttpClient", raising=False)
        aiohttp_client_class.cache_clear()
        with pytest.raises(RuntimeError, match=r"pip install 'deepseek-gateway\[aiohttp\]'"):
            create_async_client(GatewayConfig(account_id="acct", api_key="key"), transport="aiohttp")


class TestClosing:
    """Sockets are freed as by the SDK's own default client."""

    # What is dropped with its event loop running is warned about by asyncio, for the SDK's own client as well.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
    @pytest.mark.parametrize("how", ["with", "close", "dropped", "dropped by the SDK"])
    def test_a_client_leaves_no_connection_behind(
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
            await asyncio.sleep(0.1)  # it is closed in a task
            assert gateway.open_connections == 0

        if flavour == "sync":
            sync_main()
            assert gateway.until(lambda: gateway.open_connections == 0)
        else:
            asyncio.run(async_main())
        assert gateway.connections == 1

    def test_a_closed_client_says_so(self) -> None:
        client = create_client(GatewayConfig(account_id="acct", api_key="key"))
        client.close()
        assert client.is_closed()


def test_importing_reads_no_setting_and_does_not_import_openai() -> None:
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
