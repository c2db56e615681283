"""One call on the wire: its credentials and headers as they arrive, and the objects that must hold no secret."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
from importlib import import_module
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import KEY, MESSAGES, ROUTE_PATH, TOKEN, chat
from loopback import Answer, Loopback, Received, completion

from deepseek_gateway import GatewayConfig, create_client
from deepseek_gateway._exchange import Exchange
from deepseek_gateway._request import Destination

if TYPE_CHECKING:
    from collections.abc import Callable

    from calling import Call, ConfigAt

httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]

# The columns are: route, settings, and the headers authorization, cf-aig-authorization and cf-aig-gateway-id
# (Cloudflare docs: configuration/authentication, configuration/bring-your-own-keys, usage/rest-api).
CREDENTIALS: dict[str, tuple[str, dict[str, Any], str | None, str | None, str | None]] = {
    "provider, key": ("provider", {"gateway_token": None}, f"Bearer {KEY}", None, None),
    "provider, key and token": ("provider", {}, f"Bearer {KEY}", f"Bearer {TOKEN}", None),
    "provider, token": ("provider", {"api_key": None}, None, f"Bearer {TOKEN}", None),
    "compat, key": ("compat", {"gateway_token": None}, f"Bearer {KEY}", None, None),
    "compat, key and token": ("compat", {}, f"Bearer {KEY}", f"Bearer {TOKEN}", None),
    "compat, token": ("compat", {"api_key": None}, None, f"Bearer {TOKEN}", None),
    "rest, key and token": ("rest", {}, f"Bearer {TOKEN}", None, "my-gateway"),
    "rest, token": ("rest", {"api_key": None}, f"Bearer {TOKEN}", None, "my-gateway"),
}

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
@pytest.mark.parametrize(
    ("route", "settings", "authorization", "token", "gateway_id"), CREDENTIALS.values(), ids=CREDENTIALS
)
def test_each_credential_arrives_in_the_header_of_its_route_and_no_openai_variable_arrives(
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
    assert request.header("user-agent") == f"deepseek-gateway/{version('deepseek-gateway')}"
    assert request.json == {
        "model": "deepseek-flash" if route == "provider" else "deepseek/deepseek-flash",
        "messages": MESSAGES,
        **({"stream": stream} if stream else {"stream": False}),
    }
    assert not [header for header in request.headers if "tracer" in header[1] or header[0].startswith("openai-")]
    assert len(gateway.received) == 1


def test_only_known_headers_arrive_and_none_describes_the_machine(
    call: Call, gateway: Loopback, config_at: ConfigAt
) -> None:
    call(config_at(gateway), chat)
    of_http = {"host", "content-type", "content-length", "accept", "accept-encoding", "user-agent"}
    of_the_sdk = {"x-stainless-read-timeout", "x-stainless-retry-count"}
    arrived = {name for name, _ in gateway.last.headers} - {"connection"}  # the HTTP library's own choice
    assert arrived == {*of_http, *of_the_sdk, "authorization", "cf-aig-authorization"}


def test_login_in_netrc_is_not_sent_with_a_stored_key(
    call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    # httpx 0.23 reads netrc unless it is told not to.
    Path("netrc").write_text("machine 127.0.0.1 login tracer password tracer\n", "utf-8")
    monkeypatch.setenv("NETRC", str(Path("netrc").absolute()))
    call(config_at(gateway, api_key=None), chat)
    assert gateway.last.header("authorization") is None


class TestCredentialsPerCall:
    """A key or header that is given for a call, a copy or a client beats the configured key or header."""

    @pytest.mark.parametrize(
        ("route", "settings", "expected"),
        [
            ("provider", {}, (None, f"Bearer {TOKEN}")),
            ("provider", {"api_key": None}, (None, f"Bearer {TOKEN}")),
            ("compat", {"api_key": None}, (None, f"Bearer {TOKEN}")),
            ("rest", {}, (None, None)),
        ],
        ids=["provider, own key", "provider, stored key", "compat, stored key", "rest"],
    )
    def test_key_of_a_copy_replaces_the_configured_key_and_omit_removes_it(
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
    def test_header_of_a_call_or_copy_replaces_the_configured_credential(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, name: str, settings: dict[str, Any]
    ) -> None:
        config = config_at(gateway, **settings)
        call(config, lambda client: chat(client, extra_headers={name: "Bearer mine"}))
        assert gateway.last.header(name.lower()) == "Bearer mine"
        call(config, lambda client: chat(client.with_options(default_headers={name: "Bearer mine"})))
        assert gateway.last.header(name.lower()) == "Bearer mine"

    def test_gateway_option_given_twice_in_different_case_arrives_once(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        use = lambda client: chat(client, extra_headers={"CF-AIG-Metadata": "later"})  # noqa: E731
        call(config_at(gateway), use, default_headers={"cf-aig-metadata": "earlier"})
        assert gateway.last.header("cf-aig-metadata") == "later"

    def test_gateway_id_of_a_call_replaces_the_configured_id_on_rest(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        config = config_at(gateway, route="rest")
        call(config, lambda client: chat(client, extra_headers={"cf-aig-gateway-id": "another"}))
        assert gateway.last.header("cf-aig-gateway-id") == "another"


class TestHeadersOfTheEnvironment:
    """The SDK copies `OPENAI_*` variables into headers. Those headers never arrive. The caller's own headers do."""

    def test_default_header_arrives_even_if_the_environment_has_the_same_header(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Team: blue")
        call(config_at(gateway), chat, default_headers={"X-Team": "blue"})
        assert gateway.last.header("x-team") == "blue"

    def test_default_header_beats_another_value_in_the_environment(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: tracer\ncf-aig-authorization: Bearer tracer")
        call(config_at(gateway), chat, default_headers={"X-Team": "blue", "CF-AIG-Authorization": "Bearer mine"})
        assert gateway.last.header("x-team") == "blue"
        assert gateway.last.header("cf-aig-authorization") == "Bearer mine"

    def test_organization_variable_set_while_a_copy_is_made_does_not_arrive(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def use(client: Any) -> Any:
            monkeypatch.setenv("OPENAI_ORG_ID", "tracer")
            copy = client.with_options(timeout=5)
            monkeypatch.delenv("OPENAI_ORG_ID")
            return chat(copy)

        call(config_at(gateway), use)
        assert gateway.last.header("openai-organization") is None

    def test_header_variable_set_while_the_client_is_made_does_not_arrive(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-team: tracer")

        def use(client: Any) -> Any:
            monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
            return chat(client)

        call(config_at(gateway), use)
        assert gateway.last.header("x-team") is None


class TestSecretsStayOut:
    """No repr, text, pickle, log record or local variable holds a key or token."""

    @staticmethod
    def failing(kind: str) -> Callable[[Received], Answer]:
        def answer(request: Received) -> Answer:
            if kind == "error":
                return Answer({"error": {"message": "no", "type": "t", "param": None, "code": "c"}}, 401)
            return Answer({}, 302, {"location": "http://127.0.0.1:9/"}) if kind == "redirect" else completion(request)

        return answer

    def test_key_arrives_before_it_is_redacted(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = self.failing("error")
        with pytest.raises(openai.AuthenticationError):
            call(config_at(gateway), chat)
        assert gateway.last.header("authorization") == f"Bearer {KEY}"

    @pytest.mark.parametrize(
        ("route", "kind"),
        [
            *product(("provider", "rest"), ("success", "error", "redirect", "no connection", "timeout")),
            ("provider", "refused model"),
        ],
    )
    def test_objects_and_log_records_of_a_call_hold_no_secret(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        kind: str,
        route: str,
    ) -> None:
        caplog.set_level(logging.DEBUG, logger="")
        for name in ("openai", "httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "asyncio", "deepseek_gateway"):
            caplog.set_level(logging.DEBUG, logger=name)
        config = config_at(gateway, route=route)
        release = threading.Event()
        gateway.answer = self.failing(kind)
        if kind == "no connection":
            config = config_at(gateway, route=route, endpoint="http://127.0.0.1:9/v1/acct/my-gateway")
        if kind == "timeout":
            gateway.answer = lambda request: (release.wait(5), completion(request))[1]
        model = "openai/gpt-5" if kind == "refused model" else "deepseek-flash"
        error: Any = None
        raw: Any = None

        def use(client: Any) -> Any:
            return client.chat.completions.with_raw_response.create(model=model, messages=[])

        try:
            raw = call(config, use, max_retries=0, timeout=0.2 if kind == "timeout" else 5)
        except openai.OpenAIError as caught:
            error = caught
        release.set()

        left: list[Any] = [repr(config), caplog.text, *(vars(record) for record in caplog.records)]
        if error is not None:
            left += [repr(error), str(error), "".join(traceback.format_exception(error)), pickle.dumps(error)]
            left += [pickle.dumps(error.request), vars(error), dict(error.request.headers)]
            left += [dict(error.__cause__.request.headers)] if hasattr(error.__cause__, "request") else []
        else:
            left += [pickle.dumps(raw.http_response), dict(raw.http_request.headers)]
        assert (error is None) == (kind == "success")
        for thing in left:
            text = thing.decode("latin-1") if isinstance(thing, bytes) else str(thing)
            assert KEY not in text
            assert TOKEN not in text

    def test_pickled_error_holds_no_credential_that_the_caller_gave(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = self.failing("error")
        given = {"Authorization": "Bearer given-key", "cf-aig-authorization": "Bearer given-token"}
        given |= {"CF-Access-Client-Id": "given-id", "CF-Access-Client-Secret": "given-secret"}
        with pytest.raises(openai.AuthenticationError) as caught:
            call(config_at(gateway), lambda client: chat(client, extra_headers=given))
        assert b"given-" not in pickle.dumps(caught.value)

    @pytest.mark.parametrize("route", ["provider", "compat"])
    def test_local_variables_in_a_traceback_hold_no_secret(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, route: str
    ) -> None:
        gateway.answer = lambda _: Answer(b"{}", headers={"content-encoding": "gzip"})  # the body is not gzip
        with pytest.raises(openai.APIConnectionError) as raised:
            call(config_at(gateway, route=route), chat, max_retries=0)
        cause = raised.value.__cause__
        assert cause is not None
        frames = traceback.StackSummary.extract(traceback.walk_tb(cause.__traceback__), capture_locals=True)
        ours = [frame for frame in frames if "deepseek_gateway/_" in frame.filename.replace("\\", "/")]
        assert ours
        assert not [secret for secret in (KEY, TOKEN) if secret in str([frame.locals for frame in ours])]

    def test_error_of_a_response_hook_holds_a_redacted_request(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = self.failing("error")
        hooks = {"response": [lambda response: response.raise_for_status()]}
        with create_client(config_at(gateway), max_retries=0, http_options={"event_hooks": hooks}) as client:
            with pytest.raises(Exception, match=r"401|Connection error") as caught:
                chat(client)
            errors = [caught.value, caught.value.__cause__, caught.value.__context__]
            requests = [error.request for error in errors if hasattr(error, "request")]
            assert requests
            requests += [error.response.request for error in errors if getattr(error, "response", None) is not None]
            assert all(request.headers["authorization"] == "[redacted]" for request in requests)


OURS, ELSEWHERE = "https://ai.example.com/deepseek/chat/completions", "https://other.test/"


@pytest.mark.parametrize(
    ("method", "url", "streamed", "status", "kind", "read"),
    [
        ("POST", OURS, True, 200, "text/event-stream", False),
        ("POST", OURS, True, 200, "text/plain", False),
        ("POST", OURS, True, 200, "", False),
        ("POST", OURS, True, 200, "application/json", True),
        ("POST", OURS, True, 200, "Text/HTML; charset=utf-8", True),
        ("GET", OURS, True, 200, "application/json", False),
        ("POST", OURS, True, 299, "text/event-stream", False),
        ("POST", OURS, True, 300, "text/event-stream", True),
        ("POST", OURS, True, 500, "text/event-stream", True),
        ("POST", OURS, False, 200, "text/event-stream", True),
        ("POST", ELSEWHERE, False, 200, "application/json", True),
        ("POST", ELSEWHERE, True, 500, "application/json", False),
    ],
)
def test_body_is_read_ahead_if_the_sdk_wants_it_whole_or_it_may_be_an_error(
    method: str, url: str, streamed: bool, status: int, kind: str, read: bool
) -> None:
    config = GatewayConfig(endpoint="https://ai.example.com", api_key="the-key")
    destination = Destination(config, httpx.URL(config.base_url), {}, merge_pause=None)
    exchange = Exchange(httpx.Request(method, url), destination, streamed=streamed)
    response = httpx.Response(status, headers={"content-type": kind}, stream=httpx.ByteStream(b"x"))
    assert exchange.received(response) is read
    assert response.request is exchange.request


def test_body_that_a_transport_has_read_already_is_not_read_ahead() -> None:
    config = GatewayConfig(endpoint="https://ai.example.com", api_key="the-key")
    exchange = Exchange(
        httpx.Request("POST", OURS),
        Destination(config, httpx.URL(config.base_url), {}, merge_pause=None),
        streamed=True,
    )
    assert exchange.received(httpx.Response(200, json={})) is False
