"""Bodies that are read before the SDK is given them: bounds of time and size, charsets, and echoed credentials."""

from __future__ import annotations

import gzip
import json
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import openai
import pytest
from calling import KEY, TOKEN, chat, failing, streamed, warnings_in
from loopback import COMPLETION, Answer, Loopback

from deepseek_gateway import record_calls
from deepseek_gateway._body import BoundedBody
from deepseek_gateway._connections import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calling import Call, ConfigAt

TIMEOUT = 1.0
JSON = {"content-type": "application/json"}


def dripping(first: bytes) -> Iterator[bytes]:
    """Send a body that goes on for twenty seconds. No pause in it is longer than the timeout."""
    yield first
    for _ in range(400):
        time.sleep(0.05)
        yield b" "


def endless() -> Iterator[bytes]:
    while True:
        yield b"x" * 65_536


class TestBounds:
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_error_that_drips_ends_after_the_read_timeout_and_keeps_its_status(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, stream: bool
    ) -> None:
        gateway.answer = lambda _: Answer(dripping(b"no tea"), 418, {"content-type": "text/plain"})
        began = time.monotonic()
        error = failing(call, config_at(gateway), lambda client: chat(client, stream=stream), timeout=TIMEOUT)
        assert time.monotonic() - began < 15
        assert (error.status_code, error.body["message"]) == (418, "418 from DeepSeek: no tea")
        assert len(gateway.received) == 1

    def test_error_of_a_call_without_a_timeout_keeps_its_status(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(b"no tea", 418)
        assert failing(call, config_at(gateway), timeout=None).status_code == 418

    def test_error_without_end_is_cut_after_a_mebibyte(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(endless(), 418, {"content-type": "text/plain"})
        error = failing(call, config_at(gateway), timeout=30)
        assert error.body["original"] == "x" * 1_048_576
        assert len(error.body["message"]) < 400

    def test_error_is_read_to_the_last_byte_of_a_mebibyte_and_no_further(self) -> None:
        pieces = iter([b"x" * 1_048_575, b"y", b"z"])
        body = BoundedBody(httpx.Response(418, content=pieces), 5, error=True)
        assert b"".join(body) == b"x" * 1_048_575 + b"y"
        assert list(pieces) == [b"z"]

    def test_compressed_error_is_cut_after_64_kib_of_the_wire(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        bomb = gzip.compress(b"x" * 200_000_000, compresslevel=1)
        headers = {"content-type": "text/plain", "content-encoding": "gzip"}
        gateway.answer = lambda _: Answer((bomb[:40_000], bomb[40_000:]), 418, headers)
        error = failing(call, config_at(gateway))
        assert len(error.body["original"]) < 20_000_000

    def test_whole_body_that_comes_in_place_of_a_stream_ends_after_the_read_timeout(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        gateway.answer = lambda _: Answer(dripping(b'{"id":'), 200, JSON)
        began = time.monotonic()
        with pytest.raises(openai.APITimeoutError) as caught:
            call(config_at(gateway), streamed, timeout=TIMEOUT, max_retries=0)
        assert str(caught.value.__cause__) == "The body took longer than the read timeout."
        assert time.monotonic() - began < 15

    def test_whole_body_that_comes_in_place_of_a_stream_is_read_beyond_a_mebibyte(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        content = "0123456789" * 120_000
        message = {"role": "assistant", "content": content}
        gateway.answer = lambda _: Answer(COMPLETION | {"choices": [{"index": 0, "message": message}]})
        chunks = call(config_at(gateway), streamed)
        assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == content

    def test_answer_that_was_not_asked_for_as_a_stream_may_take_longer_than_the_read_timeout(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        def slow() -> Iterator[bytes]:
            for _ in range(8):  # DeepSeek sends blank lines while a call waits
                yield b"\n"
                time.sleep(0.2)
            yield json.dumps(COMPLETION).encode()

        gateway.answer = lambda _: Answer(slow(), 200, JSON)
        assert call(config_at(gateway), chat, timeout=TIMEOUT).choices[0].message.content == "Hello."


@pytest.mark.parametrize("charset", ["hex", "idna", "undefined", "zlib", "no-such-charset"])
@pytest.mark.parametrize("body", [{"error": {"message": "No tea é"}}, "No tea é".encode()], ids=["JSON", "text"])
def test_error_in_a_charset_that_decodes_no_text_is_read_as_utf_8(
    call: Call, gateway: Loopback, config_at: ConfigAt, charset: str, body: Any
) -> None:
    gateway.answer = lambda _: Answer(body, 418, {"content-type": f"application/json; charset={charset}"})
    error = failing(call, config_at(gateway))
    assert (error.status_code, error.body["message"].endswith("No tea é")) == (418, True)


@pytest.mark.parametrize(
    ("charset", "body", "text"), [("latin-1", b"\xe9", "é"), ("ascii", "é".encode(), "\ufffd\ufffd")]
)
def test_error_in_a_charset_that_decodes_text_is_read_in_this_charset(
    call: Call, gateway: Loopback, config_at: ConfigAt, charset: str, body: bytes, text: str
) -> None:
    gateway.answer = lambda _: Answer(body, 418, {"content-type": f"text/plain; charset={charset}"})
    assert failing(call, config_at(gateway)).body["original"] == text


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "page": (b"<html><title>Log in</title></html>", "Log in"),
    "page after a blank line": (b"\n<html><title>Log in</title></html>", "Log in"),
    "text": (b"OK", "OK"),
    "text that ends like JSON": (b"OK}", "OK}"),
    "list": (b"[]", "[]"),
    "cut JSON": (b'{"id": "x", "choi', '{"id": "x", "choi'),
    "cut completion": (b'{"id": "x", "choices": [{"index"', '{"id": "x", "choices": [{"index"'),
    "text before a completion": (b'OK {"choices": []}', 'OK {"choices": []}'),
    "object that is not JSON": (b"{id: 1}", "{id: 1}"),
    "no UTF-8": (b'{"id": "\xff"}', '{"id": "\ufffd"}'),
    "nothing": (b"", "an empty body"),
}


@pytest.mark.parametrize(("body", "shown"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("label", ["application/json", "text/html", ""])
def test_success_that_is_no_answer_raises_an_error_and_is_not_asked_for_again(
    call: Call,
    gateway: Loopback,
    config_at: ConfigAt,
    caplog: pytest.LogCaptureFixture,
    body: bytes,
    shown: str,
    label: str,
) -> None:
    gateway.answer = lambda _: Answer(body, 200, {"content-type": label})
    error = failing(call, config_at(gateway))
    assert (error.status_code, error.type) == (502, "upstream_error")
    what = f"200 came with {label or 'no content type'} in place of an answer in JSON"
    assert error.body["message"] == f"{what}: {shown}"
    assert error.body["original"] == body.decode("utf-8", "replace")
    assert warnings_in(caplog) == [f"502 upstream_error: {what}"]
    assert len(gateway.received) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_answer_in_any_encoding_of_json_is_delivered(
    call: Call, gateway: Loopback, config_at: ConfigAt, encoding: str
) -> None:
    text = json.dumps(COMPLETION | {"id": "chat-你好"}, ensure_ascii=False)
    gateway.answer = lambda _: Answer(f" {text}\n".encode(encoding), 200, {"content-type": "application/json"})
    assert call(config_at(gateway), chat).id == "chat-你好"


def escaped(text: str) -> str:
    """Spell a text in escapes of JSON."""
    return "".join(f"\\u{ord(character):04X}" for character in text)


ERRORS: dict[str, str] = {
    "DeepSeek's": '{"error":{"message":"The key %s is invalid","type":"x","param":null,"code":"y"}}',
    "gateway's": '{"success":false,"error":[{"code":2009,"message":"Unauthorized %s"}]}',
    "upstream's": '{"detail":"%s"}',
    "text": "%s",
    "JSON in JSON": json.dumps({"error": {"message": '{"key":"%s"}'}}),
}


class TestEchoedCredentials:
    """A server may repeat a credential. It is shown nowhere."""

    @pytest.mark.parametrize("body", ERRORS.values(), ids=ERRORS)
    @pytest.mark.parametrize(
        "spelling",
        [str, escaped, lambda text: text.replace("-", r"\u002d"), lambda text: text.replace("-", r"\\\\u002d")],
        ids=["as it is", "escaped", "one backslash", "four backslashes"],
    )
    @pytest.mark.parametrize("secret", [KEY, TOKEN])
    def test_credential_in_an_error_is_redacted_however_it_is_spelled(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, body: str, spelling: Callable[[str], str], secret: str
    ) -> None:
        written = spelling(secret)
        gateway.answer = lambda _: Answer((body % written).encode(), 401, JSON)
        error = failing(call, config_at(gateway))
        shown = f"{error.message} {error} {error.body} {error.response.text}"
        assert "[redacted]" in shown
        assert secret not in shown
        assert written not in shown
        assert error.response.headers.get_list("content-type") == ["application/json"]

    SUCCESSES: dict[str, tuple[Any, str]] = {
        "error": ({"success": False, "errors": [{"code": 2005, "message": "x"}]}, "application/json"),
        "no answer": (b"OK", "text/plain"),
        "no stream": (b"OK", "text/html"),
        "error event": ((b'data: {"success":false,"errors":[{"code":2005,"message":"x"}]}\n\n',), "text/event-stream"),
    }

    @pytest.mark.parametrize(("body", "label"), SUCCESSES.values(), ids=SUCCESSES)
    @pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
    def test_credential_in_the_headers_of_a_success_without_an_answer_is_not_shown(
        self,
        call: Call,
        gateway: Loopback,
        config_at: ConfigAt,
        caplog: pytest.LogCaptureFixture,
        body: Any,
        label: str,
        stream: bool,
    ) -> None:
        secret = "Token-In-Two-Cases"
        headers = {"cf-aig-log-id": secret, "content-type": f"{label}; x={secret}"}
        gateway.answer = lambda _: Answer(body, 200, headers)
        with pytest.raises(openai.APIError) as caught:
            call(config_at(gateway, gateway_token=secret), lambda client: chat(client, stream=stream), max_retries=0)
        shown = f"{caplog.text} {caught.value} {caught.value.body}"
        assert secret.lower() not in shown.lower()

    @pytest.mark.parametrize("spelling", [str, escaped])
    def test_credential_in_an_error_event_is_redacted(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, spelling: Callable[[str], str]
    ) -> None:
        event = b"data: %s\n\n" % (ERRORS["DeepSeek's"] % spelling(KEY)).encode()
        gateway.answer = lambda _: Answer((event,))
        with pytest.raises(openai.APIError, match=r"The key \[redacted\] is invalid"):
            call(config_at(gateway), streamed)

    def test_error_without_a_credential_passes_byte_for_byte(
        self, call: Call, gateway: Loopback, config_at: ConfigAt
    ) -> None:
        body = b'{ "error" : {"message":"\\u004eo, \\"you\\" \\/ don\'t"} }\n'
        gateway.answer = lambda _: Answer(body, 400, JSON)
        assert failing(call, config_at(gateway)).response.content == body

    def test_credential_in_an_id_is_neither_logged_nor_recorded(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        ids = {"cf-aig-log-id": TOKEN, "cf-ray": TOKEN, "x-ds-trace-id": KEY}
        for status in (200, 401):
            gateway.answer = lambda _, status=status: Answer(COMPLETION, status, ids)
            with record_calls() as calls, suppress(openai.AuthenticationError):
                call(config_at(gateway), chat)
            assert calls[0].log_id == "[redacted]"
            assert KEY not in repr(calls) + caplog.text
            assert TOKEN not in repr(calls) + caplog.text

    def test_credential_in_an_id_of_an_error_is_redacted_for_a_caller_that_records_nothing(
        self, call: Call, gateway: Loopback, config_at: ConfigAt, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway.answer = lambda _: Answer({}, 401, {"cf-aig-log-id": TOKEN})
        assert failing(call, config_at(gateway)).request_id == "[redacted]"
        assert TOKEN not in caplog.text
