"""The gateway's headers, retries, timeouts and scanners."""

import asyncio
import json
import math
import re
import time
from typing import Any

import pytest
from emulated import (
    AI,
    BOTH,
    COMPAT,
    PROVIDER,
    RESPONSES,
    REST,
    ask,
    send,
)

from deepseek_gateway.emulator import Emulator


def test_logged_response_has_the_headers_of_gateway_and_deepseek(emulator: Emulator) -> None:
    first, second = (send(emulator, PROVIDER, BOTH, ask()).headers for _ in range(2))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", first["cf-aig-log-id"])
    assert first["cf-aig-log-id"] == first["cf-aig-request-id"] == first["cf-aig-event-id"] < second["cf-aig-log-id"]
    assert (first["cf-aig-step"], first["server"]) == ("0", "cloudflare")
    assert re.fullmatch(r"[0-9a-f]{32}", first["x-ds-trace-id"])
    assert first["x-ds-trace-id"] != second["x-ds-trace-id"]
    assert first["cf-ray"] != second["cf-ray"]
    assert re.fullmatch(r"[0-9a-f]{32}", first["cf-aig-trace-id"])
    assert len({first["cf-aig-trace-id"], second["cf-aig-trace-id"], first["x-ds-trace-id"]}) == 3
    assert send(emulator, PROVIDER, BOTH | {"cf-aig-event-id": "mine"}, ask()).headers["cf-aig-event-id"] == "mine"


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
def test_gateway_retries_as_the_headers_say(
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
def test_retry_delay_grows_as_the_backoff_header_says(
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


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (PROVIDER, BOTH, ask()),
        (PROVIDER, BOTH, ask(tools=[{"type": "function", "function": {"name": "f"}}])),
        (COMPAT, BOTH, ask("deepseek/deepseek-flash")),
        (RESPONSES, BOTH, {"model": "deepseek-flash", "input": "x"}),
    ],
)
def test_guardrails_turn_a_stream_into_one_json_body(path: str, headers: dict[str, str], body: Any) -> None:
    with Emulator(guardrails=()) as emulator:
        plain, streamed = (send(emulator, path, headers, body | {"stream": stream}) for stream in (False, True))
    assert (streamed.status, streamed.headers["content-type"]) == (200, "application/json")
    assert streamed.body == plain.body
    assert "transfer-encoding" not in streamed.headers


def test_guardrails_on_rest_check_only_the_prompt_and_let_it_stream() -> None:
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
def test_texts_found_by_guardrails_and_dlp_are_blocked_or_flagged(
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


def test_latency_of_the_emulator_delays_every_response() -> None:
    with Emulator(latency=0.05) as emulator:
        begun = time.perf_counter()
        assert send(emulator, PROVIDER, BOTH, ask()).status == 200
        assert time.perf_counter() - begun >= 0.05
