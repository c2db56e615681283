"""A response that is not a result becomes the SDK's exception. Over real sockets, for every flavour of client."""

from __future__ import annotations

import gzip
import json
import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import AT_ONCE, DONE, LOGGED, long_form, short_form, to_bytes
from calling import KEY, TOKEN, chat, failing, run, warnings_in
from loopback import COMPLETION, Answer, Loopback, Received

from deepseek_gateway import GatewayConfig, create_client
from deepseek_gateway._response import may_hold_a_fault

if TYPE_CHECKING:
    from calling import Call, ConfigAt

# The columns are: status, body, a part of the message, and the number of requests with one retry allowed.
UPSTREAM_ERRORS: dict[str, tuple[int, str, str, int]] = {
    "text about the key": (
        401,
        "Authentication Fails (governor)",
        "; check DEEPSEEK_API_KEY; to use a key stored at Cloudflare, leave it unset",
        1,
    ),
    "text about the body": (
        422,
        "Failed to deserialize the JSON body: missing field `messages`",
        "missing field `messages`",
        1,
    ),
    "status that is no error": (300, "Choose one", "Choose one", 1),
    "page": (502, "<html><title>502 from a proxy</title></html>", "502 from a proxy", 2),
    "page in upper case": (502, "<HTML><TITLE>502 from a proxy</TITLE>Nothing else</HTML>", ": 502 from a proxy", 2),
    "empty body": (500, "", "an empty body", 2),
    "JSON list": (500, "[1, 2]", "[1, 2]", 2),
    "JSON with a detail": (500, '{"detail": "Not Found"}', "Not Found", 2),
    "JSON with a message": (500, '{"message": "Not Found"}', "Not Found", 2),
    "JSON with a status": (500, '{"status": 500, "detail": "Not Found"}', "Not Found", 2),
    "JSON with a title": (500, '{"title": "Not Found"}', '{"title": "Not Found"}', 2),
    "JSON with a text as error": (500, '{"error": "overloaded"}', "overloaded", 2),
    "JSON of an unknown form": (500, '{"strange": 1}', '{"strange": 1}', 2),
    "text of 300 characters": (500, "x" * 300, "x" * 300, 2),
    "longer text": (500, "x" * 301, "x" * 300 + "…", 2),
}


class TestUpstreamErrors:
    """An upstream error that is not in OpenAI's format becomes an SDK exception with the same text."""

    @pytest.mark.parametrize(("status", "body", "said", "requests"), UPSTREAM_ERRORS.values(), ids=UPSTREAM_ERRORS)
    def test_upstream_error_in_another_format_keeps_its_text_and_status(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, status: int, body: str, said: str, requests: int
    ) -> None:
        gateway.answer = lambda _: Answer(to_bytes(body), status, {**LOGGED, "content-type": "", **AT_ONCE})
        error = failing(call, config_at(gateway))
        assert (error.status_code, error.type, error.code) == (status, "upstream_error", None)
        assert error.body["message"].startswith(f"{status} from DeepSeek: ")
        assert error.body["message"].endswith(said)
        assert error.body["original"] == (json.loads(body) if body.startswith("{") else body)
        assert len(gateway.received) == requests

    @pytest.mark.parametrize(
        ("headers", "body"),
        [({"cf-ray": "8f0-FRA"}, "a text"), ({}, ""), (LOGGED, ""), (LOGGED, "<html></html>")],
        ids=["text with a ray id", "nothing without a ray id", "nothing with a log id", "page with a log id"],
    )
    def test_text_that_is_not_an_edge_error_is_the_upstreams(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, headers: dict[str, str], body: str
    ) -> None:
        gateway.answer = lambda _: Answer(body.encode(), 500, {**headers, "content-type": ""})
        assert failing(call, config_at(gateway), max_retries=0).type == "upstream_error"

    def test_edge_error_without_a_ray_id_names_none(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(b"<html></html>", 403, {"content-type": "text/html"})
        message = failing(call, config_at(gateway)).body["message"]
        assert message == "403 from Cloudflare's edge, before AI Gateway answered: an empty body"

    def test_log_line_of_an_error_without_a_remedy_ends_with_its_type(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer(b"broken", 500, {"content-type": ""})
        failing(call, config_at(gateway), max_retries=0)
        assert warnings_in(caplog) == ["500 upstream_error"]

    @pytest.mark.parametrize("start", ["<title>", "<", "<title", "< ", "<title></title"])
    def test_page_of_repeated_tags_is_read_in_time_that_grows_with_its_length(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, start: str
    ) -> None:
        gateway.answer = lambda _: Answer(start.encode() * 100_000, 400, {**LOGGED, "content-type": "text/html"})
        began = time.perf_counter()
        failing(call, config_at(gateway))
        assert time.perf_counter() - began < 5  # it took minutes when the time grew with the square

    @pytest.mark.parametrize("body", [b"[" * 100_000, b'{"error":' * 50_000], ids=["lists", "objects"])
    def test_json_error_nested_too_deeply_to_parse_is_treated_as_text(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, body: bytes
    ) -> None:
        gateway.answer = lambda _: Answer(body, 500)
        error = failing(call, config_at(gateway), max_retries=0)
        assert (error.status_code, error.type) == (500, "upstream_error")

    def test_raw_and_streaming_responses_raise_the_gateway_error_too(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str
    ) -> None:
        def opened(client: Any) -> Any:
            manager = chat(client.with_streaming_response)
            return manager.__enter__() if flavour == "sync" else manager.__aenter__()

        gateway.answer = lambda _: Answer(short_form(2009, "Unauthorized"), 401, LOGGED)
        error = failing(call, config_at(gateway), opened)
        assert (error.code, error.type) == ("2009", "ai_gateway_error")
        error = failing(call, config_at(gateway), lambda client: chat(client.with_raw_response))
        assert (error.code, error.type) == ("2009", "ai_gateway_error")


class TestDirect:
    """On the route direct, DeepSeek answers itself, so an error is DeepSeek's whatever it looks like."""

    BODIES = (
        "<title>busy</title>",
        "error code: 1010",
        "Your request was blocked.",
        "",
        '{"title": "x", "status": 500}',
    )

    @pytest.mark.parametrize("body", BODIES)
    def test_text_that_looks_like_the_edges_is_deepseeks(self, gateway: Loopback, body: str) -> None:
        gateway.answer = lambda _: Answer(body.encode(), 500, {"cf-ray": "8f0-FRA", "content-type": "text/html"})
        config = GatewayConfig(route="direct", api_key=KEY, direct_endpoint=gateway.url)
        error = failing(partial(run, "sync"), config, max_retries=0)
        assert error.type == "upstream_error"
        shown = "busy" if "busy" in body else body or "an empty body"
        assert error.body["message"] == f"500 from DeepSeek: {shown}"
        assert error.body["original"] == (json.loads(body) if body.startswith("{") else body)

    def test_remedy_for_a_refused_key_names_no_stored_key(
        self, gateway: Loopback, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer({"error": {"message": "no", "type": "authentication_error"}}, 401)
        failing(partial(run, "sync"), GatewayConfig(route="direct", api_key=KEY, direct_endpoint=gateway.url))
        assert warnings_in(caplog) == ["401 from DeepSeek: check DEEPSEEK_API_KEY"]

    @pytest.mark.parametrize(
        ("route", "whose", "remedy"),
        [
            ("direct", "DeepSeek's", "Check DEEPSEEK_DIRECT_ENDPOINT."),
            ("provider", "The gateway's", "Check DEEPSEEK_GATEWAY_ENDPOINT."),
        ],
    )
    def test_redirect_names_the_address_that_answered(
        self, gateway: Loopback, config_at: ConfigAt, route: str, whose: str, remedy: str
    ) -> None:
        gateway.answer = lambda _: Answer({}, 302, {"location": "/login"})
        error = failing(partial(run, "sync"), config_at(gateway, route=route, direct_endpoint=gateway.url))
        assert error.body["message"] == (
            f"{whose} address answered with a redirect to another path of the same host, which was not followed, "
            f"because your credentials would have gone there. {remedy}"
        )


class TestEnvelopes:
    """The code and the text of a gateway error are read from wherever its envelope has them."""

    @pytest.mark.parametrize(
        ("body", "code", "said"),
        [
            (
                {"success": False, "error": [{"message": "x"}], "internalCode": 2003},
                "2003",
                "the gateway's own rate limit is reached (2003 x); slow down, or raise the limit",
            ),
            ({"success": False, "error": [{"code": 2777}], "message": "Outer"}, "2777", "2777 Outer"),
            ({"success": False, "error": [{"code": 2777}], "description": "Outer"}, "2777", "2777 Outer"),
            ({"name": "AiGatewayError"}, None, "it gave no text"),
        ],
        ids=["outer code", "outer message", "description", "name only"],
    )
    def test_code_and_text_are_found_in_any_envelope(
        self, gateway: Loopback, config_at: ConfigAt, body: Any, code: str | None, said: str
    ) -> None:
        gateway.answer = lambda _: Answer(body, 400, AT_ONCE)
        error = failing(partial(run, "sync"), config_at(gateway))
        assert (error.code, error.body["message"]) == (code, f"400 from AI Gateway, not from DeepSeek: {said}")

    def test_log_line_of_an_unknown_code_ends_with_the_code(
        self, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer(short_form(2777, "Something new"), 400)
        failing(partial(run, "sync"), config_at(gateway))
        assert warnings_in(caplog) == ["400 ai_gateway_error (2777)"]


class TestRedaction:
    """A credential that an error repeats is redacted."""

    def test_token_in_a_page_that_came_in_place_of_a_stream_is_redacted(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(f"<p>{TOKEN}</p>".encode(), headers={"content-type": "text/html"})
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=True))
        assert TOKEN not in str(error) + str(error.body)

    def test_key_in_an_upstream_error_is_redacted(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer(f"bad key {KEY} here".encode(), 500, {"content-type": "text/plain"})
        error = failing(call, config_at(gateway), max_retries=0)
        assert error.body["message"] == "500 from DeepSeek: bad key [redacted] here"
        assert KEY not in caplog.text + str(error.body)

    @pytest.mark.parametrize(("key", "shown"), [("k-345678", "[redacted]"), ("k-34567", "k-34567")])
    def test_key_is_redacted_from_eight_characters_on(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, key: str, shown: str
    ) -> None:
        gateway.answer = lambda _: Answer(f"bad key {key}".encode(), 500, {"content-type": "text/plain"})
        error = failing(call, config_at(gateway, api_key=key), max_retries=0)
        assert error.body["message"] == f"500 from DeepSeek: bad key {shown}"

    @pytest.mark.parametrize("status", [200, 401])
    @pytest.mark.parametrize("stream", [False, True], ids=["body", "first event"])
    def test_key_of_a_copy_in_a_gateway_error_is_redacted(
        self, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, status: int, stream: bool
    ) -> None:
        def answer(request: Received) -> Answer:
            body = short_form(2009, f"bad {dict(request.headers)}")
            return Answer((b"data: " + json.dumps(body).encode() + b"\n\n",)) if stream else Answer(body, status)

        gateway.answer = answer
        with pytest.raises(openai.APIError) as caught:
            run("sync", config_at(gateway), lambda c: chat(c.with_options(api_key="rotated-secret"), stream=stream))
        said = caplog.text + str(caught.value) + str(caught.value.body)
        assert "rotated-secret" not in said
        assert TOKEN not in said
        assert "[redacted]" in said


class TestErrorsInside200:
    """An error in the body of a 200 is raised. A result that only mentions an error is returned."""

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize(
        ("body", "status", "code", "kind"),
        [
            pytest.param(
                {"error": {"message": "busy", "type": "server_error", "code": None}},
                502,
                None,
                "server_error",
                id="no status",
            ),
            pytest.param(
                {"error": {"message": "busy", "code": 429, "param": "n"}},
                429,
                "429",
                "upstream_error",
                id="status as code",
            ),
            pytest.param(
                {"error": {"message": "busy", "code": 1302}}, 502, "1302", "upstream_error", id="code that is no status"
            ),
            pytest.param(
                {"error": {"message": "busy", "code": 399}}, 502, "399", "upstream_error", id="code below the errors"
            ),
            pytest.param({"error": {"message": "busy", "code": 400}}, 400, "400", "upstream_error", id="lowest status"),
            pytest.param(
                {"error": {"message": "busy", "code": 599}}, 599, "599", "upstream_error", id="highest status"
            ),
            pytest.param(
                {"error": {"message": "busy", "code": 600}}, 502, "600", "upstream_error", id="code above the errors"
            ),
            pytest.param(
                {"error": None, "errors": [{"code": 2003, "message": "busy"}]},
                502,
                "2003",
                "ai_gateway_error",
                id="list of errors only",
            ),
            pytest.param({"success": False}, 502, None, "ai_gateway_error", id="no success only"),
            pytest.param(
                {"title": "busy", "status": 524, "error": True}, 502, "524", "edge_error", id="problem JSON of the edge"
            ),
            pytest.param(
                {"error": {"message": "busy", "status": 429, "code": 503}},
                429,
                "503",
                "upstream_error",
                id="status and code",
            ),
            pytest.param(
                long_form(429, 2003, "Rate limited"), 429, "2003", "ai_gateway_error", id="gateway, long form"
            ),
            pytest.param(short_form(2005, "Failed"), 502, "2005", "ai_gateway_error", id="gateway, short form"),
            pytest.param({"error": "plain text"}, 502, None, "upstream_error", id="text"),
        ],
    )
    def test_error_in_a_200_is_raised_with_the_status_in_its_body(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        body: Any,
        status: int,
        code: Any,
        kind: str,
        stream: bool,
    ) -> None:
        gateway.answer = lambda _: Answer(body, 200, LOGGED | AT_ONCE)
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=stream), max_retries=0)
        assert (error.status_code, error.code, error.type) == (status, code, kind)
        reported = body.get("error")
        own = reported if isinstance(reported, dict) else {}
        assert own.get("message", "") in error.body["message"]
        assert error.param == own.get("param")
        assert error.body["original"] == body
        assert error.request_id == LOGGED["cf-aig-log-id"]

    @pytest.mark.parametrize(
        "body",
        [
            {**COMPLETION, "error": None},
            {**COMPLETION, "error": {"message": "a field of an answer"}},
            {"text": "x" * 600, "choices": [], "error": {"message": "a field of an answer"}},
            {"object": "list", "data": [{"error": {"message": "of an item"}}]},
            {"success": True, "errors": [], "result": {}},
        ],
        ids=["null", "next to choices", "next to late choices", "of an item", "empty list"],
    )
    def test_result_that_only_mentions_an_error_passes(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, body: Any
    ) -> None:
        gateway.answer = lambda _: Answer(body)
        assert call(config_at(gateway), lambda client: client.post("/x", cast_to=object, body={})) == body

    def test_failed_response_object_passes_as_a_result(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        failed = {
            "id": "r",
            "object": "response",
            "status": "failed",
            "error": {"code": "x", "message": "y"},
            "output": [],
        }
        gateway.answer = lambda _: Answer(failed)
        response = call(config_at(gateway), lambda client: client.responses.create(model="m", input="x"))
        assert (response.status, response.error.message) == ("failed", "y")

    def test_downloaded_file_that_holds_an_error_passes(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        row = b'{"error": {"message": "row of a batch"}, "id": 1}'
        gateway.answer = lambda _: Answer(row, headers={"content-type": "application/json"})
        assert call(config_at(gateway), lambda client: client.files.content("file-1")).content == row

    def test_gateway_error_in_place_of_a_list_of_models_is_raised(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(short_form(2009, "Unauthorized"))
        error = failing(call, config_at(gateway), lambda client: client.get("/models", cast_to=object))
        assert (error.status_code, error.code) == (502, "2009")

    def test_streamed_download_that_holds_errors_passes(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(b'{"error": 1}\n{"error": 2}\n', headers={"content-type": "application/json"})

        def use(client: Any) -> Any:
            with client.files.with_streaming_response.content("file-1") as response:
                return response.read()

        assert run("sync", config_at(gateway), use).count(b"error") == 2

    @pytest.mark.parametrize(
        ("body", "worth"),
        [
            pytest.param(b'{"error": {"message": "no"}}', True, id="error"),
            pytest.param(b'{"success":false}', True, id="no success"),
            pytest.param(
                b'{"success": true, "result": {"choices": []}, "error": [{}]}', True, id="choices of an inner object"
            ),
            pytest.param(b'{"id": "", "detail": {}, "choices": [], "error": {}}', True, id="object before choices"),
            pytest.param(
                b'{"id": "x", "text": "%s", "choices": [], "error": {}}' % (b"x" * 600), True, id="choices late"
            ),
            pytest.param(
                b'{"id": "x", "choices": [{"logprobs": {"error": 1}}], "success": null}', False, id="choices first"
            ),
            pytest.param(b'{"choices":[{"choices":[]}],"error":{}}', False, id="choices in choices"),
            pytest.param(b'{"object": "list", "data": []}', False, id="list"),
            pytest.param(json.dumps(COMPLETION).encode(), False, id="completion"),
            pytest.param(b"", False, id="empty body"),
        ],
    )
    def test_body_with_choices_at_the_top_level_is_not_searched_for_an_error(self, body: bytes, worth: bool) -> None:
        assert may_hold_a_fault(body) is worth


class TestRequestId:
    """The request id is the gateway's log id, else DeepSeek's trace id, else the ray id of Cloudflare's edge."""

    HEADERS: dict[str, tuple[dict[str, str], str | None]] = {
        "upstream's own and log id": ({"x-request-id": "own", "cf-aig-log-id": "log"}, "log"),
        "upstream's own": ({"x-request-id": "own"}, "own"),
        "all ids": ({"cf-aig-log-id": "log", "x-ds-trace-id": "trace", "cf-ray": "ray"}, "log"),
        "trace id and ray id": ({"x-ds-trace-id": "trace", "cf-ray": "ray"}, "trace"),
        "ray id": ({"cf-ray": "ray"}, "ray"),
        "no id": ({}, None),
    }

    @pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
    def test_result_and_error_have_the_first_id_that_is_known(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, headers: dict[str, str], expected: str | None
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, 200, headers)
        upstreams = headers.get("x-request-id", expected)  # on a result, the upstream's own id stays
        assert getattr(call(config_at(gateway), chat), "_request_id") == upstreams  # noqa: B009  # the SDK documents this attribute
        gateway.answer = lambda _: Answer({"error": {"message": "no"}}, 400, headers)
        assert failing(call, config_at(gateway)).request_id == expected


def test_result_after_leading_blank_lines_is_parsed(call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
    gateway.answer = lambda _: Answer(
        b"\n\n\n" + json.dumps(COMPLETION).encode(), headers={"content-type": "application/json"}
    )
    assert call(config_at(gateway), chat).choices[0].message.content == "Hello."


class TestHeaders:
    """The headers of a response fit the body that the SDK is given."""

    COMPRESSED = {"content-encoding": "gzip", "content-type": "text/html", "x-other": "1"}

    @pytest.mark.parametrize(
        ("status", "retry"), [(500, None), (401, None), (400, "true")], ids=["server error", "key", "code to retry"]
    )
    @pytest.mark.parametrize("sent", ["plain", "compressed", "in pieces"])
    def test_headers_of_an_explained_error_describe_its_own_body(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, status: int, retry: str | None, sent: str
    ) -> None:
        body = to_bytes(long_form(400, 2005, "x") if retry else "text")
        headers = {"content-type": "text/html", "x-other": "1"} | ({"x-should-retry": "false"} if retry else {})
        if sent == "compressed":
            body, headers = gzip.compress(body), headers | self.COMPRESSED
        gateway.answer = lambda _: Answer((body,) if sent == "in pieces" else body, status, headers)
        response = failing(call, config_at(gateway), max_retries=0).response
        assert response.headers.get_list("content-type") == ["application/json"]
        assert response.headers.get_list("content-length") == [str(len(response.content))]
        assert not {"content-encoding", "transfer-encoding"} & response.headers.keys()
        assert (response.headers["x-other"], response.headers.get("x-should-retry")) == ("1", retry)
        assert response.http_version == "HTTP/1.1"

    def test_compressed_answer_that_the_caller_reads_is_given_uncompressed(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        headers = self.COMPRESSED | {"content-type": "application/json"}
        gateway.answer = lambda _: Answer(gzip.compress(json.dumps(COMPLETION).encode()), headers=headers)
        with create_client(config_at(gateway)) as client, chat(client.with_streaming_response) as response:
            assert not {"content-encoding", "content-length"} & response.headers.keys()
            assert (response.headers["content-type"], response.headers["x-other"]) == ("application/json", "1")
            assert response.http_response.extensions["http_version"] == b"HTTP/1.1"
            assert json.loads(response.read()) == COMPLETION

    @pytest.mark.parametrize(
        ("path", "asked", "kind"),
        [
            ("/other", b'{"stream": true}', "text/event-stream"),
            ("/chat/completions", b'{"stream": false}', "application/octet-stream"),
        ],
        ids=["event stream of another endpoint", "no stream"],
    )
    def test_body_of_no_chat_stream_needs_no_end_mark(
        self, gateway: Loopback, config_at: ConfigAt, path: str, asked: bytes, kind: str
    ) -> None:
        gateway.answer = lambda _: Answer(b"data: 1\n\n", headers={"content-type": kind})
        config = config_at(gateway)
        with create_client(config) as client:
            http_client = client._client  # noqa: SLF001  # the SDK has no such call
            with http_client.stream("POST", config.base_url + path, content=asked) as response:
                assert response.read() == b"data: 1\n\n"

    def test_stream_for_a_request_without_timeouts_is_closed_after_its_end(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        httpx: Any = import_module(openai.DefaultHttpxClient.__base__.__module__)  # type: ignore[union-attr]
        gateway.answer = lambda _: Answer((DONE,), ending="stall")
        config = config_at(gateway)
        with create_client(config) as client:
            request = httpx.Request("POST", config.base_url + "/chat/completions", json={"stream": True})
            response = client._client.send(request, stream=True)  # noqa: SLF001  # the SDK gives every request timeouts
            assert next(response.iter_lines()) == "data: [DONE]"
            response.close()
