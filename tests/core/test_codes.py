"""What an error code means: its remedy, its exception, and whether the SDK retries. Over real sockets, per flavour."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from answers import AT_ONCE, LOGGED, SPENT, long_form, policy_form, rest_form, short_form, to_bytes
from calling import chat, failing, run
from loopback import Answer, Loopback, completion, serve

from deepseek_gateway import gateway_headers
from deepseek_gateway._codes import CODES, DEEPSEEK, EDGE

if TYPE_CHECKING:
    from calling import Call, ConfigAt

# The key is the code, or a description of an error without a code.
# The columns are: status, body, a part of the message, and the number of requests with one retry allowed.
GATEWAY_ERRORS: dict[str, tuple[int, Any, str, int]] = {
    "2001": (400, long_form(400, 2001, "Please configure AI Gateway"), "check CLOUDFLARE_AI_GATEWAY_ID", 1),
    "2003": (429, long_form(429, 2003, "Rate limited"), "gateway's own rate limit is reached (2003 Rate limited)", 2),
    "2005": (400, long_form(400, 2005, "Failed to get response from provider"), "check that the model 'deepseek", 2),
    "2008": (400, long_form(400, 2008, "Invalid provider"), "provider (2008 Invalid provider); check that DEEPSEEK", 1),
    "2009": (401, short_form(2009, "Unauthorized"), "authentication (2009 Unauthorized); the token in", 1),
    "2016": (424, long_form(424, 2016, "Prompt blocked due to security configurations"), "blocked the prompt", 1),
    "2017": (424, long_form(424, 2017, "Response blocked due to security configurations"), "blocked the response", 1),
    "2002": (502, long_form(502, 2002, "Failed to parse model output"), "could not read the model's answer", 2),
    "2018": (429, short_form(2018, "Wholesale limit"), "requests that Cloudflare pays for", 1),
    "2018, limit": (429, short_form(2018, "Wholesale Rate limited"), "wait about a minute", 1),
    "2021, limit": (
        402,
        long_form(402, 2021, "Wholesale rate limit exceeded for this gateway."),
        "wait about a minute",
        1,
    ),
    "2021, model": (
        402,
        long_form(402, 2021, "This model is not available via unified billing."),
        "does not pay for this",
        1,
    ),
    "7003, limit": (402, rest_form(7003, "Wholesale rate limit exceeded for this gateway."), "wait about a minute", 1),
    "7003, failed": (
        400,
        rest_form(7003, "Model execution failed (Error)"),
        "the model refused the request, or failed",
        1,
    ),
    "2019": (400, long_form(400, 2019, "Chat completion bad format"), "(2019 Chat completion bad format)", 1),
    "2021": (402, long_form(402, 2021, "Insufficient wholesale credits."), "set DEEPSEEK_API_KEY", 1),
    "2029": (
        424,
        long_form(424, 2029, "Request content blocked due to DLP policy violations"),
        "blocked the prompt",
        1,
    ),
    "2030": (
        424,
        long_form(424, 2030, "Response content blocked due to DLP policy violations"),
        "blocked the response",
        1,
    ),
    "2040": (400, long_form(400, 2040, "no BYOK credential named 'x'. Configured aliases: 'y'"), "aliases: 'y'", 1),
    "2041": (429, long_form(429, 2041, SPENT), "a spend limit of this gateway is reached", 1),
    "2045": (429, long_form(429, 2045, SPENT), SPENT, 1),
    "7000": (404, rest_form(7000, "No route for that URI"), "nothing at this address", 1),
    "7001": (405, rest_form(7001, "GET not supported for requested URI."), "GET not supported", 1),
    "7003": (404, rest_form(7003, "Model not found: x"), "Model not found: x", 1),
    "7013": (503, long_form(503, 7013, ""), "scanner is not available (7013)", 2),
    "10000": (401, rest_form(10000, "Authentication error"), "needs Workers AI Read", 1),
    "policy": (403, policy_form("Access denied by policy"), "an identity policy of this gateway denies this call", 1),
    "spend limit": (429, policy_form("Spending limit exceeded", spent=1000.4, limit=1000), "a spend limit of this", 1),
    "2099": (429, short_form(2099, SPENT), "a spend limit of this gateway is reached (2099 Spend limit", 1),
    "2777": (418, long_form(418, 2777, "Something new"), "not from DeepSeek: 2777 Something new", 1),
    "2778": (500, long_form(500, 2778, "Something new"), "2778 Something new", 2),
    "no error": (400, {"success": False}, "it gave no text", 1),
    "text": (400, {"success": False, "error": "just text"}, "just text", 1),
    "null": (400, {"success": False, "error": [None], "errors": []}, "400 from AI Gateway", 1),
    "empty list": (400, {"success": False, "error": []}, "400 from AI Gateway", 1),
}
EDGE_ERRORS: dict[str, tuple[int, Any, str, int]] = {
    "1010": (403, "error code: 1010", "takes this program for a bot; error code: 1010; cf-ray 8f0-FRA; change its", 1),
    "blocked": (403, "Your request was blocked.", "it refuses this program's User-Agent; Your request was blocked.", 1),
    "502": (502, "<html><head><title>502 Bad\n gateway</title></head><p>x</p></html>", "502 Bad gateway; cf-ray", 2),
    "520": (520, "<!DOCTYPE html><body>Web server <b>is</b> returning</body>", "Web server is returning", 2),
    "524": (
        524,
        {"type": "x", "title": "A timeout occurred", "status": 524, "detail": "d"},
        "A timeout occurred: d",
        2,
    ),
    "1010, any status": (503, "error code: 1010", "takes this program for a bot", 1),
    "503": (503, "", "before AI Gateway answered: an empty body; cf-ray 8f0-FRA; try again later", 2),
    "403": (403, "<html></html>", "before AI Gateway answered: an empty body; cf-ray 8f0-FRA", 1),
}
# The columns are: status, text, and type.
DEEPSEEK_ERRORS: dict[str, tuple[int, str, str]] = {
    "model name": (400, "The supported API model names are deepseek-flash, but you passed x.", "invalid_request_error"),
    "forced tool": (400, "Thinking mode does not support this tool_choice", "invalid_request_error"),
    "reasoning_content": (
        400,
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "invalid_request_error",
    ),
    "response_format": (400, "This response_format type is unavailable now", "invalid_request_error"),
    "context length": (400, "This model's maximum context length is 1048565 tokens.", "invalid_request_error"),
    "no word json": (
        400,
        "Prompt must contain the word 'json' in some form to use 'response_format' of type 'json_object'.",
        "invalid_request_error",
    ),
    "content filter": (400, "Content Exists Risk", "invalid_request_error"),
    "role developer": (400, "messages[0].role: unknown variant `developer`, expected one of", "invalid_request_error"),
    "key": (401, "Authentication Fails, Your api key: ****-key is invalid", "authentication_error"),
    "balance": (402, "Insufficient Balance", "unknown_error"),
    "concurrency": (429, "Too many requests. Your current concurrency is 26", "rate_limit_error"),
    "busy": (503, "Service is too busy.", "service_unavailable_error"),
    "without a remedy": (500, "", ""),
}
CLASSES = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    429: openai.RateLimitError,
    503: openai.InternalServerError,
}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert all(record.name == "deepseek_gateway" for record in records)
    return [record.getMessage() for record in records]


class TestErrors:
    """An error of the gateway, the edge or DeepSeek becomes the SDK's exception for its status and says what to do."""

    @pytest.mark.parametrize("name", GATEWAY_ERRORS)
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_gateway_error_has_the_code_the_remedy_and_the_retries_of_its_row(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, name: str, stream: bool
    ) -> None:
        status, body, said, requests = GATEWAY_ERRORS[name]
        number = name.partition(",")[0]
        code = number if number.isdecimal() else None
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

    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_billing_limit_inside_a_200_says_to_wait_and_is_not_retried(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, stream: bool
    ) -> None:
        body = rest_form(
            7003, "Wholesale rate limit exceeded for this gateway. Please reduce request rate or use BYOK."
        )
        gateway.answer = lambda _: Answer(body, headers=LOGGED | AT_ONCE)
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=stream))
        assert (error.status_code, error.type, error.code) == (502, "ai_gateway_error", "7003")
        assert "wait about a minute" in error.body["message"]
        assert len(gateway.received) == 1

    @pytest.mark.parametrize(
        "api",
        [
            *("embeddings", "images", "audio", "moderations", "batches"),
            *("fine_tuning", "assistants", "threads", "vector_stores"),
        ],
    )
    def test_api_that_deepseek_lacks_is_named(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, api: str
    ) -> None:
        gateway.answer = lambda _: Answer(b"", 404, {"cf-aig-log-id": "x", "content-type": ""})
        for path, remedy in ((f"/{api}/x", f"; DeepSeek has no {api.replace('_', '-')} API"), (f"/{api}x", "")):
            error = failing(call, config_at(gateway), lambda client, path=path: client.get(path, cast_to=object))
            assert error.body["message"] == f"404 from DeepSeek: an empty body{remedy}"

    @pytest.mark.parametrize("name", EDGE_ERRORS)
    def test_edge_error_has_type_edge_error_and_names_the_ray_id(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        status, body, said, requests = EDGE_ERRORS[name]
        code = name.partition(",")[0]
        headers = {"cf-ray": "8f0-FRA", "server": "cloudflare", "content-type": "text/html"} | AT_ONCE
        gateway.answer = lambda _: Answer(to_bytes(body), status, headers)
        error = failing(call, config_at(gateway))
        assert (error.status_code, error.type, error.code) == (status, "edge_error", code)
        assert f"{status} from Cloudflare's edge, before AI Gateway answered: " in error.message
        assert said in error.body["message"]
        assert error.body["message"].endswith(said) or code in EDGE
        row = EDGE.get(code)
        advice = f": {row.meaning}; {row.remedy}" if row else ": try again later" if status >= 500 else ""
        line = f"{status} edge_error ({code}){advice} (request id 8f0-FRA)"
        assert warnings(caplog) == [line] * requests
        assert error.request_id == "8f0-FRA"
        assert error.body["original"] == body
        assert len(gateway.received) == requests

    @pytest.mark.parametrize(("status", "text", "kind"), DEEPSEEK_ERRORS.values(), ids=DEEPSEEK_ERRORS)
    def test_deepseek_error_passes_unchanged_and_its_remedy_is_logged(
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
        logged = warnings(caplog)
        remedies = [row[2] for row in DEEPSEEK if row[0] == status and row[1] in text.lower()]
        assert len(logged) == len(remedies) == (status != 500)
        assert all(remedy in line for remedy, line in zip(remedies, logged, strict=True) if isinstance(remedy, str))
        assert all(line.startswith(f"{status} from DeepSeek: ") and "****" not in line for line in logged)

    def test_every_row_of_the_tables_is_tested(self) -> None:
        assert set(GATEWAY_ERRORS) >= set(CODES)
        assert set(EDGE_ERRORS) >= set(EDGE)
        texts = [(status, text.lower()) for status, text, _ in DEEPSEEK_ERRORS.values()]
        assert all(
            any(status == row[0] and row[1] in text for status, text in texts) for row in DEEPSEEK if row[0] != 404
        )  # tested above


def keep_key(client: Any) -> Any:
    return client


def with_key(client: Any) -> Any:
    return client.with_options(api_key="key-of-the-copy")


def with_default_header(client: Any) -> Any:
    return client.with_options(default_headers={"Authorization": "Bearer key-of-the-copy"})


OWN_KEY: dict[str, Any] = {}
STORED_KEY: dict[str, Any] = {"api_key": None}
OWN_HEADER = {"extra_headers": {"Authorization": "Bearer key-of-the-call"}}
NO_HEADER = {"extra_headers": {"Authorization": openai.Omit()}}  # type: ignore[attr-defined]
# The columns are: settings, a change to the client, arguments of the call, and the kind of remedy.
REFUSED_KEYS: dict[str, tuple[dict[str, Any], Any, dict[str, Any], str]] = {
    "own key": (OWN_KEY, keep_key, {}, "own key"),
    "own key, left out of the call": (OWN_KEY, keep_key, NO_HEADER, "no key"),
    "stored key": (STORED_KEY, keep_key, {}, "no key"),
    "stored key, header of the call": (STORED_KEY, keep_key, OWN_HEADER, "header"),
    "stored key, key of the copy": (STORED_KEY, with_key, {}, "header"),
    "stored key, header of the copy": (STORED_KEY, with_default_header, {}, "header"),
}
REFUSED_KEY_REMEDIES = {
    "own key": "check DEEPSEEK_API_KEY",
    "no key": "no key was sent",
    "header": "an Authorization header was sent, which keeps Cloudflare from adding the stored key",
}


def refused_key(*, json_body: bool) -> Answer:
    if not json_body:
        return Answer(b"Authentication Fails (governor)", 401, {**LOGGED, "content-type": "text/plain"})
    body = {"error": {"message": "Your api key: ****ured is invalid", "type": "authentication_error", "code": "x"}}
    return Answer(body, 401)


class TestRemedies:
    """A remedy fits the route and the credentials of the request that was sent."""

    @pytest.mark.parametrize("json_body", [True, False], ids=["JSON error", "plain text"])
    @pytest.mark.parametrize(("settings", "change", "extra", "kind"), REFUSED_KEYS.values(), ids=REFUSED_KEYS)
    @pytest.mark.parametrize("route", ["provider", "compat"])
    def test_remedy_for_a_refused_key_fits_the_credential_that_was_sent(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        route: str,
        settings: dict[str, Any],
        change: Any,
        extra: dict[str, Any],
        kind: str,
        json_body: bool,
    ) -> None:
        gateway.answer = lambda _: refused_key(json_body=json_body)
        config = config_at(gateway, route=route, **settings)
        error = failing(call, config, lambda client: chat(change(client), **extra), max_retries=0)
        (remedy,) = warnings(caplog)
        others = [text for other, text in REFUSED_KEY_REMEDIES.items() if other != kind]
        assert REFUSED_KEY_REMEDIES[kind] in remedy
        assert not [text for text in others if text in remedy]
        assert (REFUSED_KEY_REMEDIES[kind] in error.message) is not json_body
        if kind == "no key":
            assert "store one for this gateway at Cloudflare" in remedy
            assert "set DEEPSEEK_API_KEY" in remedy
        if kind == "header":
            assert "DEEPSEEK_API_KEY" not in remedy

    @pytest.mark.parametrize("json_body", [True, False], ids=["JSON error", "plain text"])
    @pytest.mark.parametrize("change", [keep_key, with_key], ids=["client", "copy with another token"])
    @pytest.mark.parametrize("settings", [OWN_KEY, STORED_KEY], ids=["api_key configured", "no api_key"])
    def test_remedy_for_a_refused_key_on_rest_names_only_the_stored_key(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        settings: dict[str, Any],
        change: Any,
        json_body: bool,
    ) -> None:
        gateway.answer = lambda _: refused_key(json_body=json_body)
        config = config_at(gateway, route="rest", **settings)
        failing(call, config, lambda client: chat(change(client)), max_retries=0)
        (remedy,) = warnings(caplog)
        assert "DeepSeek refused the key stored at Cloudflare for this gateway" in remedy
        assert "Authorization" not in remedy
        assert "DEEPSEEK_API_KEY" not in remedy

    @pytest.mark.parametrize(
        ("settings", "extra", "body", "said"),
        [
            pytest.param(
                {"gateway_token": None},
                {},
                short_form(2009, "Unauthorized"),
                "set CF_AIG_TOKEN to a token with AI Gateway Run",
                id="2009 without a token",
            ),
            pytest.param(
                {}, {}, short_form(2009, "Unauthorized"), "the token in CF_AIG_TOKEN was sent", id="2009 with a token"
            ),
            pytest.param(
                {},
                {},
                short_form(2008, "Invalid provider"),
                "DEEPSEEK_GATEWAY_ENDPOINT ends before /deepseek",
                id="2008 on provider",
            ),
            pytest.param(
                {"route": "compat"},
                {},
                short_form(2008, "Invalid provider"),
                "the model 'deepseek/deepseek-flash'",
                id="2008 on compat",
            ),
            pytest.param(
                {"route": "rest"},
                {},
                short_form(2008, "Invalid provider"),
                "DEEPSEEK_GATEWAY_ENDPOINT is an address of the other routes",
                id="2008 on rest",
            ),
            pytest.param(
                {},
                {},
                rest_form(7000, "No route for that URI"),
                "api.cloudflare.com is for the rest route only",
                id="7000 on provider",
            ),
            pytest.param(
                {"route": "compat"},
                {"model": "dynamic/x"},
                short_form(2005, "Failed"),
                "the dynamic route 'dynamic/x' exists",
                id="2005 of a dynamic route",
            ),
            pytest.param(
                {"route": "compat"},
                {"model": "openai/gpt-5"},
                "Fails",
                "401 from the provider behind AI Gateway: Fails",
                id="401 of another provider",
            ),
            pytest.param(
                {"route": "rest"},
                {},
                rest_form(10000, "Authentication error"),
                "it needs Workers AI Read on this account",
                id="10000 on rest",
            ),
            pytest.param({"route": "rest"}, {}, short_form(2021, "x"), "with a key of your own, or", id="2021 on rest"),
        ],
    )
    def test_remedy_for_a_gateway_error_fits_the_route_the_token_and_the_model(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, settings: Any, extra: Any, body: Any, said: str
    ) -> None:
        gateway.answer = lambda _: Answer(to_bytes(body), 401, LOGGED)
        error = failing(call, config_at(gateway, **settings), lambda client: chat(client, **extra), max_retries=0)
        assert said in error.body["message"]

    def test_deepseek_remedy_is_not_logged_for_an_error_of_another_provider(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer({"error": {"message": "Incorrect API key", "type": "t"}}, 401)
        failing(call, config_at(gateway, route="compat"), lambda client: chat(client, model="openai/gpt-5"))
        assert "DeepSeek" not in caplog.text


class TestRetries:
    """The code decides whether the SDK retries. The gateway's own retries (cf-aig-max-attempts) are not repeated."""

    TWO_TRIES = gateway_headers(max_attempts=2)
    # The columns are: status, body, and the number of requests without and with cf-aig-max-attempts above 1.
    ERRORS: dict[str, tuple[int, Any, int, int]] = {
        "2005 no answer": (400, long_form(400, 2005, "Failed to get response from provider"), 3, 1),
        "DeepSeek busy": (503, {"error": {"message": "busy", "type": "service_unavailable_error"}}, 3, 1),
        "DeepSeek concurrency": (429, {"error": {"message": "too many", "type": "rate_limit_error"}}, 3, 1),
        "DeepSeek conflict": (409, {"error": {"message": "twice", "type": "conflict"}}, 3, 1),
        "DeepSeek timeout": (408, {"error": {"message": "slow", "type": "timeout"}}, 3, 1),
        "DeepSeek balance": (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}, 1, 1),
        "upstream text": (500, "plain text", 3, 1),
        "2003 rate limit": (429, long_form(429, 2003, "Rate limited"), 3, 3),
        "2045 spend limit": (429, long_form(429, 2045, SPENT), 1, 1),
        "7013 no scanner": (503, long_form(503, 7013, ""), 3, 3),
        "edge": (502, "<html><title>edge</title></html>", 3, 3),
    }

    @pytest.mark.parametrize(("status", "body", "alone", "after_the_gateways"), ERRORS.values(), ids=ERRORS)
    def test_error_is_retried_unless_its_code_or_max_attempts_forbids_it(
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
            (self.TWO_TRIES, after_the_gateways),
            (gateway_headers(max_attempts=1), alone),
        ):
            gateway.received.clear()
            failing(call, config_at(gateway), lambda client, h=headers: chat(client, extra_headers=h), max_retries=2)
            assert len(gateway.received) == expected

    def test_upstream_advice_to_retry_is_ignored_when_max_attempts_is_set(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        busy = {"error": {"message": "busy", "type": "service_unavailable_error"}}
        gateway.answer = lambda _: Answer(busy, 503, AT_ONCE | {"x-should-retry": "true"})
        failing(call, config_at(gateway), lambda client: chat(client, extra_headers=self.TWO_TRIES))
        assert len(gateway.received) == 1

    def test_connection_failure_is_retried_even_when_max_attempts_is_set(
        self, config_at: ConfigAt, flavour: str
    ) -> None:
        with serve() as server:
            config = config_at(server)
            server.answer = lambda _: Answer((), ending="broken", headers={"content-type": "application/json"})
            with pytest.raises(openai.APIConnectionError):
                run(flavour, config, lambda client: chat(client, extra_headers=self.TWO_TRIES), max_retries=1)
            assert len(server.received) == 2

    def test_sdk_chooses_the_wait_before_a_retry_if_the_gateway_names_none(
        self, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda request: (
            completion(request) if len(gateway.received) > 1 else Answer(long_form(429, 2003, "Rate limited"), 429)
        )
        begun = time.monotonic()
        run("sync", config_at(gateway), chat)
        assert 0.3 < time.monotonic() - begun < 5
        assert len(gateway.received) == 2
