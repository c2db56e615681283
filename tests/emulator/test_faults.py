"""What can go wrong at the emulator, and what its owner can switch on; as in `test_emulator`, by plain HTTP."""

import asyncio
import http.client
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from emulated import AI, BOTH, COMPAT, HOST, KEY, OFF, PROVIDER, REST, TOKEN, ask, client_of, send

from deepseek_gateway.emulator import Emulator

RESPONSES = f"{HOST}/deepseek/responses"
STREAM = ask(stream=True, **OFF)
HTML, TEXT = "text/html; charset=UTF-8", "text/plain; charset=UTF-8"
JSON, OCTETS = "application/json", "application/octet-stream"


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """One for all tests that leave nothing behind."""
    with Emulator() as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which limits and cache go; tests move it."""
    now = [1000.0]
    monkeypatch.setattr("deepseek_gateway.emulator._policies.monotonic", lambda: now[0])
    return now


def exchange(emulator: Emulator, body: Any = None, headers: dict[str, str] = BOTH, timeout: float = 10) -> Any:
    """Return what arrived of the body, and what ended it."""
    received = b""
    with closing(http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=timeout)) as connection:
        connection.request("POST", PROVIDER, json.dumps(ask() if body is None else body), headers)
        try:
            with connection.getresponse() as response:
                while data := response.read1():
                    received += data
        except (OSError, http.client.HTTPException) as error:
            return received, type(error)
    return received, None


# -- errors, by who makes them --------------------------------------------------------------------------------------

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
    (2018, 429, "Wholesale limit exceeded"),
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
def test_every_code_of_the_table_can_be_had_in_every_envelope(
    emulator: Emulator, code: int, status: int, message: str
) -> None:
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


DENIED = b'{"success":false,"error":{"message":"Access denied by policy"}}'
GOVERNOR = b"Authentication Fails (governor)"
BUSY = b'{"error":{"message":"Service is too busy. We advise users to temporarily switch'


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "body", "by"),
    [
        ({"status": 403}, 403, TEXT, b"error code: 1010", "edge"),
        ({"status": 403, "message": "error code: 1020"}, 403, TEXT, b"error code: 1020", "edge"),
        ({"shape": "edge"}, 403, TEXT, b"error code: 1010", "edge"),
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
        ({"status": 503, "shape": "edge", "body": "error code: 503"}, 503, TEXT, b"error code: 503", "edge"),
        ({"shape": "policy"}, 403, JSON, DENIED, "gateway"),
        (
            {"status": 429, "shape": "policy"},
            429,
            JSON,
            b'{"success":false,"error":{"message":"Spending limit exceeded","bucket":"daily","spent":1000.42,"limit":',
            "gateway",
        ),
        ({"shape": "text"}, 401, None, GOVERNOR, "deepseek"),
        ({"status": 422}, 422, "text/plain", b"Failed to deserialize the JSON body", "deepseek"),
        ({"status": 422, "shape": "text", "message": "no"}, 422, "text/plain", b"no", "deepseek"),
        ({"status": 200}, 200, JSON, BUSY, "deepseek"),
        ({"status": 200, "message": "x"}, 200, JSON, b'{"error":{"message":"x","type":"service_una', "deepseek"),
        ({"status": 418, "message": "x"}, 418, OCTETS, b'{"error":{"message":"x","type":"invalid_req', "deepseek"),
        ({"body": {"error": "x"}}, 200, JSON, b'{"error":"x"}', "deepseek"),
        ({"shape": "policy", "body": "no", "status": 451}, 451, TEXT, b"no", "gateway"),
        ({"body": "", "status": 502}, 502, TEXT, b"", "deepseek"),
        ({"body": b"<", "headers": {"Content-Type": HTML}}, 200, HTML, b"<", "deepseek"),
    ],
)
@pytest.mark.parametrize("asked", [ask(), STREAM], ids=["plain", "stream"])
def test_every_kind_of_error_is_shaped_and_labelled_by_who_makes_it(
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
    # 524 is an edge that did not wait for an answer; DeepSeek was asked nevertheless.
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
def test_an_error_can_be_any_event_of_a_stream_and_is_its_last_one(
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


def test_an_error_event_comes_before_the_end_of_the_stream_at_the_latest(emulator: Emulator) -> None:
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
        {"code": 2003, "shape": "policy"},
        {"status": 401, "shape": "short"},
        {"status": 418},
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
        {"code": "rate limited"},
        {"status": 101, "body": ""},
        {"status": 204, "body": ""},
        {"status": 600, "message": "x"},
        {"shape": "html"},
        {"code": 2003, "headers": {"two words": "x"}},
        {"code": 2003, "headers": {"x": "a\nb"}},
        {"code": 2003, "headers": {"x": "\u4e91"}},
        {"code": 2003, "headers": {"Content-Length": "5"}},
    ],
)
def test_failures_that_make_no_sense_are_refused_in_a_sentence(emulator: Emulator, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^[A-Z].* .*[.]$"):
        emulator.fail_next(**wrong)
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"code": 2003.0},
        {"code": True},
        {"status": "503"},
        {"status": 503, "times": "2"},
        {"status": 503, "message": b"x"},
        {"status": 503, "latency": "1"},
        {"code": 2005, "event": 1.5},
        {"cut_after": "5"},
        {"shape": 5},
        {"body": ["x"]},
        {"code": 2003, "headers": ["x: y"]},
        {"code": 2003, "headers": {"x": 1}},
    ],
)
def test_failures_of_a_wrong_type_are_refused_in_a_sentence(emulator: Emulator, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"^[A-Z].* .*[.]$"):
        emulator.fail_next(**wrong)
    assert emulator.pending == 0


def test_a_code_may_be_text_as_it_is_on_exceptions(emulator: Emulator) -> None:
    emulator.fail_next("2003", headers={"X-Note": "\xfc b"})
    answer = send(emulator, PROVIDER, BOTH, ask())
    assert (answer.status, answer.json["internalCode"], answer.headers["x-note"]) == (429, 2003, "\xfc b")


def test_pending_counts_the_failures_that_have_not_struck(emulator: Emulator) -> None:
    counts = [emulator.pending]
    emulator.fail_next(status=503, times=2)
    emulator.fail_next(2003)
    counts.append(emulator.pending)
    for headers in (KEY, BOTH, BOTH, BOTH):
        send(emulator, PROVIDER, headers, ask())
        counts.append(emulator.pending)
    assert counts == [0, 3, 3, 2, 1, 0]


@pytest.mark.parametrize(("status", "asked"), [(524, 1), (520, 0), (502, 0)])
def test_an_edge_that_gives_up_waiting_has_let_deepseek_be_asked_once(
    emulator: Emulator, status: int, asked: int
) -> None:
    emulator.fail_next(status=status)
    refused = send(emulator, PROVIDER, KEY, ask()).status
    assert (refused, emulator.pending) == ((401, 1) if asked else (status, 0))
    answer = send(emulator, PROVIDER, named(max_attempts="3"), ask())
    assert (answer.status, emulator.pending) == (status if asked else 200, 0)
    assert len(emulator.requests[-1].attempts) == 1
    assert ("x-ds-trace-id" in answer.headers) == (not asked)


def test_a_body_of_ones_own_may_count_tokens_oddly(emulator: Emulator) -> None:
    emulator.fail_next(body={"usage": {"prompt_tokens": "many", "prompt_tokens_details": {"cached_tokens": None}}})
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert emulator.requests[-1].cost == 0


# -- answers that arrive late, in part or not at all ----------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 200, 700])
@pytest.mark.parametrize("asked", [ask(), STREAM, ask(input="x", stream=True)], ids=["plain", "stream", "thinking"])
def test_a_cut_answer_ends_after_so_many_bytes_cleanly_or_not(emulator: Emulator, size: int, asked: Any) -> None:
    whole = send(emulator, PROVIDER, BOTH, asked).body
    emulator.fail_next(cut_after=size, times=2)
    emulator.fail_next(cut_after=size, clean=True)
    cut = (whole[:size], http.client.IncompleteRead)
    assert [exchange(emulator, asked) for _ in range(3)] == [cut, cut, (whole[:size], None)]
    assert exchange(emulator, asked) == (whole, None)


@pytest.mark.parametrize(
    ("fault", "size"), [({"stall_after": 0}, 0), ({"stall_after": 300}, 300), ({"latency": math.inf}, 0)]
)
def test_a_stalled_answer_leaves_the_client_waiting_and_the_request_is_listed_meanwhile(
    emulator: Emulator, fault: Any, size: int
) -> None:
    emulator.requests.clear()
    whole = send(emulator, PROVIDER, BOTH, STREAM).body
    emulator.fail_next(**fault)
    assert exchange(emulator, STREAM, timeout=0.1) == (whole[:size], TimeoutError)
    assert [len(request.attempts) for request in emulator.requests] == [1, 1]


@pytest.mark.parametrize("fault", [{"stall_after": 5}, {"latency": math.inf}, {"code": 2003, "latency": math.inf}])
def test_stalls_end_when_the_emulator_stops(fault: Any) -> None:
    threads = threading.active_count()
    with Emulator() as emulator:
        emulator.fail_next(**fault)
        ended: list[Any] = []
        client = threading.Thread(target=lambda: ended.append(exchange(emulator, STREAM)))
        client.start()
        while not emulator.requests:
            time.sleep(0.001)
        time.sleep(0.02)
        begun = time.perf_counter()
    client.join()
    assert time.perf_counter() - begun < 0.5
    assert ended[0][1] in {http.client.IncompleteRead, http.client.RemoteDisconnected, ConnectionResetError}
    assert threading.active_count() == threads


def test_a_stall_ends_when_the_client_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting, ended = threading.Event(), threading.Event()
    sleep = asyncio.sleep

    async def watched(delay: float) -> None:
        try:
            if delay == math.inf:
                waiting.set()
            await sleep(delay)
        except asyncio.CancelledError:
            ended.set()
            raise

    monkeypatch.setattr(asyncio, "sleep", watched)
    with Emulator() as emulator:
        for fault in ({"stall_after": 5}, {"latency": math.inf}, {"stall_after": 0, "status": 503}):
            emulator.fail_next(**fault)  # type: ignore[arg-type]
            assert exchange(emulator, STREAM, timeout=0.05)[1] is TimeoutError
            assert waiting.is_set()
            assert ended.wait(5)
            waiting.clear()
            ended.clear()


def test_a_reset_connection_and_a_refused_one() -> None:
    with Emulator() as emulator:
        emulator.fail_next(reset=True)
        assert exchange(emulator) == (b"", ConnectionResetError)
        assert [request.attempts for request in emulator.requests] == [[]]
        assert exchange(emulator)[1] is None
        address = emulator.url.removeprefix("http://")
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(address).connect()


def test_filler_precedes_plain_json_and_surrounds_the_events_of_a_stream(emulator: Emulator) -> None:
    whole, streamed = (send(emulator, PROVIDER, BOTH, asked).body for asked in (ask(), STREAM))
    emulator.fail_next(keep_alive=2, times=2)
    assert send(emulator, PROVIDER, BOTH, ask()).body == b"\n\n" + whole
    first, *rest = streamed.split(b"\n\n")[:-1]
    filled = b"".join(b": keep-alive\n\n" + event + b"\n\n" for event in rest)
    comment = b": keep-alive\n\n"
    assert send(emulator, PROVIDER, BOTH, STREAM).body == comment * 2 + first + b"\n\n" + filled
    emulator.fail_next(keep_alive=2, times=2)
    with client_of(emulator) as client:
        asked: Any = {**ask(), "extra_body": OFF}
        assert client.chat.completions.create(**asked).choices[0].finish_reason == "stop"
        chunks = list(client.chat.completions.create(**asked, stream=True))
    assert len(chunks) == len(rest)


@pytest.mark.parametrize("filler", [0, 2])
def test_latency_holds_the_headers_back_or_is_filled(emulator: Emulator, filler: int) -> None:
    emulator.fail_next(latency=0.2, keep_alive=filler)
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)
    begun = time.perf_counter()
    connection.request("POST", PROVIDER, json.dumps(STREAM), BOTH)
    response = connection.getresponse()
    headers = time.perf_counter() - begun
    assert response.read().endswith(b"[DONE]\n\n")
    connection.close()
    assert time.perf_counter() - begun >= 0.2
    assert (headers < 0.2) == bool(filler)


def test_a_gateway_may_be_slow_as_a_rule() -> None:
    with Emulator(latency=0.05) as emulator:
        begun = time.perf_counter()
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
        assert time.perf_counter() - begun >= 0.05


def test_broken_answers_are_nothing_to_log(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    for fault in ({"cut_after": 5}, {"reset": True}, {"stall_after": 5}):
        emulator.fail_next(**fault)  # type: ignore[arg-type]
        exchange(emulator, STREAM, timeout=0.05)
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert [record for record in caplog.records if record.levelname != "DEBUG"] == []


# -- retries and timeouts ---------------------------------------------------------------------------------------------


def tries(count: object, timeout: object = None, delay: object = None, backoff: str | None = None) -> dict[str, str]:
    named = {"max-attempts": count, "request-timeout": timeout, "retry-delay": delay, "backoff": backoff}
    return {f"cf-aig-{name}": str(value) for name, value in named.items() if value is not None}


NEVER: Any = {"latency": math.inf}
LATE: Any = {"latency": 0.15}


@pytest.mark.parametrize(
    ("headers", "faults", "status", "attempts", "left"),
    [
        (tries(None), [{"status": 503}], 503, 1, 0),
        (tries(1), [{"status": 503}], 503, 1, 0),
        (tries(3), [{"status": 503}, {"status": 429}], 200, 3, 0),
        (tries(3), [{"status": 500}, {"status": 503}, {"status": 429}, {"status": 500}], 429, 3, 1),
        (tries(9), [{"unreachable": True, "times": 6}], 2005, 5, 1),
        (tries(0), [{"unreachable": True}], 2005, 1, 0),
        (tries("two"), [{"unreachable": True}], 2005, 1, 0),
        (tries(2), [{"unreachable": True}], 200, 2, 0),
        (tries(2), [{"unreachable": True}, {"status": 503}], 503, 2, 0),
        (tries(3), [{"status": 402, "times": 2}], 402, 1, 1),
        (tries(3), [{"status": 400}], 400, 1, 0),
        (tries(3), [{"shape": "text"}], 401, 1, 0),
        (tries(3), [{"status": 502, "body": "<html>"}], 200, 2, 0),
        (tries(3), [{"status": 200}], 200, 1, 0),
        (tries(3), [{"code": 2005}], 2005, 0, 0),
        (tries(3, timeout=30), [NEVER, NEVER], 200, 3, 0),
        (tries(2, timeout=30), [NEVER, LATE], 200, 2, 0),
        (tries(2, timeout=5000), [LATE], 200, 1, 0),
        (tries(None, timeout=30), [NEVER], 2005, 1, 0),
        (tries(2, timeout=30), [NEVER, {"unreachable": True}], 2005, 2, 0),
    ],
)
def test_the_gateway_tries_again_as_often_and_as_patiently_as_it_is_asked(
    headers: dict[str, str], faults: list[Any], status: int, attempts: int, left: int
) -> None:
    with Emulator() as emulator:
        for fault in faults:
            emulator.fail_next(**fault)
        answer = send(emulator, PROVIDER, BOTH | headers, ask())
        rest = [send(emulator, PROVIDER, BOTH, ask()).status for _ in range(left + 1)]
        tried = emulator.requests[0].attempts
    code = b'"internalCode":2005' in answer.body
    assert (2005 if code else answer.status, len(tried)) == (status, attempts)
    assert [status == 200 for status in rest] == [False] * left + [True]
    assert all(not name.startswith("cf-aig-") for attempt in tried for name in attempt.headers)


@pytest.mark.parametrize(
    ("delay", "backoff", "waits"),
    [
        (None, "linear", []),
        (200, None, [0.2, 0.2, 0.2]),
        (200, "constant", [0.2, 0.2, 0.2]),
        (200, "linear", [0.2, 0.4, 0.6]),
        (200, "exponential", [0.2, 0.4, 0.8]),
        (90_000, "constant", [60, 60, 60]),
    ],
)
def test_the_waits_between_tries_grow_as_asked(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, delay: int | None, backoff: str | None, waits: list[float]
) -> None:
    sleep, slept = asyncio.sleep, list[float]()

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    emulator.fail_next(status=503, times=3)
    assert send(emulator, PROVIDER, BOTH | tries(4, delay=delay, backoff=backoff), ask()).status == 200
    assert [seconds for seconds in slept if seconds] == pytest.approx(waits)


# -- guardrails and data loss prevention ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (PROVIDER, BOTH, ask()),
        (PROVIDER, BOTH, ask(tools=[{"type": "function", "function": {"name": "f"}}])),
        (COMPAT, BOTH, ask("deepseek/deepseek-flash")),
        (RESPONSES, BOTH, {"model": "deepseek-flash", "input": "x"}),
    ],
)
def test_guardrails_turn_a_stream_into_the_one_body_that_it_amounts_to(
    path: str, headers: dict[str, str], body: Any
) -> None:
    with Emulator(guardrails=()) as emulator:
        plain, streamed = (send(emulator, path, headers, body | {"stream": stream}) for stream in (False, True))
    assert (streamed.status, streamed.headers["content-type"]) == (200, "application/json")
    assert streamed.body == plain.body
    assert "transfer-encoding" not in streamed.headers


def test_guardrails_let_the_rest_api_stream_and_look_at_its_prompts_only() -> None:
    asked = ask("deepseek/deepseek-flash", stream=True)
    with Emulator(guardrails=["canned", "Bomb"]) as emulator:
        assert send(emulator, f"{AI}/chat/completions", REST, asked).body.endswith(b"[DONE]\n\n")
        blocked = send(emulator, f"{AI}/chat/completions", REST, ask("deepseek/deepseek-flash", "a bomb"))
    assert (blocked.status, blocked.json["errors"][0]["code"]) == (424, 2016)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "code", "attempts", "dlp"),
    [
        ({"guardrails": ["cloudflare"]}, 2016, 0, None),
        ({"guardrails": ["Canned"]}, 2017, 1, None),
        ({"guardrails": ["bomb"]}, None, 1, None),
        ({"dlp": {"CLOUDFLARE": "BLOCK"}}, 2029, 0, ("BLOCK", ["REQUEST"])),
        ({"dlp": {"canned": "BLOCK", "cloudflare": "FLAG"}}, 2030, 1, ("BLOCK", ["RESPONSE"])),
        ({"dlp": {"cloudflare": "FLAG"}}, None, 1, ("FLAG", ["REQUEST", "RESPONSE"])),
        ({"dlp": {"canned": "FLAG"}}, None, 1, ("FLAG", ["RESPONSE"])),
        ({"dlp": {"bomb": "BLOCK"}}, None, 1, None),
    ],
)
def test_what_scanners_find_is_blocked_or_flagged(
    options: Any, code: int | None, attempts: int, dlp: Any, stream: bool
) -> None:
    with Emulator(**options) as emulator:
        answer = send(emulator, PROVIDER, BOTH, ask(stream=stream))
        (received,) = emulator.requests
    assert (answer.status, len(received.attempts)) == (424 if code else 200, attempts)
    if code:
        assert answer.json["internalCode"] == code
    else:
        assert answer.headers["content-type"].startswith("text/event-stream") == (stream and "dlp" in options)
    found = json.loads(answer.headers.get("cf-aig-dlp", "null"))
    assert (found and (found["action"], [finding["check"] for finding in found["findings"]])) == dlp
    if found:
        assert list(found["findings"][0]) == ["profile", "policy_ids", "check"]
        assert list(found["findings"][0]["profile"]) == ["context", "entry_ids", "profile_id"]


# -- limits, cost and cache -----------------------------------------------------------------------------------------


def test_the_rate_limit_counts_requests_within_a_time(clock: list[float]) -> None:
    with Emulator(rate_limit=(2, 60)) as emulator:
        refused = [send(emulator, PROVIDER, KEY, ask()).status for _ in range(3)]
        first = [send(emulator, PROVIDER, BOTH, ask()).status for _ in range(2)]
        limited = send(emulator, PROVIDER, BOTH, ask())
        clock[0] += 59
        late = send(emulator, PROVIDER, BOTH, ask()).status
        clock[0] += 1
        assert [*refused, *first, late] == [401, 401, 401, 200, 200, 429]
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
        assert (limited.status, limited.json["internalCode"], limited.json["message"]) == (429, 2003, "Rate limited")
        assert "retry-after" not in limited.headers


def test_the_spend_limit_counts_usd_within_a_time_and_only_for_models_with_a_price(clock: list[float]) -> None:
    dear = BOTH | {"cf-aig-custom-cost": '{"total_cost":0.6}', "cf-aig-cache-key": "k"}
    with Emulator(spend_limit=(1, 60)) as emulator:
        assert send(emulator, PROVIDER, dear, ask()).status == 200
        assert [send(emulator, PROVIDER, dear | {"cf-aig-cache-key": x}, ask()).status for x in "ab"] == [200, 429]
        spent = send(emulator, PROVIDER, BOTH, ask())
        assert send(emulator, PROVIDER, dear, ask()).headers["cf-aig-cache-status"] == "HIT"
        assert send(emulator, PROVIDER, BOTH, ask("deepseek-v4-pro")).status == 200
        clock[0] += 60
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    rule = "rule 'emulator' (cost limit 1 per 60s, sliding)"
    assert spent.json["internalCode"] == 2045
    assert spent.json["message"] == f"Spend limit exceeded: {rule} for deepseek deepseek-flash"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "custom", "price"),
    [
        (PROVIDER, None, (0.15e-6, 0.003e-6, 0.6e-6)),
        (RESPONSES, None, (0.15e-6, 0.003e-6, 0.6e-6)),
        (PROVIDER, '{"per_token_in":1,"per_token_out":2}', (1, 1, 2)),
        (PROVIDER, '{"per_token_in":1,"per_token_out":2,"per_cache_read_token":0.5}', (1, 0.5, 2)),
        (PROVIDER, '{"per_token_in":"1"}', (0.15e-6, 0.003e-6, 0.6e-6)),
        (PROVIDER, "free", (0.15e-6, 0.003e-6, 0.6e-6)),
    ],
)
def test_the_cost_is_that_of_the_tokens(
    emulator: Emulator, path: str, custom: str | None, price: tuple[float, float, float], stream: bool
) -> None:
    history = [{"role": "system", "content": "word " * 200}, {"role": "user", "content": "Hi"}]
    body = {"model": "deepseek-flash", "messages": history, "input": history, "stream": stream}
    assert send(emulator, path, BOTH | ({"cf-aig-custom-cost": custom} if custom else {}), body).status == 200
    usage = send(emulator, PROVIDER, BOTH, body | {"stream": False}).json["usage"]
    asked, cached = usage["prompt_cache_miss_tokens"], usage["prompt_cache_hit_tokens"]
    extra = 4 if path == RESPONSES else 0  # the empty instructions
    expected = (asked + extra) * price[0] + cached * price[1] + usage["completion_tokens"] * price[2]
    assert emulator.requests[-2].cost == pytest.approx(expected)


def test_what_has_no_tokens_or_no_price_has_no_cost(emulator: Emulator) -> None:
    emulator.fail_next(2003)
    emulator.fail_next(status=503)
    for body in (ask(), ask(), ask("deepseek-v4-pro")):
        send(emulator, PROVIDER, BOTH, body)
    send(emulator, f"{HOST}/deepseek/models")
    assert [request.cost for request in emulator.requests[-4:]] == [None] * 4
    send(emulator, PROVIDER, BOTH | {"cf-aig-custom-cost": '{"per_token_out":1}'}, ask("deepseek-v4-pro"))
    assert emulator.requests[-1].cost == 32
    assert emulator.requests[-1].custom_cost == {"per_token_out": 1}


def named(**options: str) -> dict[str, str]:
    return BOTH | {f"cf-aig-{name.replace('_', '-')}": value for name, value in options.items()}


@pytest.mark.parametrize(
    ("options", "first", "second", "statuses"),
    [
        ({}, (BOTH, ask()), (BOTH, ask()), (None, None)),
        ({}, (named(cache_ttl="600"), ask()), (named(cache_ttl="600"), ask()), (None, None)),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="k"), ask(text="else")), ("MISS", "HIT")),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="l"), ask()), ("MISS", "MISS")),
        ({}, (named(cache_key="k"), ask()), (BOTH, ask()), ("MISS", None)),
        ({}, (named(cache_key="k"), ask()), (named(cache_key="k"), ask(stream=True)), ("MISS", "HIT")),
        ({}, (named(cache_key="k"), ask(stream=True)), (named(cache_key="k"), ask()), ("MISS", "MISS")),
        ({}, (named(cache_key="k"), ask(max_tokens=0)), (named(cache_key="k"), ask()), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask()), ("MISS", "HIT")),
        ({"cache_ttl": 0}, (BOTH, ask()), (BOTH, ask()), ("MISS", "HIT")),
        ({"cache_ttl": 0}, (BOTH, ask()), (named(skip_cache="true"), ask()), ("MISS", None)),
        ({"cache_ttl": 60}, (BOTH, ask()), (named(metadata='{"a":1}', event_id="e"), ask()), ("MISS", "HIT")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask(text="else")), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH, ask("deepseek-v4-pro")), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask(stream=True)), (BOTH, ask(stream=True)), ("MISS", "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (named(skip_cache="true"), ask()), ("MISS", None)),
        ({"cache_ttl": 60}, (BOTH, ask()), (BOTH | {"cf-skip-cache": "true"}, ask()), ("MISS", None)),
        ({"cache_ttl": 60}, (named(skip_cache="true"), ask()), (BOTH, ask()), (None, "MISS")),
        ({"cache_ttl": 60}, (BOTH, ask()), (TOKEN, ask()), ("MISS", "HIT")),
        (
            {"cache_ttl": 60, "stored_keys": {"default": "other"}},
            (BOTH, ask()),
            (TOKEN, ask()),
            ("MISS", "MISS"),
        ),
        ({"cache_ttl": 60, "guardrails": ()}, (BOTH, ask(stream=True)), (BOTH, ask(stream=True)), ("MISS", "MISS")),
    ],
)
def test_caching_is_opted_into_and_keyed_by_the_rules(
    options: Any, first: Any, second: Any, statuses: tuple[str | None, str | None]
) -> None:
    with Emulator(**options) as emulator:
        one, two = (send(emulator, PROVIDER, headers, body) for headers, body in (first, second))
        costs = [request.cost for request in emulator.requests]
        calls = [len(request.attempts) for request in emulator.requests]
    assert (one.headers.get("cf-aig-cache-status"), two.headers.get("cf-aig-cache-status")) == statuses
    assert calls == [1, 0 if statuses[1] == "HIT" else 1]
    if statuses[1] == "HIT":
        assert two.body == one.body
        assert costs[1] == 0
        assert two.headers["cf-aig-log-id"] != one.headers["cf-aig-log-id"]
        assert two.headers["cf-aig-event-id"] in {"e", two.headers["cf-aig-log-id"]}


def test_urls_share_no_entries_of_the_cache() -> None:
    calls = [(PROVIDER, "deepseek-flash"), (f"{HOST}/deepseek/v1/chat/completions", "deepseek-flash")]
    calls += [(COMPAT, "deepseek/deepseek-flash")]
    with Emulator(cache_ttl=60) as emulator:
        answers = [send(emulator, path, BOTH, ask(model)) for path, model in calls * 2]
    assert [answer.headers["cf-aig-cache-status"] for answer in answers] == ["MISS"] * 3 + ["HIT"] * 3


def test_only_posts_of_some_size_are_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    with Emulator(cache_ttl=60) as emulator:
        assert "cf-aig-cache-status" not in send(emulator, f"{HOST}/deepseek/models").headers
        monkeypatch.setattr("deepseek_gateway.emulator._policies._LARGEST_CACHED", 50)
        assert "cf-aig-cache-status" not in send(emulator, PROVIDER, BOTH, ask()).headers


@pytest.mark.parametrize(
    ("setting", "headers", "seconds"),
    [
        (90, BOTH, 90),
        (90, named(cache_key="k"), 90),
        (90, named(cache_ttl="120"), 120),
        (90, BOTH | {"cf-cache-ttl": "120"}, 120),
        (90, named(cache_ttl="0"), 90),
        (0, BOTH, 300),
        (0, named(cache_ttl="0"), 300),
        (0, named(cache_ttl="120"), 120),
        (None, named(cache_key="k", cache_ttl="0"), 300),
        (90, named(cache_ttl="1"), 60),
        (90, named(cache_ttl="9" * 5000), 90),
        (90, named(cache_ttl="9999999"), 30 * 86400),
        (90, named(cache_ttl="soon"), 90),
        (None, named(cache_key="k"), 300),
        (None, named(cache_key="k", cache_ttl="61"), 61),
    ],
)
def test_cached_answers_last_as_long_as_header_setting_and_bounds_say(
    clock: list[float], setting: float | None, headers: dict[str, str], seconds: int
) -> None:
    with Emulator(cache_ttl=setting) as emulator:
        ask_again: Callable[[], str] = lambda: send(emulator, PROVIDER, headers, ask()).headers["cf-aig-cache-status"]  # noqa: E731
        found = [ask_again()]
        clock[0] += seconds - 1
        found.append(ask_again())
        clock[0] += 1
        found.append(ask_again())
    assert found == ["MISS", "HIT", "MISS"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (None, {}),
        ('{"a":"x","b":1,"c":1.5,"d":true}', {"a": "x", "b": 1, "c": 1.5, "d": True}),
        ('{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}', {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
        ('{"cf.user_id":"x","a":1}', {"a": 1}),
        ('{"a":1,"b":null}', {}),
        ('{"a":1,"b":{"c":2}}', {}),
        ('{"a":1,"b":[2]}', {}),
        ("[1]", {}),
        ("{", {}),
        ('{"name":"\\u4e91"}', {"name": "云"}),
    ],
)
def test_metadata_is_kept_by_the_rules(emulator: Emulator, sent: str | None, kept: dict[str, Any]) -> None:
    headers = BOTH | ({} if sent is None else {"cf-aig-metadata": sent})
    assert send(emulator, PROVIDER, headers, ask()).status == 200
    assert emulator.requests[-1].metadata == kept


def test_the_sdk_meets_these_errors_as_its_own(emulator: Emulator) -> None:
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


def test_bodies_that_end_before_their_length_never_reach_the_gateway(emulator: Emulator) -> None:
    emulator.requests.clear()
    with socket.create_connection(("127.0.0.1", int(emulator.url.rpartition(":")[2]))) as half:
        half.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
    assert send(emulator, PROVIDER, BOTH, ask()).status == 200
    assert len(emulator.requests) == 1
