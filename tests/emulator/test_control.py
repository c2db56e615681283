"""The controls over HTTP, for tests in any language."""

import json
from typing import Any

import pytest
from emulated import BOTH, PROVIDER, ask, send

from deepseek_gateway.emulator import Emulator

ANSWERS, FAILURES, RESET = "/_emulator/answers", "/_emulator/failures", "/_emulator/reset"


def test_posted_answers_are_given_in_order(emulator: Emulator) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Paris"}}
    posted: list[Any] = [{"text": "Hi", "reasoning": "Hm"}, {"tool_calls": [call]}, {"json": {"a": 1}}]
    replies = [send(emulator, ANSWERS, {}, each) for each in posted]
    assert [(reply.status, reply.json) for reply in replies] == [(200, {"pending": count}) for count in (1, 2, 3)]
    first, second, third = (send(emulator, PROVIDER, BOTH, ask()).json["choices"][0]["message"] for _ in range(3))
    assert (first["reasoning_content"], first["content"]) == ("Hm", "Hi")
    assert second["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert json.loads(third["content"]) == {"a": 1}


def test_posted_failures_happen_in_order(emulator: Emulator) -> None:
    assert send(emulator, FAILURES, {}, {"code": 2003, "times": 2}).json == {"pending": 2}
    assert send(emulator, FAILURES, {}, {"status": 503, "headers": {"retry-after": "1"}}).json == {"pending": 3}
    answers = [send(emulator, PROVIDER, BOTH, ask()) for _ in range(4)]
    assert [answer.status for answer in answers] == [429, 429, 503, 200]
    assert answers[2].headers["retry-after"] == "1"


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_posted_reset_forgets_what_was_posted(body: bytes) -> None:
    with Emulator() as emulator:
        send(emulator, ANSWERS, {}, {"text": "Hi"})
        send(emulator, FAILURES, {}, {"code": 2003})
        send(emulator, PROVIDER, {}, ask())
        assert send(emulator, RESET, {}, body, method="POST").json == {"pending": 0}
        assert emulator.requests == []
        assert "canned" in send(emulator, PROVIDER, BOTH, ask()).text


def test_control_is_no_request_to_the_gateway(emulator: Emulator) -> None:
    emulator.reset()
    emulator.fail_next(reset=True)
    assert send(emulator, ANSWERS, {}, {"text": "Hi"}).json == {"pending": 2}
    assert emulator.requests == []
    emulator.reset()


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        (ANSWERS, {}, "Say what to answer"),
        (ANSWERS, {"txt": "Hi"}, "unexpected keyword argument 'txt'"),
        (ANSWERS, [{"text": "Hi"}], "one JSON object"),
        (ANSWERS, b"Hi", "one JSON object"),
        (FAILURES, {"code": "soon"}, "'soon'"),
        (FAILURES, {"status": 418}, "Give a message"),
        (FAILURES, {"latency": "1"}, "not supported between"),
        (RESET, {"requests": True}, "unexpected keyword argument 'requests'"),
    ],
)
def test_wrong_control_is_answered_with_400_and_the_reason(
    emulator: Emulator, path: str, body: Any, message: str
) -> None:
    reply = send(emulator, path, {}, body, method="POST")
    assert (reply.status, emulator.pending) == (400, 0)
    assert message in reply.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", ANSWERS, 405), ("PUT", RESET, 405), ("POST", "/_emulator/answer", 404), ("POST", "/_emulator/", 404)],
)
def test_unknown_control_is_answered_with_the_known_ones(
    emulator: Emulator, method: str, path: str, status: int
) -> None:
    reply = send(emulator, path, {}, {"text": "Hi"}, method=method)
    assert (reply.status, emulator.pending) == (status, 0)
    assert "POST /_emulator/answers" in reply.json["error"]
    assert reply.headers.get("allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:8787"}, 200),
        ({"origin": "http://localhost:3000"}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_website_that_a_browser_shows_cannot_control_the_emulator(headers: dict[str, str], status: int) -> None:
    with Emulator() as emulator:
        for path, body in ((ANSWERS, {"text": "Hi"}), (FAILURES, {"code": 2003}), (RESET, {})):
            assert send(emulator, path, headers, body).status == status
        assert "access-control-allow-origin" not in send(emulator, RESET, headers, {}).headers
