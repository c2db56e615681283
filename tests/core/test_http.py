"""The seam on real sockets: refused requests, redirects, other hosts, proxies, and where secrets must not be."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import pickle
import threading
import traceback
from itertools import product
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import KEY, TOKEN, chat
from loopback import Answer, Loopback, Received, completion, serve

from deepseek_gateway import GatewayConfig, create_client
from deepseek_gateway._request import PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    Call = Callable[..., Any]
    ConfigAt = Callable[..., GatewayConfig]


class TestWrongRoute:
    """A model that the provider route cannot reach ends before any traffic."""

    @pytest.mark.parametrize("model", ["dynamic/cheap", "openai/gpt-5"])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("max_retries", [0, 2])
    def test_it_is_a_bad_request_that_names_the_route_to_use(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, model: str, stream: bool, max_retries: int
    ) -> None:
        messages = [{"role": "user", "content": "Hi"}]

        def use(client: Any) -> Any:
            return client.chat.completions.create(model=model, messages=messages, stream=stream)

        with pytest.raises(openai.BadRequestError) as caught:
            call(config_at(gateway), use, max_retries=max_retries)
        error = caught.value
        assert gateway.received == []
        assert (error.status_code, error.code, error.param) == (400, "wrong_route", "model")
        assert f"{model!r} cannot be reached on the provider route" in error.message
        assert "create_client(route='compat')" in error.message
        assert error.response.elapsed.total_seconds() == 0

    @pytest.mark.parametrize("route", ["compat", "rest"])
    @pytest.mark.parametrize("model", ["dynamic/cheap", "openai/gpt-5"])
    def test_elsewhere_it_passes_untouched(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, model: str, route: str
    ) -> None:
        call(config_at(gateway, route=route), lambda client: client.chat.completions.create(model=model, messages=[]))
        assert gateway.last.json["model"] == model


class TestBodies:
    """What is rewritten is the model, and nothing is when the model is right."""

    def test_a_body_that_needs_no_change_is_sent_as_the_sdk_wrote_it(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str
    ) -> None:
        messages = [{"role": "user", "content": 'say "model": "deepseek/x" 你好 \U0001f600 \x00 </script>'}]
        use = lambda client: client.chat.completions.create(model="deepseek-flash", messages=messages)  # noqa: E731
        call(config_at(gateway), use)
        ours = gateway.last.body
        if flavour == "sync":
            use(openai.OpenAI(api_key="key", base_url=gateway.url))
        else:

            async def main() -> None:
                async with openai.AsyncOpenAI(api_key="key", base_url=gateway.url) as client:
                    await use(client)

            asyncio.run(main())
        assert gateway.last.body == ours

    @pytest.mark.parametrize("route", ["compat", "rest"])
    def test_a_rewritten_body_differs_in_the_model_alone_and_the_callers_objects_in_nothing(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, route: str
    ) -> None:
        messages = [{"role": "user", "content": "你好, \u00e9, \U0001f600", "model": "inner"}]
        tools = [
            {"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {"type": "string"}}}}}
        ]
        extra = {"thinking": {"type": "disabled"}, "numbers": [1.0, 1e-7, 12345678901234567890]}
        before = json.dumps([messages, tools, extra])

        def use(client: Any) -> Any:
            create = client.chat.completions.create
            return create(model="deepseek-flash", messages=messages, tools=tools, extra_body=extra)

        call(config_at(gateway), use)
        plain = gateway.last
        call(config_at(gateway, route=route), use)
        rewritten = gateway.last
        assert json.dumps([messages, tools, extra]) == before
        assert rewritten.body == plain.body.replace(b'"deepseek-flash"', b'"deepseek/deepseek-flash"', 1)
        assert int(rewritten.header("content-length") or 0) == len(rewritten.body)
        assert rewritten.json == {**plain.json, "model": "deepseek/deepseek-flash"}
        assert ("你好".encode() in rewritten.body) == ("你好".encode() in plain.body)

    def test_an_upload_that_streams_is_not_read_into_memory(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({"id": "file-1"})
        reads: list[int] = []

        class File(io.BytesIO):
            name = "big.bin"

            def read(self, size: int | None = -1) -> bytes:
                reads.append(-1 if size is None else size)
                return super().read(size)

        with create_client(config_at(gateway, route="compat")) as client:
            client.post("/files", cast_to=object, files={"file": File(b"x" * 300_000)}, options=_multipart())
        assert b"x" * 300_000 in gateway.last.body
        assert reads
        assert min(reads) > 0, "the file was read in one go"


def _multipart() -> Any:
    return {"headers": {"Content-Type": "multipart/form-data"}}


class TestRedirects:
    """Credentials never follow a redirect; the caller gets an error instead."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(("route", "settings"), [("provider", {}), ("compat", {"api_key": None}), ("rest", {})])
    def test_another_origin_hears_nothing(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        route: str,
        settings: dict[str, Any],
        status: int,
        stream: bool,
    ) -> None:
        with serve() as other:
            location = f"{other.url}/stolen?secret-in-query=1"
            gateway.answer = lambda _: Answer({}, status, {"location": location})
            with pytest.raises(openai.APIStatusError) as caught:
                call(config_at(gateway, route=route, **settings), lambda client: chat(client, stream=stream))
            assert other.received == []
        error = caught.value
        assert (error.status_code, error.code) == (status, "redirect_refused")
        assert f"a redirect to {other.url.removeprefix('http://')}, which was not followed" in error.message
        assert "secret-in-query" not in error.message
        assert len(gateway.received) == 1
        assert error.response.next_request is None

    def test_not_even_when_the_caller_asks_for_it(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        with serve() as other:
            gateway.answer = lambda _: Answer({}, 307, {"location": other.url})
            for use, http_options in (
                (chat, {"follow_redirects": True}),
                (lambda c: c.get("/models", cast_to=object, options={"follow_redirects": True}), {}),
            ):
                with pytest.raises(openai.APIStatusError, match="307"):
                    call(config_at(gateway), use, http_options=http_options)
            assert other.received == []

    def test_a_redirect_within_the_host_is_refused_as_well(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer({}, 302, {"location": "/login"})
        with pytest.raises(openai.APIStatusError) as caught:
            call(config_at(gateway), chat)
        assert "another path of the same host" in caught.value.message


class TestOtherHosts:
    """What lies outside the base URL gets nothing of ours."""

    @pytest.mark.parametrize("path", ["", "/v1/acct/my-gateway/openai"])
    @pytest.mark.parametrize("settings", [{}, {"api_key": None}], ids=["own key", "stored key"])
    def test_another_base_url_gets_neither_credential_nor_placeholder(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, path: str, settings: dict[str, Any]
    ) -> None:
        config = config_at(gateway, **settings)
        with serve() as other:
            server = gateway if path else other
            call(config, lambda client: chat(client.with_options(base_url=server.url + path)))
            request = server.last
        assert request.path == path + "/chat/completions"
        assert not {"authorization", "cf-aig-authorization", "cf-aig-gateway-id"} & {
            name for name, _ in request.headers
        }
        assert not [value for _, value in request.headers if KEY in value or TOKEN in value or PLACEHOLDER in value]
        assert request.json["model"] == "deepseek-flash"

    def test_what_is_meant_for_a_gateway_goes_to_no_other_origin(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        headers = {"cf-aig-authorization": "Bearer mine", "cf-aig-metadata": "{}", "X-Mine": "1"}
        with serve() as other:
            call(config_at(gateway), lambda c: chat(c.with_options(base_url=other.url)), default_headers=headers)
            call(config_at(gateway), lambda c: c.get(other.url + "/x", cast_to=object), default_headers=headers)
            for request in other.received:
                assert (request.header("cf-aig-authorization"), request.header("cf-aig-metadata")) == (None, None)
                assert request.header("x-mine") == "1"

    def test_a_short_key_takes_nothing_else_along(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        with serve() as other:
            call(config_at(gateway, api_key="json"), lambda c: chat(c.with_options(base_url=other.url)))
            assert other.last.header("content-type") == "application/json"

    def test_the_callers_own_key_goes_there(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        with serve() as other:
            call(config_at(gateway), lambda c: chat(c.with_options(base_url=other.url, api_key="for-the-other")))
            assert other.last.header("authorization") == "Bearer for-the-other"
            assert other.last.header("cf-aig-authorization") is None


class TestSecretsStayOut:
    """No repr, text, pickle or log record holds a key or token."""

    @staticmethod
    def failing(kind: str) -> Callable[[Received], Answer]:
        def answer(request: Received) -> Answer:
            if kind == "error":
                return Answer({"error": {"message": "no", "type": "t", "param": None, "code": "c"}}, 401)
            return Answer({}, 302, {"location": "http://127.0.0.1:9/"}) if kind == "redirect" else completion(request)

        return answer

    @pytest.mark.parametrize(
        ("route", "kind"),
        [
            *product(("provider", "rest"), ("success", "error", "redirect", "no connection", "timeout")),
            ("provider", "refused model"),
        ],
    )
    def test_nothing_that_a_call_leaves_behind_holds_one(
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

    def test_nor_does_one_that_the_caller_gave(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = self.failing("error")
        given = {"Authorization": "Bearer given-key", "cf-aig-authorization": "Bearer given-token"}
        with pytest.raises(openai.AuthenticationError) as caught:
            call(config_at(gateway), lambda client: chat(client, extra_headers=given))
        assert b"given-" not in pickle.dumps(caught.value)

    @pytest.mark.parametrize("route", ["provider", "compat"])
    def test_nor_do_our_own_local_variables_which_error_reports_show(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, route: str
    ) -> None:
        gateway.answer = lambda _: Answer(b"{}", headers={"content-encoding": "gzip"})  # it is none
        with pytest.raises(openai.APIConnectionError) as raised:
            call(config_at(gateway, route=route), chat, max_retries=0)
        cause = raised.value.__cause__
        assert cause is not None
        frames = traceback.StackSummary.extract(traceback.walk_tb(cause.__traceback__), capture_locals=True)
        ours = [frame for frame in frames if "deepseek_gateway/_" in frame.filename.replace("\\", "/")]
        assert ours
        assert not [secret for secret in (KEY, TOKEN) if secret in str([frame.locals for frame in ours])]

    def test_nor_does_a_callers_hook_that_raises(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = self.failing("error")
        hooks = {"response": [lambda response: response.raise_for_status()]}
        with create_client(config_at(gateway), max_retries=0, http_options={"event_hooks": hooks}) as client:
            with pytest.raises(Exception, match=r"401|Connection error") as caught:
                chat(client)
            errors = [caught.value, caught.value.__cause__, caught.value.__context__]
            requests = [error.request for error in errors if hasattr(error, "request")]
            assert requests
            assert all(request.headers["authorization"] == "[redacted]" for request in requests)

    @pytest.mark.parametrize("value", ["caller-secret\n", "caller\nsecret", "caller-secret ", "caller\x00secret"])
    def test_a_credential_that_fits_no_header_is_refused_unseen(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, value: str
    ) -> None:
        for use in (
            lambda client: chat(client.with_options(api_key=value)),
            lambda client: chat(client, extra_headers={"cf-aig-authorization": f"Bearer {value}"}),
        ):
            with pytest.raises(openai.BadRequestError, match="The credential given for") as caught:
                call(config_at(gateway), use)
            assert "secret" not in "".join(traceback.format_exception(caught.value))
            assert caught.value.code == "unfit_credential"
        assert gateway.received == []

    def test_the_key_did_arrive_all_the_same(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = self.failing("error")
        with pytest.raises(openai.AuthenticationError):
            call(config_at(gateway), chat)
        assert gateway.last.header("authorization") == f"Bearer {KEY}"

    def test_a_retried_call_carries_its_credentials_each_time(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda request: (
            Answer({}, 503, {"retry-after-ms": "1"}) if len(gateway.received) < 3 else completion(request)
        )
        call(config_at(gateway), chat)
        assert [r.header("authorization") for r in gateway.received] == [f"Bearer {KEY}"] * 3
        assert [r.header("x-stainless-retry-count") for r in gateway.received] == ["0", "1", "2"]


class TestRepeatedCalls:
    """What became of the headers of one call is recalled for the next: nothing of one may get into another."""

    def test_each_call_has_its_own_headers(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        given: list[dict[str, str]] = [
            {},
            {"extra_headers": {"X-Mine": "1"}},
            {},
            {"extra_headers": {"cf-aig-authorization": "Bearer other-token"}},
            {},
            {"extra_headers": {"Authorization": "Bearer other-key"}},
            {},
            {},
        ]

        def use(client: Any) -> Any:
            if isinstance(client, openai.AsyncOpenAI):
                return use_async(client)
            return [chat(client, **more) for more in given]

        async def use_async(client: Any) -> Any:
            return [await chat(client, **more) for more in given]

        call(config_at(gateway), use)
        names = ("x-mine", "cf-aig-authorization", "authorization")
        usual = (None, f"Bearer {TOKEN}", f"Bearer {KEY}")
        assert [tuple(map(request.header, names)) for request in gateway.received] == [
            usual,
            ("1", *usual[1:]),
            usual,
            (None, "Bearer other-token", usual[2]),
            usual,
            (*usual[:2], "Bearer other-key"),
            usual,
            usual,
        ]

    def test_what_a_hook_adds_stays_with_its_call(self, gateway: Loopback, config_at: ConfigAt) -> None:
        calls = iter("abc")

        def mark(request: Any) -> None:
            mark_with = next(calls)
            request.headers[f"X-{mark_with}"] = "1"

        with create_client(config_at(gateway), http_options={"event_hooks": {"request": [mark]}}) as client:
            for _ in range(3):
                chat(client)
        marks = [[name for name in ("x-a", "x-b", "x-c") if request.header(name)] for request in gateway.received]
        assert marks == [["x-a"], ["x-b"], ["x-c"]]

    def test_a_variable_that_is_set_between_two_calls_reaches_nobody(
        self, gateway: Loopback, config_at: ConfigAt, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with create_client(config_at(gateway)) as client:
            chat(client)
            chat(client)
            monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Tracer: tracer\nAccept: text/tracer")
            chat(client.with_options(timeout=9))
            chat(client)
            monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
            chat(client)
        assert "tracer" not in str(gateway.received)
        assert len({request.header("accept") for request in gateway.received}) == 1
        assert [request.header("authorization") for request in gateway.received] == [f"Bearer {KEY}"] * 5

    def test_bodies_of_any_length_tell_it(self, gateway: Loopback, config_at: ConfigAt) -> None:
        with create_client(config_at(gateway, route="compat")) as client:
            for length in (1, 1000, 10):
                messages = [{"role": "user", "content": "x" * length}]
                client.chat.completions.create(model="deepseek-flash", messages=messages)
            client.models.list()
            chat(client)
        sent = [len(request.body) for request in gateway.received]
        assert [int(request.header("content-length") or 0) for request in gateway.received] == sent
