"""Made-up responses. Our clients give what a bare client gives, except for the differences in one table."""

from __future__ import annotations

import asyncio
import json
import re
import socketserver
import ssl
import threading
from dataclasses import dataclass, field
from http.client import parse_headers
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import pytest
from calling import FLAVOURS, KEY, TOKEN, chat, responses_streamed, streamed
from hypothesis import given
from hypothesis import strategies as st
from made_up import Answer, answers

from deepseek_gateway import GatewayConfig, create_async_client, create_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_TRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a bare client loads the system's certificates, which takes 20 ms
OPTIONS: Any = {"max_retries": 0, "timeout": 60}  # a busy machine may take longer than the SDK's 5 s for a connection
CALLS: dict[str, Callable[[Any], Any]] = {"chat": chat, "chat stream": streamed, "responses": responses_streamed}


class Server(socketserver.ThreadingTCPServer):
    """Sends the bytes of `answer` to every request."""

    daemon_threads = True
    block_on_close = False
    answer: Answer


class Connection(socketserver.StreamRequestHandler):
    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while self.rfile.readline():
            headers = parse_headers(self.rfile)
            self.rfile.read(int(headers["content-length"]))
            answer = self.server.answer
            self.wfile.write(answer.wire)
            if answer.closes:
                return


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Connection) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@dataclass
class Seen:
    """What a program sees of one call: the items, and the error after them."""

    items: list[Any] = field(default_factory=list)
    error: str = ""
    status: int | None = None
    details: Any = None

    def add(self, item: Any) -> None:
        self.items.append(item.model_dump(warnings=False) if hasattr(item, "model_dump") else item)

    def fail(self, error: Exception) -> None:
        names = ("message", "body", "code", "param", "type")
        self.error = type(error).__name__
        self.status = getattr(error, "status_code", None)
        self.details = {name: getattr(error, name, None) for name in names}


def bare_client(flavour: str, url: str) -> Any:
    names = {"sync": "DefaultHttpxClient", "httpx": "DefaultAsyncHttpxClient", "aiohttp": "DefaultAioHttpClient"}
    http_client: Any = getattr(openai, names[flavour])(verify=NO_TRUST)
    client = openai.OpenAI if flavour == "sync" else openai.AsyncOpenAI
    return client(api_key=KEY, base_url=f"{url}/deepseek", http_client=http_client, **OPTIONS)


def our_client(flavour: str, url: str) -> Any:
    config = GatewayConfig(endpoint=url, api_key=KEY, gateway_token=TOKEN)
    if flavour == "sync":
        return create_client(config, **OPTIONS)
    return create_async_client(config, transport=flavour, **OPTIONS)  # type: ignore[arg-type]


def observe(server: Server, make: Callable[[str, str], Any], flavour: str, made: list[Answer]) -> list[Seen]:
    """Make one call after the other on the same client, and keep what each gives."""
    url = f"http://127.0.0.1:{server.server_address[1]}"

    def observe_sync() -> Iterator[Seen]:
        with make(flavour, url) as client:
            for server.answer in made:
                yield (seen := Seen())
                try:
                    result = CALLS[server.answer.body.call](client)
                    for item in result if isinstance(result, openai.Stream) else [result]:
                        seen.add(item)
                except Exception as error:  # noqa: BLE001  # a bare client raises anything
                    seen.fail(error)

    async def observe_async() -> list[Seen]:
        every = []
        async with make(flavour, url) as client:
            for server.answer in made:
                every.append(seen := Seen())
                try:
                    result = await CALLS[server.answer.body.call](client)
                    if isinstance(result, openai.AsyncStream):
                        async for item in result:
                            seen.add(item)
                    else:
                        seen.add(result)
                except Exception as error:  # noqa: BLE001  # as above
                    seen.fail(error)
        return every

    return list(observe_sync()) if flavour == "sync" else asyncio.run(observe_async())


class Difference(NamedTuple):
    """A documented difference: where it applies, and what our clients give in place of what a bare client gives."""

    reason: str
    applies: Callable[[Answer, Seen], bool]
    expected: Callable[[Answer, Seen, Seen], Seen]


CUT = ("", "APIConnectionError", "RemoteProtocolError", "ReadError", "UnicodeDecodeError")
"""How a bare client ends when a stream is cut: as if nothing had happened, or with one of several exceptions."""
STATUS_ERRORS = {403: "PermissionDeniedError", 502: "InternalServerError"}


def is_stream(answer: Answer) -> bool:
    return answer.body.kind in {"events", "gateway error", "error"}


def is_error(answer: Answer) -> bool:
    return answer.body.status >= 300


def connection_error(_: Answer, bare: Seen, ours: Seen) -> Seen:
    return Seen(bare.items, "APIConnectionError", details=ours.details)


def explained(answer: Answer, bare: Seen, ours: Seen) -> Seen:
    """Expect the exception of the status, with the original body."""
    text = answer.arrived.decode("utf-8", "replace")
    data = json_object(text)
    body = {**ours.details["body"], "original": text.strip() if data is None else data}
    return Seen(bare.items, bare.error, bare.status, {**ours.details, "body": body})


def hidden_error(answer: Answer, _: Seen, ours: Seen) -> Seen:
    status = answer.body.original.get("httpCode", 502)
    return Seen([], STATUS_ERRORS[status], status, ours.details)


def same_text(answer: Answer, _: Seen, ours: Seen) -> Seen:
    """Expect chunks that together say what the JSON answer says."""
    text = answer.body.original["choices"][0]["message"]["content"]
    said = "".join(item["choices"][0]["delta"]["content"] or "" for item in ours.items)
    return ours if said == text else Seen([text])


def json_object(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def in_openai_form(answer: Answer) -> bool:
    error = (json_object(answer.arrived.decode("utf-8", "replace")) or {}).get("error")
    return isinstance(error, dict) and isinstance(error.get("message"), str) and answer.body.kind == "openai error"


def is_error_without_blank_line(answer: Answer) -> bool:
    """Whether a stream ends after the first event, but before its blank line. A bare client ignores such an event."""
    line = re.search(rb"(?m)^data:(.*)\s*\Z", answer.arrived)
    return not answer.broken and line is not None and json_object(line.group(1).decode("utf-8", "replace")) is not None


def is_no_object(answer: Answer) -> bool:
    """Whether a whole body cannot be a JSON object. A cut one that still ends in a brace raises as in a bare client."""
    text = answer.arrived.strip()
    in_braces = text.startswith(b"{") and text.endswith(b"}")
    return not answer.broken and not in_braces


def is_held(answer: Answer) -> bool:
    """Whether the connection breaks while the first event, or [DONE] in its place, is held back."""
    last = re.search(rb"\A(?:\s|:.*\n)*data:[^\r\n]*(\s*)\Z", answer.arrived)
    return answer.broken and last is not None and not last.group(1).startswith((b"\n\n", b"\r\n\r\n"))


def in_line_end(answer: Answer) -> bool:
    """Whether a stream is cut between CR and LF of the line that ends an event."""
    return not answer.whole and answer.arrived.endswith(b"\r\n\r") and answer.body.kind != "gateway error"


DIFFERENCES = (
    Difference(
        "a defect: what is held back when the connection breaks is lost, even if it is a whole event or [DONE]",
        lambda answer, bare: is_stream(answer) and is_held(answer) and bare.error in {*CUT, "APIError"},
        lambda answer, bare, ours: (
            Seen(bare.items)
            if answer.whole and not ours.error  # a comment in the same chunk avoids the defect
            else Seen(bare.items[: len(ours.items)], "APIConnectionError", details=ours.details)
        ),
    ),
    Difference(
        "a defect: with openai 1, an event is lost when the stream is cut between CR and LF after it",
        lambda answer, bare: is_stream(answer) and in_line_end(answer) and bare.error in CUT,
        lambda _, bare, ours: Seen(bare.items[: len(ours.items)], "APIConnectionError", details=ours.details),
    ),
    Difference(
        "docs/errors.md: a gateway error is explained, here as the first event of a stream",
        lambda answer, bare: (
            answer.body.kind == "gateway error"
            and (bare.error == "APIError" or bool(bare.items) or is_error_without_blank_line(answer))
        ),
        lambda _, __, ours: Seen([], "APIError", details=ours.details),
    ),
    Difference(
        "docs/streams.md: a stream that ends before its end raises APIConnectionError",
        lambda answer, bare: is_stream(answer) and not answer.whole and bare.error in CUT,
        connection_error,
    ),
    Difference(
        "docs/streams.md: a stream is complete at its end, even if the connection breaks after that",
        lambda answer, bare: is_stream(answer) and answer.whole and answer.broken and bare.error in CUT,
        lambda _, bare, __: Seen(bare.items),
    ),
    Difference(
        "docs/streams.md: one JSON body in place of a stream becomes the requested stream",
        lambda answer, _: answer.body.kind == "json for a stream" and answer.complete and not answer.broken,
        same_text,
    ),
    Difference(
        "docs/streams.md: a body that is neither a stream nor whole JSON raises",
        lambda answer, _: answer.body.kind == "json for a stream" and not answer.complete and not answer.broken,
        lambda _, __, ours: Seen([], "InternalServerError", 502, ours.details),
    ),
    Difference(
        "docs/errors.md: every error is an openai exception; some bare clients raise the HTTP library's",
        lambda answer, bare: answer.broken and bare.error in {"RemoteProtocolError", "ReadError"},
        connection_error,
    ),
    Difference(
        "docs/errors.md: every error is an openai exception, also that a success is no JSON object",
        lambda answer, _: answer.body.call == "chat" and answer.body.status == 200 and is_no_object(answer),
        lambda _, __, ours: Seen([], "InternalServerError", 502, ours.details),
    ),
    Difference(
        "docs/errors.md: a response of status 200 that contains an error raises that error",
        lambda answer, _: answer.body.kind == "error in a 200" and answer.complete and not answer.broken,
        hidden_error,
    ),
    Difference(
        "docs/errors.md: errors of the gateway, the edge or a plain-text upstream are explained",
        lambda answer, _: is_error(answer) and not answer.broken and not in_openai_form(answer),
        explained,
    ),
)


# The aiohttp transport of openai 2 leaves connections of broken responses to the garbage collector, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("flavour", FLAVOURS)
@given(made=st.lists(answers(), min_size=1, max_size=2))
def test_clients_give_what_a_bare_client_gives_for_made_up_responses(
    server: Server, flavour: str, made: list[Answer]
) -> None:
    pairs = zip(observe(server, bare_client, flavour, made), observe(server, our_client, flavour, made), strict=True)
    for answer, (bare, ours) in zip(made, pairs, strict=True):
        wanted = next((each.expected(answer, bare, ours) for each in DIFFERENCES if each.applies(answer, bare)), bare)
        if repr(ours) != repr(wanted):  # without pytest's comparison, which takes minutes for long texts
            seen = f"a bare client gave {bare!r:.1000}, ours gave {ours!r:.1000}, expected {wanted!r:.1000}"
            pytest.fail(f"{seen} for {answer.wire!r:.2000}, of which {answer.arrived!r:.2000} is body")
