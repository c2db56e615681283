"""Failures on demand: the arguments of `fail_next()`, and the form of each error."""

import http.client
import json
import math
import re
from contextlib import suppress
from typing import Any

import openai
import pytest
from emulated import (
    AI,
    BOTH,
    JSON_TYPE,
    KEY,
    OCTETS,
    PROVIDER,
    RESPONSES,
    REST,
    STREAM,
    TEXT_TYPE,
    ask,
    client_of,
    named,
    send,
)

from deepseek_gateway.emulator import Emulator

HTML = "text/html; charset=UTF-8"


CREDITS = "Insufficient wholesale credits. Please add additional credits on the AI Gateway Cloudflare dashboard to "


ALIAS = "Provider 'deepseek' has no BYOK credential named 'missing'. Configured aliases: 'default'"


SPENT = "Spend limit exceeded: rule 'daily' (cost limit 1 per 86400s, fixed) for deepseek deepseek-flash"


TABLE = [
    (2001, 400, "Please configure AI Gateway in the Cloudflare dashboard"),
    (2003, 429, "Rate limited"),
    (2005, 400, "Failed to get response from provider"),
    (2008, 400, "Invalid provider"),
    (2009, 401, "Unauthorized"),
    (2016, 424, "Prompt blocked due to security configurations"),
    (2017, 424, "Response blocked due to security configurations"),
    (2018, 429, "Wholesale Rate limited"),
    (2019, 400, "Chat completion bad format"),
    (2021, 402, CREDITS + "continue using provider models."),
    (2029, 424, "Request content blocked due to DLP policy violations"),
    (2030, 424, "Response content blocked due to DLP policy violations"),
    (2040, 400, ALIAS),
    (2041, 429, SPENT),
    (2045, 429, SPENT),
    (7003, 404, "Model not found: deepseek/missing"),
    (7013, 503, "Guardrails are unavailable"),
]


@pytest.mark.parametrize(("code", "status", "message"), TABLE)
def test_every_gateway_code_fails_in_every_envelope(emulator: Emulator, code: int, status: int, message: str) -> None:
    listed = [{"code": code, "message": message}]
    emulator.fail_next(code)
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert (answer.status, answer.json["error"], answer.json["httpCode"]) == (status, listed, status)
    assert ("cf-aig-log-id" in answer.headers) == (code not in {2001, 2009})
    assert ("cf-aig-dlp" in answer.headers) == (code in {2029, 2030})
    assert "retry-after" not in answer.headers
    emulator.fail_next(code, shape="short")
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert (answer.status, answer.json) == (status, {"success": False, "error": listed})
    emulator.fail_next(code)
    answer = send(emulator, f"{AI}/chat/completions", REST, ask("deepseek/deepseek-flash"))
    assert (answer.status, answer.json["errors"]) == (status, listed)
    emulator.fail_next(code, status=200)
    answer = send(emulator, PROVIDER, BOTH, STREAM)
    assert (answer.status, answer.json["error"], answer.json["httpCode"]) == (200, listed, status)
    assert [request.attempts for request in emulator.requests[-4:]] == [[], [], [], []]


LIMITED = "Wholesale rate limit exceeded for this gateway. Please reduce request rate or use BYOK."


@pytest.mark.parametrize(
    ("code", "shape", "status", "message"),
    [
        (2021, "wholesale", 402, LIMITED),
        (2021, "unbilled", 402, "This model is not available via unified billing. Please use BYOK."),
        (2018, "wholesale", 429, LIMITED),
        (7003, "wholesale", 200, LIMITED),
    ],
)
def test_limiter_of_unified_billing_fails_in_its_observed_shapes(
    emulator: Emulator, code: int, shape: Any, status: int, message: str
) -> None:
    emulator.fail_next(code, shape=shape, times=2)
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert (answer.status, answer.json["error"]) == (status, [{"code": code, "message": message}])
    answer = send(emulator, f"{AI}/chat/completions", REST, ask("deepseek/deepseek-flash"))
    assert (answer.status, answer.json["errors"]) == (status, [{"code": code, "message": message}])
    assert "cf-aig-cache-status" not in answer.headers


@pytest.mark.parametrize(
    ("status", "kind", "code", "message"),
    [
        (400, "invalid_request_error", "invalid_request_error", "Content Exists Risk"),
        (
            401,
            "authentication_error",
            "invalid_request_error",
            "Authentication Fails, Your api key: ****-key is invalid",
        ),
        (402, "unknown_error", "invalid_request_error", "Insufficient Balance"),
        (429, "rate_limit_error", "invalid_request_error", "Too many requests. Your current concurrency is 26, which "),
        (500, "server_error", "server_error", "Server error"),
        (
            503,
            "service_unavailable_error",
            "service_unavailable_error",
            "Service is too busy. We advise users to tempor",
        ),
    ],
)
def test_status_alone_gives_the_error_that_deepseek_documents(
    emulator: Emulator, status: int, kind: str, code: str, message: str
) -> None:
    emulator.fail_next(status=status)
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert answer.status == status
    assert answer.json["error"]["message"].startswith(message)
    assert list(answer.json["error"].items())[1:] == [("type", kind), ("param", None), ("code", code)]
    assert "retry-after" not in answer.headers
    assert emulator.requests[-1].upstream is not None
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200


DENIED = b'{"success":false,"error":{"message":"Access denied by policy"}}'


GOVERNOR = b"Authentication Fails (governor)"


BUSY = b'{"error":{"message":"Service is too busy. We advise users to temporarily switch'


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body", "by"),
    [
        ({"status": 403}, 403, TEXT_TYPE, b"error code: 1010", "edge"),
        ({"status": 403, "message": "error code: 1020"}, 403, TEXT_TYPE, b"error code: 1020", "edge"),
        ({"shape": "edge"}, 403, TEXT_TYPE, b"error code: 1010", "edge"),
        ({"status": 502}, 502, HTML, b"<!DOCTYPE html>\n<html>\n<head><title>502: Bad gateway</title>", "edge"),
        ({"status": 520}, 520, HTML, b"<!DOCTYPE html>\n<html>\n<head><title>520: Web server is ret", "edge"),
        ({"status": 524}, 524, HTML, b"<!DOCTYPE html>\n<html>\n<head><title>524: A timeout occurred", "edge"),
        (
            {"status": 524, "shape": "problem"},
            524,
            "application/problem+json",
            b'{"type":"about:blank","title":"Error 524: A timeout occurred","status":524,"detail":',
            "edge",
        ),
        ({"status": 503, "shape": "edge", "body": "error code: 503"}, 503, TEXT_TYPE, b"error code: 503", "edge"),
        ({"shape": "policy"}, 403, JSON_TYPE, DENIED, "gateway"),
        (
            {"status": 429, "shape": "policy"},
            429,
            JSON_TYPE,
            b'{"success":false,"error":{"message":"Spending limit exceeded","bucket":"daily","spent":1000.42,"limit":',
            "gateway",
        ),
        ({"shape": "text"}, 401, None, GOVERNOR, "deepseek"),
        ({"status": 422}, 422, "text/plain", b"Failed to deserialize the JSON body", "deepseek"),
        ({"status": 422, "shape": "text", "message": "no"}, 422, "text/plain", b"no", "deepseek"),
        ({"status": 200}, 200, JSON_TYPE, BUSY, "deepseek"),
        ({"status": 200, "message": "x"}, 200, JSON_TYPE, b'{"error":{"message":"x","type":"service_una', "deepseek"),
        ({"status": 418, "message": "x"}, 418, OCTETS, b'{"error":{"message":"x","type":"invalid_req', "deepseek"),
        ({"body": {"error": "x"}}, 200, JSON_TYPE, b'{"error":"x"}', "deepseek"),
        ({"shape": "policy", "body": "no", "status": 451}, 451, TEXT_TYPE, b"no", "gateway"),
        ({"body": "", "status": 502}, 502, TEXT_TYPE, b"", "deepseek"),
        ({"body": b"<", "headers": {"Content-Type": HTML}}, 200, HTML, b"<", "deepseek"),
    ],
)
@pytest.mark.parametrize("asked", [ask(), STREAM], ids=["plain", "stream"])
def test_error_has_the_body_and_headers_of_its_source(
    emulator: Emulator, fault: Any, status: int, content_type: str | None, body: bytes, by: str, asked: Any
) -> None:
    emulator.fail_next(**fault)
    answer = send(emulator, PROVIDER, BOTH, asked)
    assert (answer.status, answer.headers.get("content-type")) == (status, content_type)
    assert answer.body.startswith(body)
    assert answer.headers["server"] == "cloudflare"
    assert re.fullmatch(r"[0-9a-f]{16}-[A-Z]{3}", answer.headers["cf-ray"])
    assert any(name.startswith("cf-aig-") for name in answer.headers) == (by != "edge")
    assert ("x-ds-trace-id" in answer.headers) == (by == "deepseek")
    assert answer.headers["content-length"] == str(len(answer.body))
    # The edge answers 524 when it gives up waiting, after DeepSeek was asked.
    assert len(emulator.requests[-1].attempts) == (by == "deepseek" or status == 524)


@pytest.mark.parametrize("path", [PROVIDER, RESPONSES])
@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"code": 2017}, [{"code": 2017, "message": "Response blocked due to security configurations"}]),
        ({"shape": "policy"}, {"message": "Access denied by policy"}),
        ({"status": 503, "message": "x"}, {"message": "x"}),
        ({"body": {"error": "x"}}, "x"),
    ],
)
def test_error_event_ends_a_stream_at_the_given_position(
    emulator: Emulator, path: str, at: int, fault: Any, error: Any
) -> None:
    asked = STREAM | {"input": "x"}
    *whole, _ = send(emulator, path, BOTH, asked).body.split(b"\n\n")
    emulator.fail_next(**fault, event=at)
    answer = send(emulator, path, BOTH, asked)
    *events, last, end = answer.body.split(b"\n\n")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (events, end) == (whole[:at], b"")
    found = json.loads(last.removeprefix(b"data: "))["error"]
    assert found == error or found.items() >= error.items()
    assert len(emulator.requests[-1].attempts) == 1
    emulator.fail_next(**fault, event=at)
    plain = send(emulator, PROVIDER, BOTH, ask())
    assert (plain.status, plain.json["error"]) == (200, found)


def test_error_event_beyond_the_stream_replaces_done(emulator: Emulator) -> None:
    emulator.fail_next(2005, event=999)
    *events, error, _ = send(emulator, PROVIDER, BOTH, STREAM).body.split(b"\n\n")
    assert b'"finish_reason":"stop"' in events[-1]
    assert b'"internalCode":2005' in error


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"message": "x"},
        {"times": 0, "code": 2003},
        {"code": 9999, "status": 400},
        {"code": True},
        {"code": 2003, "shape": "policy"},
        {"code": 2003, "shape": "wholesale"},
        {"shape": "wholesale"},
        {"status": 401, "shape": "short"},
        {"status": 418},
        {"status": "503"},
        {"status": 400, "shape": "policy"},
        {"status": 403, "shape": "problem"},
        {"body": "x", "message": "x"},
        {"body": "x", "code": 2003},
        {"event": 0},
        {"event": 0, "status": 502},
        {"event": 0, "shape": "text"},
        {"event": -1, "code": 2003},
        {"reset": True, "status": 503},
        {"unreachable": True, "reset": True},
        {"clean": True},
        {"cut_after": 1, "stall_after": 1},
        {"cut_after": -1},
        {"keep_alive": -1},
        {"latency": -1.0},
        {"latency": math.nan},
        {"shape": "html"},
        {"shape": 5},
        {"shape": "html", "status": 400, "message": "x"},
    ],
)
def test_contradictory_or_incomplete_failure_is_refused(emulator: Emulator, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z].* .*[.]$"):
        emulator.fail_next(**wrong)
    assert emulator.pending == 0
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": "rate limited"},
        {"status": 503, "times": "2"},
        {"status": 503, "latency": "1"},
        {"cut_after": "5"},
        {"code": 2003, "headers": ["x: y"]},
    ],
)
def test_failure_with_an_argument_of_a_wrong_type_is_refused_at_once(emulator: Emulator, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        emulator.fail_next(**wrong)
    assert emulator.pending == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 101, "body": ""},
        {"status": 600, "message": "x"},
        {"status": 503, "message": b"x"},
        {"code": 2005, "event": 1.5},
        {"code": 2003, "headers": {"two words": "x"}},
        {"code": 2003, "headers": {"x": "a\nb"}},
        {"code": 2003, "headers": {"x": "\u4e91"}},
        {"code": 2003, "headers": {"x": 1}},
        {"code": 2003, "headers": {"Content-Length": "5"}},
    ],
)
def test_failure_that_cannot_be_sent_raises_at_the_end(wrong: Any) -> None:
    emulator = Emulator()
    emulator.fail_next(**wrong)
    broken = suppress(http.client.HTTPException, OSError)
    with pytest.raises(RuntimeError, match="fault of the emulator"), emulator, broken:
        send(emulator, PROVIDER, BOTH, STREAM)


def test_code_may_be_text_and_headers_latin_1(emulator: Emulator) -> None:
    emulator.fail_next("2003", headers={"X-Note": "\xfc b"})
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert (answer.status, answer.json["internalCode"], answer.headers["x-note"]) == (429, 2003, "\xfc b")


@pytest.mark.parametrize("name", ["cf-aig-cache-status", "server", "cf-aig-log-id"])
def test_header_of_a_failure_takes_the_place_of_the_usual_one(emulator: Emulator, name: str) -> None:
    emulator.fail_next(headers={name: "mine"})
    assert send(emulator, PROVIDER, BOTH, STREAM).headers[name] == "mine"


def test_pending_counts_failures_that_have_not_happened(emulator: Emulator) -> None:
    counts = [emulator.pending]
    emulator.fail_next(status=503, times=2)
    emulator.fail_next(2003)
    counts.append(emulator.pending)
    for headers in (KEY, BOTH, BOTH, BOTH):
        send(emulator, PROVIDER, headers, ask())
        counts.append(emulator.pending)
    assert counts == [0, 3, 3, 2, 1, 0]


def test_failures_happen_in_the_order_of_the_fail_next_calls(emulator: Emulator) -> None:
    emulator.fail_next(status=503, times=2)
    emulator.fail_next(2003, message="Slow down", status=430)
    emulator.fail_next(9999, status=418, message="New")
    answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(5)]
    assert [answer.status for answer in answers] == [503, 503, 430, 418, 200]
    assert [answer.json["error"][0] for answer in answers[2:4]] == [
        {"code": 2003, "message": "Slow down"},
        {"code": 9999, "message": "New"},
    ]


@pytest.mark.parametrize(("status", "asked"), [(524, 1), (520, 0), (502, 0)])
def test_524_happens_after_deepseek_was_asked_once(emulator: Emulator, status: int, asked: int) -> None:
    emulator.fail_next(status=status)
    refused = send(emulator, PROVIDER, KEY, ask()).status
    assert (refused, emulator.pending) == ((401, 1) if asked else (status, 0))
    answer = send(emulator, PROVIDER, named(max_attempts="3"), ask())
    assert (answer.status, emulator.pending) == (status if asked else 200, 0)
    assert len(emulator.requests[-1].attempts) == 1
    assert ("x-ds-trace-id" in answer.headers) == (not asked)


def test_sdk_raises_its_own_exceptions_for_failures(emulator: Emulator) -> None:
    with client_of(emulator) as client:
        asked: Any = ask()
        emulator.fail_next(2003)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(**asked)
        emulator.fail_next(reset=True)
        with pytest.raises(openai.APIConnectionError):
            client.chat.completions.create(**asked)
        emulator.fail_next(2005, event=2)
        with pytest.raises(openai.APIError, match="error occurred during streaming"):
            list(client.chat.completions.create(**asked, stream=True))
