"""The two `send()`: refused requests, redirects, other hosts, bodies and repeated calls."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import traceback
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import KEY, TOKEN, chat, failing, one_by_one, run, warnings_in
from loopback import Answer, Loopback, completion, serve

from deepseek_gateway import create_client, record_calls
from deepseek_gateway._request import PLACEHOLDER

if TYPE_CHECKING:
    from calling import Call, ConfigAt


class TestRefusedRequests:
    """A request that cannot succeed ends before any traffic."""

    @pytest.mark.parametrize("model", ["dynamic/cheap", "openai/gpt-5"])
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize("max_retries", [0, 2], ids=["no retries", "2 retries"])
    def test_model_that_provider_cannot_reach_is_refused_once_with_the_right_route(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        model: str,
        stream: bool,
        max_retries: int,
    ) -> None:
        messages = [{"role": "user", "content": "Hi"}]

        def use(client: Any) -> Any:
            return client.chat.completions.create(model=model, messages=messages, stream=stream)

        with pytest.raises(openai.BadRequestError) as caught:
            call(config_at(gateway), use, max_retries=max_retries)
        error = caught.value
        assert gateway.received == []
        assert len(caplog.messages) == 1
        assert (error.status_code, error.type) == (400, "invalid_request_error")
        assert (error.code, error.param) == ("wrong_route", "model")
        assert f"{model!r} cannot be reached on the provider route" in error.message
        assert "create_client(route='compat')" in error.message
        assert error.response.elapsed.total_seconds() == 0

    @pytest.mark.parametrize("route", ["compat", "rest"])
    @pytest.mark.parametrize("model", ["dynamic/cheap", "openai/gpt-5"])
    def test_model_of_another_provider_passes_unchanged_on_compat_and_rest(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, model: str, route: str
    ) -> None:
        call(config_at(gateway, route=route), lambda client: client.chat.completions.create(model=model, messages=[]))
        assert gateway.last.json["model"] == model

    @pytest.mark.parametrize(
        "value",
        ["caller-secret\n", "caller\nsecret", "caller-secret ", "caller\x00secret"],
        ids=["line break last", "line break", "space last", "null"],
    )
    def test_credential_that_is_not_a_valid_header_is_refused_and_not_shown(
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
            assert "secret" not in str(caught.value.request.headers.raw)
        assert gateway.received == []


class TestBodies:
    """A body is sent as the SDK wrote it. If the model's name changes, the rest of the JSON stays the same."""

    def test_body_with_the_right_model_name_is_sent_byte_for_byte(
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
    def test_rewritten_body_is_the_same_json_except_for_the_model(
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
        assert int(rewritten.header("content-length") or 0) == len(rewritten.body)
        assert rewritten.json == {**plain.json, "model": "deepseek/deepseek-flash"}
        assert list(rewritten.json) == list(plain.json)

    def test_content_length_matches_the_rewritten_body(self, gateway: Loopback, config_at: ConfigAt) -> None:
        with create_client(config_at(gateway, route="compat")) as client:
            for length in (1, 1000, 10):
                messages = [{"role": "user", "content": "x" * length}]
                client.chat.completions.create(model="deepseek-flash", messages=messages)
            client.models.list()
            chat(client)
        sent = [len(request.body) for request in gateway.received]
        assert [int(request.header("content-length") or 0) for request in gateway.received] == sent

    @pytest.mark.parametrize(
        ("kind", "body"),
        [
            ("text/plain", b'{"model":"deepseek-flash"}'),
            ("application/x-ndjson", b'{"model":"deepseek-flash"}\n{"model":"deepseek-flash"}\n'),
            ("application/json", b'{"messages":[],"model":"deepseek-flash"'),
            ("application/json", b'{"messages":"\xff","model":"deepseek-flash"}'),
            ("application/json", b'["model","deepseek-flash"]'),
            ("application/json", b'{ "messages": [ {"model":"deepseek-flash"} ] }'),
            ("application/json", b'{ "messages": [], "model": 1e2 }'),
        ],
        ids=["text", "JSON lines", "cut JSON", "no UTF-8", "a list", "no model at the top", "a model that is not text"],
    )
    def test_body_without_a_model_to_rewrite_is_sent_byte_for_byte_on_compat(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, kind: str, body: bytes
    ) -> None:
        gateway.answer = lambda _: Answer({})
        options = {"headers": {"Content-Type": kind}}
        url = config_at(gateway, route="compat").base_url + "/chat/completions"

        def use(client: Any) -> Any:
            http_client = client._client  # noqa: SLF001  # old versions of the SDK cannot send bytes
            return http_client.send(http_client.build_request("POST", url, content=body, **options))

        call(config_at(gateway, route="compat"), use)
        assert gateway.last.body == body
        assert gateway.last.header("content-length") == str(len(body))

    def test_streamed_upload_is_not_read_into_memory(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({"id": "file-1"})
        multipart: Any = {"headers": {"Content-Type": "multipart/form-data"}}
        reads: list[int] = []

        class File(io.BytesIO):
            name = "big.bin"

            def read(self, size: int | None = -1) -> bytes:
                reads.append(-1 if size is None else size)
                return super().read(size)

        with create_client(config_at(gateway, route="compat")) as client:
            client.post("/files", cast_to=object, files={"file": File(b"x" * 300_000)}, options=multipart)
        assert b"x" * 300_000 in gateway.last.body
        assert reads
        assert min(reads) > 0, "the file was read in one go"


class TestRedirects:
    """Credentials never follow a redirect. The caller gets an error instead."""

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize(
        ("route", "settings"),
        [("provider", {}), ("compat", {"api_key": None}), ("rest", {})],
        ids=["provider", "compat", "rest"],
    )
    def test_redirect_to_another_origin_is_refused(
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
            location = f"{other.url}/stolen/secret-in-path://x?secret-in-query=1"
            gateway.answer = lambda _: Answer({}, status, {"location": location})
            with pytest.raises(openai.APIStatusError) as caught:
                call(config_at(gateway, route=route, **settings), lambda client: chat(client, stream=stream))
            assert other.received == []
        error = caught.value
        assert (error.status_code, error.code, error.type) == (status, "redirect_refused", "redirect_refused")
        assert f"a redirect to {other.url.removeprefix('http://')}, which was not followed" in error.message
        assert "secret-in" not in error.message
        assert len(gateway.received) == 1
        assert error.response.next_request is None

    def test_redirect_to_the_login_of_cloudflare_access_is_explained(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        location = "https://team.cloudflareaccess.com/cdn-cgi/access/login/ai.example.com?kid=1"
        gateway.answer = lambda _: Answer({}, 302, {"location": location})
        with pytest.raises(openai.APIStatusError, match="the login of Cloudflare Access") as caught:
            call(config_at(gateway), chat)
        assert "CF-Access-Client-Id and CF-Access-Client-Secret" in caught.value.message
        assert "kid=1" not in caught.value.message

    def test_redirect_is_refused_even_if_the_caller_asks_to_follow_redirects(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        with serve() as other:
            gateway.answer = lambda _: Answer({}, 307, {"location": other.url})
            for use, http_options in (
                (chat, {"follow_redirects": True}),
                (lambda c: c.get("/models", cast_to=object, options={"follow_redirects": True}), {}),
            ):
                with pytest.raises(openai.APIStatusError, match="307"):
                    call(config_at(gateway), use, http_options=http_options)
            assert other.received == []

    @pytest.mark.parametrize(
        "location",
        ["http://other.test", "http://user:secret@other.test/a", "http://other.test?secret=1?x"],
    )
    def test_only_the_host_of_the_target_is_shown(self, gateway: Loopback, config_at: ConfigAt, location: str) -> None:
        gateway.answer = lambda _: Answer({}, 302, {"location": location})
        with pytest.raises(openai.APIStatusError, match=r"a redirect to other\.test, which was not followed"):
            run("sync", config_at(gateway), chat)

    def test_redirect_to_the_same_host_is_refused(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({}, 302, {"location": "/login"})
        with pytest.raises(openai.APIStatusError) as caught:
            call(config_at(gateway), chat)
        assert "another path of the same host" in caught.value.message

    def test_redirect_of_deepseek_itself_is_refused(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        redirect, outage = Answer({}, 307, {"location": "/there"}), Answer(b"<html>", 522)
        gateway.answer = lambda got: redirect if got.path.startswith("/itself") else outage
        config = config_at(gateway, fallback="direct", direct_endpoint=f"{gateway.url}/itself")
        assert failing(call, config, max_retries=0).code == "redirect_refused"


class TestOtherHosts:
    """A request to a URL outside the base URL carries no credential of the configuration."""

    @pytest.mark.parametrize("path", ["", "/v1/acct/my-gateway/openai"], ids=["another host", "another path"])
    @pytest.mark.parametrize("settings", [{}, {"api_key": None}], ids=["own key", "stored key"])
    def test_copy_with_another_base_url_sends_neither_credential_nor_placeholder(
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

    @pytest.mark.usefixtures("info_logging")
    @pytest.mark.parametrize("route", ["provider", "compat", "rest"])
    def test_another_path_of_the_same_host_gets_no_credential_after_a_call_with_equal_headers(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, route: str
    ) -> None:
        elsewhere = gateway.url + "/v1/acct/another-gateway/chat/completions"
        message = {"model": "deepseek-flash", "messages": [{"role": "user", "content": "Hi"}], "stream": False}

        def to_the_gateway(client: Any) -> Any:
            return client.post("/chat/completions", cast_to=object, body=message)

        def to_elsewhere(client: Any) -> Any:
            return client.post(elsewhere, cast_to=object, body=message)

        def to_elsewhere_by_copy(client: Any) -> Any:
            copy = client.with_options(base_url=elsewhere.removesuffix("/chat/completions"))
            return copy.post("/chat/completions", cast_to=object, body=message)

        uses = [to_the_gateway, to_elsewhere, to_the_gateway, to_the_gateway, to_elsewhere_by_copy, to_the_gateway]
        call(config_at(gateway, route=route), lambda client: one_by_one(client, uses))
        outside = [request for request in gateway.received if request.path.startswith("/v1/acct/another-gateway/")]
        inside = [request for request in gateway.received if request not in outside]
        assert (len(outside), len(inside)) == (2, 4)
        for request in outside:
            assert not {"authorization", "cf-aig-authorization", "cf-aig-gateway-id"} & {
                name for name, _ in request.headers
            }
            assert not [secret for secret in (KEY, TOKEN, PLACEHOLDER) if secret in str(request.headers)]
        credential = TOKEN if route == "rest" else KEY
        assert {request.header("authorization") for request in inside} == {f"Bearer {credential}"}

    def test_gateway_headers_of_the_caller_go_to_no_other_origin(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        headers = {"cf-aig-authorization": "Bearer mine", "cf-aig-metadata": "{}", "CF-Access-Client-Id": "x"}
        headers |= {"CF-Access-Client-Secret": "the-secret-of-access", "X-Mine": "1"}
        with serve() as other:
            call(config_at(gateway), lambda c: chat(c.with_options(base_url=other.url)), default_headers=headers)
            call(config_at(gateway), lambda c: c.get(other.url + "/x", cast_to=object), default_headers=headers)
            for request in other.received:
                assert not [name for name, _ in request.headers if name.startswith("cf-")]
                assert request.header("x-mine") == "1"

    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize("given", [{}, {"api_key": "for-the-other"}], ids=["withheld", "given"])
    def test_error_of_another_host_warns_of_withheld_credentials_only_if_they_were_withheld(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        status: int,
        given: dict[str, str],
    ) -> None:
        with serve(lambda _: Answer({"error": {"message": "no"}}, status)) as other:
            error = failing(
                call, config_at(gateway), lambda client: chat(client.with_options(base_url=other.url, **given))
            )
        assert error.status_code == status
        warning = f"{status} from 127.0.0.1: the URL does not lie under the base URL of this client, so your"
        assert [message.startswith(warning) for message in warnings_in(caplog)] == ([] if given else [True])

    def test_header_that_happens_to_contain_the_key_reaches_another_host(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        with serve() as other:
            call(config_at(gateway, api_key="json"), lambda c: chat(c.with_options(base_url=other.url)))
            assert other.last.header("content-type") == "application/json"

    def test_key_given_for_another_host_is_sent_there(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        with serve() as other:
            call(config_at(gateway), lambda c: chat(c.with_options(base_url=other.url, api_key="for-the-other")))
            assert other.last.header("authorization") == "Bearer for-the-other"
            assert other.last.header("cf-aig-authorization") is None


class TestRepeatedCalls:
    """Nothing from one call appears in another."""

    def test_headers_of_one_call_do_not_show_up_in_the_next(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
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

        uses = [lambda client, more=more: chat(client, **more) for more in given]
        call(config_at(gateway), lambda client: one_by_one(client, uses))
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

    @pytest.mark.usefixtures("info_logging")
    @pytest.mark.parametrize("route", ["provider", "compat"])
    def test_header_that_a_hook_adds_or_changes_does_not_show_up_in_the_next_request(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str, route: str
    ) -> None:
        numbers = iter(range(4))

        def mark(request: Any) -> None:
            number = next(numbers)
            if number == 3:
                return
            request.headers[f"X-Added-{number}"] = "1"
            request.headers["Accept"] = f"application/json;n={number}"
            request.headers["Authorization"] = f"Bearer hook-{number}"
            del request.headers["cf-aig-authorization"]

        async def mark_async(request: Any) -> None:
            mark(request)

        hooks = {"request": [mark if flavour == "sync" else mark_async]}
        config = config_at(gateway, route=route)
        call(config, lambda client: one_by_one(client, [chat] * 4), http_options={"event_hooks": hooks})
        added = [[name for name, _ in request.headers if name.startswith("x-added")] for request in gateway.received]
        assert added == [["x-added-0"], ["x-added-1"], ["x-added-2"], []]
        accepted = [request.header("accept") for request in gateway.received]
        assert accepted == [*(f"application/json;n={number}" for number in range(3)), "application/json"]
        keys = [request.header("authorization") for request in gateway.received]
        assert keys == ["Bearer hook-0", "Bearer hook-1", "Bearer hook-2", f"Bearer {KEY}"]
        tokens = [request.header("cf-aig-authorization") for request in gateway.received]
        assert tokens == [None, None, None, f"Bearer {TOKEN}"]

    def test_openai_variable_set_between_two_calls_does_not_arrive(
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

    def test_each_retry_carries_the_credentials_and_its_own_number(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda request: (
            Answer({}, 503, {"retry-after-ms": "1"}) if len(gateway.received) < 3 else completion(request)
        )
        call(config_at(gateway), chat)
        assert [r.header("authorization") for r in gateway.received] == [f"Bearer {KEY}"] * 3
        assert [r.header("x-stainless-retry-count") for r in gateway.received] == ["0", "1", "2"]


NUMBERS = {
    "5,000 digits": "9" * 5000,
    "letters": "one",
    "sign": "-1",
    "digits of another script": "\u00b2",
    "empty": "",
}


@pytest.mark.parametrize("number", NUMBERS.values(), ids=NUMBERS)
def test_unreadable_number_in_a_header_costs_neither_the_answer_nor_its_connection(
    call: Call, gateway: Loopback, config_at: ConfigAt, number: str
) -> None:
    gateway.answer = lambda request: Answer(completion(request).body, headers={"cf-aig-step": number})
    with record_calls() as calls:
        two = [chat, lambda client: chat(client, extra_headers={"cf-aig-max-attempts": "9" * 5000})]
        call(config_at(gateway), lambda client: one_by_one(client, two))
    assert [recorded.step for recorded in calls] == [None, None]
    assert gateway.connections == 1


# aiohttp warns of large bodies, with the bare client as well.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_body_of_several_megabytes_arrives_whole(call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
    messages = [{"role": "user", "content": "0123456789" * 300_000}]
    for route in ("provider", "compat"):
        call(config_at(gateway, route=route), lambda client: chat(client, messages=messages))
        assert gateway.last.json["messages"] == messages
        assert gateway.last.header("content-length") == str(len(gateway.last.body))


@pytest.mark.parametrize("sent", [b"{}", b"HTTP/9.9 hello\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"])
def test_response_that_is_not_http_raises_a_connection_error(call: Call, config_at: ConfigAt, sent: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(openai.APIConnectionError) as caught:
            call(config_at(Loopback(completion), endpoint=f"{address}/v1/acct/my-gateway"), chat, max_retries=0)
        thread.join()
    cause: Any = caught.value.__cause__
    assert str(cause) != "None"
    assert cause.request.headers["authorization"] == "[redacted]"
