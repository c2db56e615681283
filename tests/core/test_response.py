"""What comes back reads as an OpenAI user expects: errors, retries, streams; over real sockets, for every flavour."""

from __future__ import annotations

import gzip
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import (
    ANSWERED,
    AT_ONCE,
    DELTA,
    DONE,
    LOGGED,
    RESPONSE,
    SPENT,
    collect,
    event,
    failing,
    long_form,
    policy_form,
    response_event,
    responses_streamed,
    rest_form,
    short_form,
    streamed,
    to_bytes,
)
from calling import KEY, TOKEN, chat, run
from loopback import COMPLETION, Answer, Loopback, Received, completion, serve

from deepseek_gateway import gateway_headers
from deepseek_gateway._codes import CODES, DEEPSEEK, EDGE
from deepseek_gateway._response import may_hold_a_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from deepseek_gateway import GatewayConfig

    Call = Callable[..., Any]
    ConfigAt = Callable[..., GatewayConfig]

# status, body -> type, code, what the message says, how many requests with one retry allowed
GATEWAY_ERRORS = [
    (400, long_form(400, 2001, "Please configure AI Gateway"), "2001", "check CLOUDFLARE_AI_GATEWAY_ID", 1),
    (
        429,
        long_form(429, 2003, "Rate limited"),
        "2003",
        "the gateway's own rate limit is reached (2003 Rate limited)",
        2,
    ),
    (400, long_form(400, 2005, "Failed to get response from provider"), "2005", "check that the model 'deepseek", 2),
    (400, long_form(400, 2008, "Invalid provider"), "2008", "the gateway knows no such provider", 1),
    (401, short_form(2009, "Unauthorized"), "2009", "asks for authentication (2009 Unauthorized); the token in", 1),
    (424, long_form(424, 2016, "Prompt blocked due to security configurations"), "2016", "blocked the prompt", 1),
    (424, long_form(424, 2017, "Response blocked due to security configurations"), "2017", "blocked the response", 1),
    (429, short_form(2018, "Wholesale limit"), "2018", "requests that Cloudflare pays for", 2),
    (400, long_form(400, 2019, "Chat completion bad format"), "2019", "(2019 Chat completion bad format)", 1),
    (402, long_form(402, 2021, "Insufficient wholesale credits."), "2021", "set DEEPSEEK_API_KEY", 1),
    (424, long_form(424, 2029, "Request content blocked due to DLP policy violations"), "2029", "the prompt", 1),
    (424, long_form(424, 2030, "Response content blocked due to DLP policy violations"), "2030", "the response", 1),
    (400, long_form(400, 2040, "no BYOK credential named 'x'. Configured aliases: 'y'"), "2040", "aliases: 'y'", 1),
    (429, long_form(429, 2041, SPENT), "2041", "a spend limit of this gateway is reached", 1),
    (429, long_form(429, 2045, SPENT), "2045", SPENT, 1),
    (404, rest_form(7000, "No route for that URI"), "7000", "nothing at this address", 1),
    (405, rest_form(7001, "GET not supported for requested URI."), "7001", "GET not supported", 1),
    (404, rest_form(7003, "Model not found: x"), "7003", "Model not found: x", 1),
    (503, long_form(503, 7013, ""), "7013", "scanner is not available (7013)", 2),
    (401, rest_form(10000, "Authentication error"), "10000", "needs Workers AI Read", 1),
    (403, policy_form("Access denied by policy"), None, "an identity policy of this gateway denies this call", 1),
    (429, policy_form("Spending limit exceeded", spent=1000.4, limit=1000), None, "a spend limit of this gateway", 1),
    (429, short_form(2099, SPENT), "2099", "a spend limit of this gateway is reached (2099 Spend limit", 1),
    (418, long_form(418, 2777, "Something of next quarter"), "2777", "not from DeepSeek: 2777 Something of next", 1),
    (500, long_form(500, 2778, "Something of next quarter"), "2778", "2778 Something of next quarter", 2),
    (400, {"success": False}, None, "it gave no text", 1),
    (400, {"success": False, "error": "just text"}, None, "just text", 1),
    (400, {"success": False, "error": [None], "errors": []}, None, "400 from AI Gateway", 1),
    (400, {"success": False, "error": []}, None, "400 from AI Gateway", 1),
]
EDGE_ERRORS = [
    (
        403,
        "error code: 1010",
        "1010",
        "it takes this program for a bot; error code: 1010; cf-ray 8f0-FRA; change its",
        1,
    ),
    (502, "<html><head><title>502 Bad\n gateway</title></head><p>x</p></html>", "502", "502 Bad gateway; cf-ray", 2),
    (520, "<!DOCTYPE html><body>Web server <b>is</b> returning</body>", "520", "Web server is returning", 2),
    (
        524,
        {"type": "x", "title": "A timeout occurred", "status": 524, "detail": "d"},
        "524",
        "A timeout occurred: d",
        2,
    ),
    (503, "", "503", "try again later", 2),
    (403, "<html></html>", "403", "an empty body", 1),
]
UPSTREAM_ERRORS = [
    (401, "Authentication Fails (governor)", "Authentication Fails (governor); check DEEPSEEK_API_KEY", 1),
    (422, "Failed to deserialize the JSON body: missing field `messages`", "missing field `messages`", 1),
    (502, "<html><title>502 from a proxy</title></html>", "502 from a proxy", 2),
    (500, "", "an empty body", 2),
    (500, "[1, 2]", "[1, 2]", 2),
    (500, '{"detail": "Not Found"}', "Not Found", 2),
    (500, '{"error": "overloaded"}', "overloaded", 2),
    (500, '{"strange": 1}', '{"strange": 1}', 2),
    (500, "x" * 5000, "x" * 300 + "…", 2),
]
CLASSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
    503: openai.InternalServerError,
}


class TestErrors:
    """Errors of the gateway, the edge and plain-text upstreams are the SDK's exception of their status."""

    @pytest.mark.parametrize(("status", "body", "code", "said", "requests"), GATEWAY_ERRORS)
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_the_gateways_own(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        status: int,
        body: Any,
        code: str | None,
        said: str,
        requests: int,
        stream: bool,
    ) -> None:
        gateway.answer = lambda _: Answer(body, status, LOGGED | AT_ONCE)
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=stream))
        assert type(error) is CLASSES.get(
            status, openai.InternalServerError if status >= 500 else openai.APIStatusError
        )
        assert (error.status_code, error.type, error.code) == (status, "ai_gateway_error", code)
        assert f"{status} from AI Gateway, not from DeepSeek: " in error.message
        assert said in error.body["message"]
        assert said in str(error) or "'" in said  # old SDKs print the repr of the body
        assert error.request_id == LOGGED["cf-aig-log-id"]
        assert error.body["original"] == body
        assert len(gateway.received) == requests

    @pytest.mark.parametrize(("status", "body", "code", "said", "requests"), EDGE_ERRORS)
    def test_the_edges(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        status: int,
        body: Any,
        code: str,
        said: str,
        requests: int,
    ) -> None:
        headers = {"cf-ray": "8f0-FRA", "server": "cloudflare", "content-type": "text/html"} | AT_ONCE
        gateway.answer = lambda _: Answer(to_bytes(body), status, headers)
        error = failing(call, config_at(gateway))
        assert (error.status_code, error.type, error.code) == (status, "edge_error", code)
        assert f"{status} from Cloudflare's edge, before AI Gateway answered: " in error.message
        assert said in error.body["message"]
        assert error.request_id == "8f0-FRA"
        assert error.body["original"] == body
        assert len(gateway.received) == requests

    @pytest.mark.parametrize(("status", "body", "said", "requests"), UPSTREAM_ERRORS)
    def test_a_plain_text_upstreams(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, status: int, body: str, said: str, requests: int
    ) -> None:
        gateway.answer = lambda _: Answer(to_bytes(body), status, {**LOGGED, "content-type": "", **AT_ONCE})
        error = failing(call, config_at(gateway))
        assert (error.status_code, error.type, error.code) == (status, "upstream_error", None)
        assert error.body["message"].startswith(f"{status} from DeepSeek: ")
        assert said in error.body["message"]
        assert len(gateway.received) == requests

    DEEPSEEK = [
        (400, "The supported API model names are deepseek-flash, but you passed x.", "invalid_request_error"),
        (400, "Thinking mode does not support this tool_choice", "invalid_request_error"),
        (400, "The `reasoning_content` in the thinking mode must be passed back to the API.", "invalid_request_error"),
        (400, "This response_format type is unavailable now", "invalid_request_error"),
        (400, "This model's maximum context length is 1048565 tokens.", "invalid_request_error"),
        (400, "Content Exists Risk", "invalid_request_error"),
        (400, "messages[0].role: unknown variant `developer`, expected one of", "invalid_request_error"),
        (401, "Authentication Fails, Your api key: ****-key is invalid", "authentication_error"),
        (402, "Insufficient Balance", "unknown_error"),
        (429, "Too many requests. Your current concurrency is 26", "rate_limit_error"),
        (503, "Service is too busy.", "service_unavailable_error"),
        (500, "", ""),
    ]

    @pytest.mark.parametrize(("status", "text", "kind"), DEEPSEEK)
    def test_deepseeks_own_pass_byte_for_byte_and_the_remedy_goes_to_the_log(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        flavour: str,
        status: int,
        text: str,
        kind: str,
    ) -> None:
        body = json.dumps({"error": {"message": text, "type": kind, "param": None, "code": "invalid_request_error"}})
        gateway.answer = lambda _: Answer(body.encode(), status, {"content-type": "application/octet-stream"})
        error = failing(call, config_at(gateway), max_retries=0)
        if flavour == "sync":
            with pytest.raises(openai.APIStatusError) as caught:
                chat(openai.OpenAI(api_key="key", base_url=gateway.url, max_retries=0))
            assert (str(error), error.body, error.code, error.type) == (
                str(caught.value),
                caught.value.body,
                caught.value.code,
                caught.value.type,
            )
        assert error.response.content == body.encode()
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        remedies = [row[2] for row in DEEPSEEK if row[0] == status and row[1] in text.lower()]
        assert len(warnings) == len(remedies) == (status != 500)
        assert all(remedy in line for remedy, line in zip(remedies, warnings, strict=True) if isinstance(remedy, str))
        assert all(line.startswith(f"{status} from DeepSeek: ") and "****" not in line for line in warnings)

    @pytest.mark.parametrize(
        ("settings", "extra", "body", "said"),
        [
            (
                {"gateway_token": None},
                {},
                short_form(2009, "Unauthorized"),
                "set CF_AIG_TOKEN to a token with AI Gateway Run",
            ),
            ({}, {}, short_form(2009, "Unauthorized"), "the token in CF_AIG_TOKEN was sent"),
            ({"route": "compat"}, {}, short_form(2008, "Invalid provider"), "the model 'deepseek/deepseek-flash'"),
            ({"route": "rest"}, {}, short_form(2008, "Invalid provider"), "the model 'deepseek/deepseek-flash'"),
            ({}, {}, short_form(2008, "Invalid provider"), "DEEPSEEK_GATEWAY_ENDPOINT ends before /deepseek"),
            (
                {"route": "compat"},
                {"model": "dynamic/x"},
                short_form(2005, "Failed"),
                "the dynamic route 'dynamic/x' exists",
            ),
            ({"api_key": None}, {}, "Authentication Fails (governor)", "no key was sent; store one"),
            (
                {"api_key": None},
                {"extra_headers": {"Authorization": "Bearer x"}},
                "Fails",
                "an Authorization header was sent",
            ),
            ({"route": "compat"}, {"model": "openai/gpt-5"}, "Fails", "401 from the provider behind AI Gateway: Fails"),
            (
                {"route": "rest"},
                {},
                rest_form(10000, "Authentication error"),
                "it needs Workers AI Read",
            ),
        ],
    )
    def test_a_remedy_uses_what_was_sent(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, settings: Any, extra: Any, body: Any, said: str
    ) -> None:
        gateway.answer = lambda _: Answer(to_bytes(body), 401, LOGGED)
        error = failing(call, config_at(gateway, **settings), lambda client: chat(client, **extra), max_retries=0)
        assert said in error.body["message"]

    def test_a_stored_key_that_an_authorization_header_defeats_is_told_in_the_log(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = {"error": {"message": "Your api key: ****ured is invalid", "type": "authentication_error", "code": "x"}}
        gateway.answer = lambda _: Answer(body, 401)
        failing(call, config_at(gateway, api_key=None), lambda client: chat(client.with_options(api_key="x")))
        assert "an Authorization header was sent, which keeps Cloudflare from adding the stored key" in caplog.text

    def test_deepseeks_remedies_are_not_given_for_another_provider(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer({"error": {"message": "Incorrect API key", "type": "t"}}, 401)
        failing(call, config_at(gateway, route="compat"), lambda client: chat(client, model="openai/gpt-5"))
        assert "DeepSeek" not in caplog.text

    def test_a_secret_in_place_of_a_stream_is_taken_out(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(f"<p>{TOKEN}</p>".encode(), headers={"content-type": "text/html"})
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=True))
        assert TOKEN not in str(error) + str(error.body)

    def test_a_secret_that_an_error_repeats_is_taken_out(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer(f"bad key {KEY} here".encode(), 500, {"content-type": "text/plain"})
        error = failing(call, config_at(gateway), max_retries=0)
        assert error.body["message"] == "500 from DeepSeek: bad key [redacted] here"
        assert KEY not in caplog.text + str(error.body)

    @pytest.mark.parametrize("status", [200, 401])
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "first event"])
    def test_so_is_one_that_was_given_per_call_wherever_the_error_stands(
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

    def test_json_nested_too_deeply_is_a_text(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        for status, body in ((500, b"[" * 100_000), (500, b'{"error":' * 50_000)):
            gateway.answer = lambda _, status=status, body=body: Answer(body, status)
            error = failing(call, config_at(gateway), max_retries=0)
            assert (error.status_code, error.type) == (status, "upstream_error")

    def test_raw_and_streamed_raw_responses_raise_the_same(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str
    ) -> None:
        def opened(client: Any) -> Any:
            manager = chat(client.with_streaming_response)
            return manager.__enter__() if flavour == "sync" else manager.__aenter__()

        gateway.answer = lambda _: Answer(short_form(2009, "Unauthorized"), 401, LOGGED)
        error = failing(call, config_at(gateway), opened)
        assert (error.code, error.type) == ("2009", "ai_gateway_error")
        error = failing(
            call,
            config_at(gateway),
            lambda client: chat(client.chat.completions.with_raw_response and client.with_raw_response),
        )
        assert (error.code, error.type) == ("2009", "ai_gateway_error")

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    @pytest.mark.parametrize(
        ("body", "status", "code", "kind"),
        [
            ({"error": {"message": "busy", "type": "server_error", "code": None}}, 502, None, "server_error"),
            ({"error": {"message": "busy", "code": 429}}, 429, "429", "upstream_error"),
            ({"error": {"message": "busy", "status": 429, "code": 503}}, 429, "503", "upstream_error"),
            (long_form(429, 2003, "Rate limited"), 429, "2003", "ai_gateway_error"),
            (short_form(2005, "Failed"), 502, "2005", "ai_gateway_error"),
            ({"error": "plain text"}, 502, None, "upstream_error"),
        ],
    )
    def test_a_200_that_holds_an_error_becomes_it(
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
        assert error.body["original"] == body
        assert error.request_id == LOGGED["cf-aig-log-id"]

    @pytest.mark.parametrize(
        "body",
        [
            {**COMPLETION, "error": None},
            {**COMPLETION, "error": {"message": "a field of an answer"}},
            {"object": "list", "data": [{"error": {"message": "of an item"}}]},
            {"success": True, "errors": [], "result": {}},
        ],
    )
    def test_an_answer_that_only_mentions_an_error_passes(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, body: Any
    ) -> None:
        gateway.answer = lambda _: Answer(body)
        assert call(config_at(gateway), lambda client: client.post("/x", cast_to=object, body={})) == body

    def test_a_response_object_tells_of_its_own_failure(
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

    def test_every_row_of_the_tables_is_tried_above(self) -> None:
        assert {row[2] for row in GATEWAY_ERRORS} >= set(CODES)
        assert {row[2] for row in EDGE_ERRORS} >= set(EDGE)
        assert all(
            any(s == status and part in text.lower() for s, text, _ in self.DEEPSEEK) for status, part, _ in DEEPSEEK
        )


class TestRequestId:
    """`.request_id` and `_request_id` are the gateway's log id, else DeepSeek's trace id, else the edge's ray id."""

    HEADERS = [
        ({"x-request-id": "own", "cf-aig-log-id": "log"}, "log"),
        ({"x-request-id": "own"}, "own"),
        ({"cf-aig-log-id": "log", "x-ds-trace-id": "trace", "cf-ray": "ray"}, "log"),
        ({"x-ds-trace-id": "trace", "cf-ray": "ray"}, "trace"),
        ({"cf-ray": "ray"}, "ray"),
        ({}, None),
    ]

    @pytest.mark.parametrize(("headers", "expected"), HEADERS)
    def test_of_an_answer_and_of_an_error(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, headers: dict[str, str], expected: str | None
    ) -> None:
        gateway.answer = lambda _: Answer(COMPLETION, 200, headers)
        upstreams = headers.get("x-request-id", expected)  # of an answer, the upstream's own stays
        assert getattr(call(config_at(gateway), chat), "_request_id") == upstreams  # noqa: B009  # public despite its name
        gateway.answer = lambda _: Answer({"error": {"message": "no"}}, 400, headers)
        assert failing(call, config_at(gateway)).request_id == expected


class TestRetries:
    """The SDK does not multiply what the gateway was asked to try itself."""

    FIVE_TRIES = gateway_headers(max_attempts=5)

    @pytest.mark.parametrize(
        ("status", "body", "alone", "after_the_gateways"),
        [
            (400, long_form(400, 2005, "Failed to get response from provider"), 3, 1),
            (503, {"error": {"message": "busy", "type": "service_unavailable_error"}}, 3, 1),
            (429, {"error": {"message": "too many", "type": "rate_limit_error"}}, 3, 1),
            (500, "plain text", 3, 1),
            (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, 1, 1),
            (429, long_form(429, 2003, "Rate limited"), 3, 3),
            (502, "<html><title>edge</title></html>", 3, 3),
            (429, long_form(429, 2045, SPENT), 1, 1),
            (503, long_form(503, 7013, ""), 3, 3),
            (408, {"error": {"message": "slow", "type": "timeout"}}, 3, 1),
        ],
    )
    def test_how_often_is_asked(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        status: int,
        body: Any,
        alone: int,
        after_the_gateways: int,
    ) -> None:
        gateway.answer = lambda _: Answer(to_bytes(body), status, AT_ONCE)
        for headers, expected in (
            ({}, alone),
            (self.FIVE_TRIES, after_the_gateways),
            (gateway_headers(max_attempts=1), alone),
        ):
            gateway.received.clear()
            failing(call, config_at(gateway), lambda client, h=headers: chat(client, extra_headers=h), max_retries=2)
            assert len(gateway.received) == expected

    def test_what_the_upstream_advises_does_not_undo_that(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        busy = {"error": {"message": "busy", "type": "service_unavailable_error"}}
        gateway.answer = lambda _: Answer(busy, 503, AT_ONCE | {"x-should-retry": "true"})
        failing(call, config_at(gateway), lambda client: chat(client, extra_headers=self.FIVE_TRIES))
        assert len(gateway.received) == 1

    def test_a_connection_failure_is_tried_again_all_the_same(self, config_at: ConfigAt, flavour: str) -> None:
        with serve() as server:
            config = config_at(server)
            server.answer = lambda _: Answer((), ending="broken", headers={"content-type": "application/json"})
            with pytest.raises(openai.APIConnectionError):
                run(flavour, config, lambda client: chat(client, extra_headers=self.FIVE_TRIES), max_retries=1)
            assert len(server.received) == 2


class TestStreams:
    """A stream is whole or raises; nothing that was delivered is lost or repeated."""

    WHOLE = [
        (b"".join([event("a"), event("b"), DONE]),),
        (event("a"), event("b"), DONE),
        (event("a"), event("b"), b"data: [D", b"ONE]\n\n"),
        (event("a"), event("b"), b"data: [DONE]"),
        (event("a"), event("b"), b"data:[DONE]\n\n"),
        (b": keep-alive\n\n", b"\n\n", event("a"), b": keep-alive\n\n", event("b"), DONE, b": bye\n\n" * 99),
        (event("a").replace(b"\n", b"\r\n"), event("b").replace(b"\n", b"\r\n"), b"data: [DONE]\r\n\r\n"),
        tuple(bytes([byte]) for byte in event("a") + event("b") + DONE),
    ]

    @pytest.mark.parametrize("pieces", WHOLE, ids=range(len(WHOLE)))
    @pytest.mark.parametrize("ending", ["clean", "broken"])
    def test_a_whole_one_passes_however_it_is_cut_into_pieces(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any, ending: str
    ) -> None:
        gateway.answer = lambda _: Answer(pieces, ending=ending)
        got = collect(flavour, config_at(gateway), streamed)
        assert got.error is None
        assert [chunk.choices[0].delta.content for chunk in got] == ["a", "b"]

    def test_nothing_matters_after_the_end(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer((event("a"), DONE), ending="stall")
        got = collect(flavour, config_at(gateway), streamed, timeout=0.2)
        assert (got.error, len(got)) == (None, 1)

    CUT = [
        (),
        (b": keep-alive\n\n",),
        (event("a"),),
        (event("a"), event("data: [DONE]")),
        (event("a"), event("x"), b"data: [DON"),
        (event("a"), event("x")[:-20]),
    ]

    @pytest.mark.parametrize("pieces", CUT, ids=range(len(CUT)))
    @pytest.mark.parametrize("ending", ["clean", "broken"])
    def test_a_cut_one_raises_and_says_how_much_arrived(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any, ending: str
    ) -> None:
        gateway.answer = lambda _: Answer(pieces, ending=ending)
        got = collect(flavour, config_at(gateway), streamed, max_retries=0)
        size = len(b"".join(pieces))
        assert type(got.error) is openai.APIConnectionError, got.error
        assert f"before [DONE], after {size:,} bytes; what came until then was delivered" in str(got.error)
        assert [chunk.choices[0].delta.content for chunk in got][:1] == (["a"] if event("a") in pieces else [])
        assert got.error.request.headers["authorization"] == "[redacted]"
        assert len(gateway.received) == 1

    @pytest.mark.parametrize("split", [None, 7, 1000], ids=["by event", "7 bytes", "1000 bytes"])
    @pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
    def test_a_stream_of_responses_ends_with_its_terminal_event(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, split: int | None, kind: str
    ) -> None:
        whole = b"".join(ANSWERED).replace(b"response.completed", f"response.{kind}".encode())
        pieces = (*ANSWERED[:2], whole[len(b"".join(ANSWERED[:2])) :])
        if split:
            pieces = tuple(whole[start : start + split] for start in range(0, len(whole), split))
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert got.error is None
        assert [item.type for item in got] == ["response.created", "response.output_text.delta", f"response.{kind}"]

    def test_a_terminal_event_is_known_by_its_type_alone(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        whole = (
            b'data: {"sequence_number":3,"type":"response.completed","response":%s}\n\n' % json.dumps(RESPONSE).encode()
        )
        gateway.answer = lambda _: Answer((whole,))
        assert collect(flavour, config_at(gateway), responses_streamed).error is None

    @pytest.mark.parametrize(
        "pieces",
        [
            ANSWERED[:2],
            (*ANSWERED[:2], ANSWERED[2][:40]),
            (*ANSWERED[:2], ANSWERED[2][:-2]),
            (response_event("response.output_text.delta", **(DELTA | {"delta": "\nevent: response.completed\n"})),),
        ],
        ids=["no terminal event", "cut in its first line", "cut in its data", "only quoted"],
    )
    def test_a_stream_of_responses_that_is_cut_raises(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert type(got.error) is openai.APIConnectionError
        assert "before its last event" in str(got.error)

    def test_a_stalled_one_raises_a_timeout(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer((event("a"),), ending="stall")
        got = collect(flavour, config_at(gateway), streamed, timeout=0.2, max_retries=0)
        assert type(got.error) is openai.APITimeoutError
        assert "The stream stalled before [DONE], after" in str(got.error)
        assert len(got) == 1

    def test_a_compressed_one_is_looked_at_in_plain(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
        for body, whole in ((event("a") + DONE, True), (event("a"), False)):
            gateway.answer = lambda _, body=body: Answer((gzip.compress(body),), headers=headers)
            got = collect(flavour, config_at(gateway), streamed)
            assert [chunk.choices[0].delta.content for chunk in got] == ["a"]
            assert (got.error is None) == whole

    FIRST = b"data: " + json.dumps(long_form(429, 2003, "Rate limited")).encode()

    @pytest.mark.parametrize(
        "pieces",
        [
            (FIRST + b"\n\n",),
            (b": keep-alive\n\n" + FIRST + b"\n\n",),
            (b": keep", b"-alive\n\n" + FIRST + b"\n\n"),
            (FIRST[:20], FIRST[20:] + b"\n\n", DONE),
            (b"event: error\nid: 1\n" + FIRST + b"\r\n\r\n",),
            (FIRST,),
            tuple(bytes([byte]) for byte in FIRST + b"\n\n"),
        ],
        ids=["whole", "after filler", "in filler", "cut", "with fields", "unended", "byte by byte"],
    )
    def test_a_gateway_error_as_first_event_has_its_code(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, pieces: Any
    ) -> None:
        gateway.answer = lambda _: Answer(pieces)
        got = collect(flavour, config_at(gateway), streamed)
        assert "429 ai_gateway_error (2003): the gateway's own rate limit is reached" in caplog.text
        assert (got, got.error.code, got.error.type) == ([], "2003", "ai_gateway_error")
        assert "429 from AI Gateway, not from DeepSeek: the gateway's own rate limit" in str(got.error)

    def test_a_later_error_is_as_the_sdk_reports_it(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        later = b'data: {"error": {"message": "gone wrong", "code": "x"}}\n\n'
        gateway.answer = lambda _: Answer((event("a"), later))
        got = collect(flavour, config_at(gateway), streamed)
        assert [chunk.choices[0].delta.content for chunk in got] == ["a"]
        assert (type(got.error), got.error.message, got.error.code) == (openai.APIError, "gone wrong", "x")

    def test_closing_early_closes_the_connection_and_raises_nothing(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, flavour: str
    ) -> None:
        gateway.answer = lambda _: Answer((event("a"), event("b")), ending="stall")

        def use(client: Any) -> Any:
            if flavour == "sync":
                with streamed(client) as stream:
                    return next(iter(stream)).choices[0].delta.content

            async def main() -> Any:
                async with await streamed(client) as stream:
                    return (await stream.__anext__()).choices[0].delta.content

            return main()

        assert call(config_at(gateway), use) == "a"
        gateway.ended.set()
        assert gateway.until(lambda: gateway.open_connections == 0)


TOOL = {"id": "call_00_x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
FULL = {
    **COMPLETION,
    "system_fingerprint": "fp",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Hello.",
                "reasoning_content": "Hm.",
                "tool_calls": [{"index": 0, **TOOL}],
            },
            "logprobs": None,
            "finish_reason": "tool_calls",
        },
        {
            "index": 1,
            "message": {"role": "assistant", "content": "Other."},
            "logprobs": None,
            "finish_reason": "length",
        },
    ],
}


class TestJsonInPlaceOfAStream:
    """Guardrails make the gateway answer a stream with one JSON body (features/guardrails/usage-considerations)."""

    def test_a_completion_becomes_its_chunks(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(FULL, headers=LOGGED)
        got = collect(flavour, config_at(gateway), streamed)
        assert got.error is None
        assert {(chunk.id, chunk.object, chunk.model, chunk.system_fingerprint) for chunk in got} == {
            (FULL["id"], "chat.completion.chunk", "deepseek-flash", "fp")
        }
        deltas = [(chunk.choices[0].index, chunk.choices[0].delta.model_dump(exclude_unset=True)) for chunk in got]
        assert deltas == [
            (0, {"role": "assistant"}),
            (0, {"reasoning_content": "Hm."}),
            (0, {"content": "Hello."}),
            (0, {"tool_calls": [{"index": 0, **TOOL}]}),
            (1, {"role": "assistant"}),
            (1, {"content": "Other."}),
        ]
        assert [chunk.choices[0].finish_reason for chunk in got] == [None, None, None, "tool_calls", None, "length"]
        assert [chunk.usage and chunk.usage.total_tokens for chunk in got] == [None] * 5 + [5]

    def test_so_it_does_through_the_stream_helper(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer({**FULL, "choices": FULL["choices"][:1]})

        def use(client: Any) -> Any:
            resource = (
                client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
            )
            with resource.stream(model="deepseek-flash", messages=[]) as stream:
                return stream.get_final_completion()

        final = run("sync", config_at(gateway), use).choices[0]
        assert (final.message.content, final.finish_reason) == ("Hello.", "tool_calls")
        assert final.message.tool_calls[0].function.arguments == '{"a": 1}'

    def test_a_response_becomes_its_events(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        text = {"type": "output_text", "text": "Hello.", "annotations": []}
        output = [
            {"id": "rs", "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": [text]},
            {
                "id": "fc",
                "type": "function_call",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "status": "completed",
            },
        ]
        answer = {**RESPONSE, "output": output, "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}
        gateway.answer = lambda _: Answer(answer)
        got = collect(flavour, config_at(gateway), responses_streamed)
        assert got.error is None
        part = ["content_part.added", "{}.delta", "{}.done", "content_part.done"]
        assert [item.type.removeprefix("response.") for item in got] == [
            "created",
            "in_progress",
            "output_item.added",
            *(name.format("reasoning_text") for name in part),
            "output_item.done",
            "output_item.added",
            *(name.format("output_text") for name in part),
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
        assert [item.sequence_number for item in got] == list(range(len(got)))
        last = got[-1].response
        assert (last if isinstance(last, dict) else last.model_dump(exclude_unset=True))["usage"] == answer["usage"]

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"<html>portal</html>", "text/html"),
            (b'{"hello": 1}', "application/json"),
            (b"[]", "application/json"),
            (b"", "application/json"),
        ],
    )
    def test_what_is_no_answer_raises(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, body: bytes, kind: str
    ) -> None:
        gateway.answer = lambda _: Answer(body, headers={"content-type": kind})
        error = failing(call, config_at(gateway), streamed)
        assert (error.status_code, error.type) == (502, "upstream_error")
        assert f"200 came with {kind} in place of a stream" in error.body["message"]
        assert len(gateway.received) == 1

    @pytest.mark.parametrize("kind", ["text/plain", "", "application/octet-stream"])
    def test_what_has_no_name_is_read_as_a_stream(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt, kind: str
    ) -> None:
        for body, contents, whole in ((b"hello", [], False), (event("a") + DONE, ["a"], True)):
            gateway.answer = lambda _, body=body: Answer((body,), headers={"content-type": kind})
            got = collect(flavour, config_at(gateway), streamed)
            assert [chunk.choices[0].delta.content for chunk in got] == contents
            assert (got.error is None) == whole

    def test_a_plain_completion_becomes_one_chunk(self, flavour: str, gateway: Loopback, config_at: ConfigAt) -> None:
        answer = {
            "id": "x",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": [{"text": "Hi", "index": 0, "finish_reason": "stop", "logprobs": None}],
        }
        gateway.answer = lambda _: Answer(answer)
        got = collect(
            flavour, config_at(gateway), lambda client: client.completions.create(model="m", prompt="p", stream=True)
        )
        assert (got.error, [chunk.choices[0].text for chunk in got]) == (None, ["Hi"])

    def test_a_json_answer_that_is_read_raw_is_found_unread(
        self, flavour: str, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        body = json.dumps(COMPLETION).encode()

        def use(client: Any) -> Any:
            if flavour == "sync":
                with chat(client.with_streaming_response) as response:
                    return b"".join(response.http_response.iter_raw())

            async def main() -> bytes:
                async with chat(client.with_streaming_response) as response:
                    return b"".join([chunk async for chunk in response.http_response.aiter_raw()])

            return main()

        assert run(flavour, config_at(gateway), use) == body

    def test_a_file_may_hold_an_error(self, call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
        row = b'{"error": {"message": "row of a batch"}, "id": 1}'
        gateway.answer = lambda _: Answer(row, headers={"content-type": "application/json"})
        assert call(config_at(gateway), lambda client: client.files.content("file-1")).content == row

    def test_a_download_is_not_taken_for_one(self, gateway: Loopback, config_at: ConfigAt) -> None:
        gateway.answer = lambda _: Answer(b'{"error": 1}\n{"error": 2}\n', headers={"content-type": "application/json"})

        def use(client: Any) -> Any:
            with client.files.with_streaming_response.content("file-1") as response:
                return response.read()

        assert run("sync", config_at(gateway), use).count(b"error") == 2


def test_a_plain_answer_with_leading_blank_lines_is_parsed(call: Call, gateway: Loopback, config_at: ConfigAt) -> None:
    gateway.answer = lambda _: Answer(
        b"\n\n\n" + json.dumps(COMPLETION).encode(), headers={"content-type": "application/json"}
    )
    assert call(config_at(gateway), chat).choices[0].message.content == "Hello."


def test_the_wait_between_tries_is_the_sdks_own(gateway: Loopback, config_at: ConfigAt) -> None:
    gateway.answer = lambda request: (
        completion(request) if len(gateway.received) > 1 else Answer(long_form(429, 2003, "Rate limited"), 429)
    )
    begun = time.monotonic()
    run("sync", config_at(gateway), chat)
    assert 0.3 < time.monotonic() - begun < 5
    assert isinstance(gateway.last, Received)


@pytest.mark.parametrize(
    ("body", "worth"),
    [
        (b'{"error": {"message": "no"}}', True),
        (b'{"success":false}', True),
        (b'{"success": true, "result": {"choices": []}, "error": [{}]}', True),
        (b'{"id": "", "detail": {}, "choices": [], "error": {}}', True),
        (b'{"id": "x", "text": "%s", "choices": [], "error": {}}' % (b"x" * 600), True),
        (b'{"id": "x", "choices": [{"logprobs": {"error": 1}}], "success": null}', False),
        (b'{"object": "list", "data": []}', False),
        (json.dumps(COMPLETION).encode(), False),
        (b"", False),
    ],
)
def test_an_answer_with_choices_at_its_top_is_not_searched_for_an_error(body: bytes, worth: bool) -> None:
    assert may_hold_a_fault(body) is worth
