"""Made-up responses: a Hypothesis strategy for any body that a client may get, in any framing."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from answers import RESPONSE, long_form, policy_form, rest_form, short_form
from hypothesis import strategies as st
from loopback import COMPLETION, EVENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TERMINAL = ("response.completed", "response.failed", "response.incomplete")
_STATUSES = (300, 400, 401, 402, 403, 404, 408, 409, 418, 422, 429, 500, 502, 503, 524)
_AWKWARD = (
    "data: [DONE]\n\n",
    "[DONE]",
    "\u2028\x85\x0b",
    '{"error": {}}',
    "event: response.completed\n\n",
    "\r\n\r\n",
)
# Escaped in JSON, even half of a surrogate pair is valid.
_TEXT = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(_AWKWARD)
_NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
_LEAVES = st.none() | st.booleans() | _NUMBERS | st.text(max_size=8)
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
_GATEWAY_ERRORS = (
    long_form(403, 2029, "Blocked"),
    short_form(2003, "Rate limited"),
    rest_form(7003, "No such model"),
    policy_form("Access denied by policy"),
)
_OPENAI_ERROR = {"error": {"message": "Insufficient Balance", "type": "unknown_error", "param": None, "code": "x"}}


@dataclass(frozen=True)
class Body:
    """A body before it is framed: what it is, its parts, and its length up to the end of its stream."""

    call: str
    kind: str
    """`events`, `json`, or what is unusual about it."""
    parts: tuple[bytes, ...] = field(repr=False)  # Hypothesis refuses to print a long text
    end: int = 0
    status: int = 200
    content_type: str = "application/json"
    original: Any = field(default=None, repr=False)
    """The body of an error, as JSON or text."""


@dataclass(frozen=True)
class Answer:
    """One response: the bytes to send, and what of the decoded body arrives with them."""

    body: Body
    wire: bytes = field(repr=False)
    closes: bool
    """Whether the server closes the connection after it."""
    broken: bool
    """Whether it ends before its headers promise."""
    arrived: bytes = field(repr=False)

    @property
    def whole(self) -> bool:
        """Whether the end of the stream has arrived."""
        return len(self.arrived) >= self.body.end

    @property
    def complete(self) -> bool:
        """Whether every byte of the body has arrived."""
        return self.arrived == b"".join(self.body.parts)


@st.composite
def _events(draw: Callable[..., Any]) -> Body:
    """Make a stream of chat completions or of `/responses`, perhaps with an error in it."""
    call = draw(st.sampled_from(("chat stream", "responses")))
    texts = draw(st.lists(_TEXT, max_size=4))
    if texts:
        texts[0] += "é" * draw(st.sampled_from((0, 0, 0, 50, 2_000, 70_000)))
    if call == "chat stream":
        extras = draw(st.dictionaries(st.sampled_from(("usage", "error", "p", "system_fingerprint")), _JSON))
        made = [{**EVENTS[0], "choices": [{"index": 0, "delta": {"content": text}}], **extras} for text in texts]
    else:
        end = draw(st.sampled_from(TERMINAL))
        delta = {"item_id": "i", "output_index": 0, "content_index": 0}
        made = [{"type": "response.output_text.delta", **delta, "delta": text} for text in texts]
        made = [{"type": "response.created", "response": RESPONSE}, *made]
        made += [{"p": "abc", "type": end, "response": {**RESPONSE, "status": end.rpartition(".")[2]}}]
    kind = draw(st.sampled_from(("events", "events", "events", "gateway error", "error")))
    if kind == "gateway error":
        made.insert(0, draw(st.sampled_from(_GATEWAY_ERRORS)))
    elif kind == "error":
        # Our clients end a stream of `/responses` at its terminal event, and what follows it may be lost.
        made.insert(draw(st.integers(0, len(made) - (call == "responses"))), _OPENAI_ERROR)
    return draw(_framed(call, kind, made))


@st.composite
def _framed(draw: Callable[..., Any], call: str, kind: str, made: Sequence[dict[str, Any]]) -> Body:
    """Write events as lines, with comments and blank lines around and between them."""
    newline = draw(st.sampled_from((b"\n", b"\r\n")))
    space = draw(st.sampled_from((b" ", b"")))
    named = call == "responses" and draw(st.booleans())
    to_json = draw(_writers())
    fillers = st.lists(st.sampled_from((b": keep-alive", b":", b"")), max_size=3).map(
        lambda lines: b"".join(line + newline for line in lines)
    )
    parts = [draw(fillers)]
    for event in made:
        name = b"event:" + space + event["type"].encode() + newline if named and "type" in event else b""
        parts += [name + b"data:" + space + to_json(event) + newline, newline, draw(fillers)]
    if call == "chat stream":
        parts.append(b"data:" + space + b"[DONE]")
    else:
        parts.pop()
    end = sum(map(len, parts))
    if call == "chat stream":
        parts += [newline, newline]
    parts.append(draw(fillers))
    label = draw(st.sampled_from(("text/event-stream; charset=utf-8", "Text/Event-Stream", "")))
    return Body(call, kind, tuple(parts), end, content_type=label)


@st.composite
def _writers(draw: Callable[..., Any]) -> Callable[[Any], bytes]:
    ascii_only, separators = draw(st.booleans()), draw(st.sampled_from(((",", ":"), (", ", ": "))))

    def to_json(value: Any) -> bytes:
        return json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode("utf-8", "replace")

    return to_json


@st.composite
def _plain(draw: Callable[..., Any]) -> Body:
    """Make a body of status 200 that is no stream."""
    kinds = {
        "json": _TEXT.map(_completion),
        "any json": _JSON.filter(lambda value: not isinstance(value, dict)),
        "error in a 200": st.sampled_from((*_GATEWAY_ERRORS, _OPENAI_ERROR)),
    }
    kind = draw(st.sampled_from(sorted(kinds)))
    content, to_json = draw(kinds[kind]), draw(_writers())
    blank = draw(st.sampled_from((b"", b"\n", b"\n\r\n\n")))  # DeepSeek sends empty lines while a request waits
    call = "chat" if kind != "json" else draw(st.sampled_from(("chat", "chat stream")))
    return Body(call, kind if call == "chat" else "json for a stream", (blank, to_json(content)), original=content)


def _completion(text: str) -> dict[str, Any]:
    return {**COMPLETION, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


@st.composite
def _errors(draw: Callable[..., Any]) -> Body:
    """Make an error with any status, in anybody's form."""
    call, status = draw(st.sampled_from(("chat", "chat stream"))), draw(st.sampled_from(_STATUSES))
    kind = draw(st.sampled_from(("openai error", "other error", "other error")))
    if kind == "openai error":
        error = {"message": draw(_TEXT), **draw(st.dictionaries(st.sampled_from(("type", "code", "param")), _LEAVES))}
        original: Any = {"error": error}
    else:
        texts = st.sampled_from(("", "error code: 1010", "<html><title>502</title></html>")) | st.text(max_size=30)
        original = draw(st.sampled_from(_GATEWAY_ERRORS) | texts | _JSON)
    body = original.encode() if isinstance(original, str) else draw(_writers())(original)
    label = draw(st.sampled_from(("application/json", "text/html", "text/event-stream", "")))
    return Body(call, kind, (body,), status=status, content_type=label, original=original)


@st.composite
def answers(draw: Callable[..., Any]) -> Answer:
    """Frame a body for the wire: its encoding, its chunks, and where it is cut."""
    body: Body = draw(st.one_of(_events(), _events(), _plain(), _errors()))
    encoding = draw(st.sampled_from((None, None, "gzip", "deflate", "identity")))
    payload = _encoded(body.parts, encoding)
    framing = draw(st.sampled_from(("chunked", "chunked", "content-length", "close")))
    if framing == "chunked":
        step = max(draw(st.sampled_from((1, 2, 7, 1000, 100_000))), len(payload) // 40)
        borders = draw(st.lists(st.integers(0, len(payload)), max_size=3))
        segments = _chunks(payload, sorted({0, *range(0, len(payload), step), *borders, len(payload)}))
    else:
        segments = [(payload, True)]
    length = sum(len(data) for data, _ in segments)
    cut = draw(st.integers(0, length - 1)) if length and draw(st.booleans()) else length
    keeps = framing != "close" and draw(st.booleans())
    headers = {
        "content-type": body.content_type,
        "content-encoding": encoding,
        "connection": "" if keeps else "close",
        "content-length": str(length) if framing == "content-length" else "",
        "transfer-encoding": "chunked" if framing == "chunked" else "",
    }
    lines = [f"HTTP/1.1 {body.status} Made Up", *(f"{name}: {value}" for name, value in headers.items() if value)]
    head = "\r\n".join([*lines, "", ""]).encode()
    sent = b"".join(data for data, _ in segments)[:cut]
    arrived = _decoded(_payload(segments, cut), encoding)
    broken = cut < length and framing != "close"
    return Answer(body, head + sent, not keeps or cut < length, broken, arrived)


def _chunks(payload: bytes, borders: Sequence[int]) -> list[tuple[bytes, bool]]:
    """Cut a payload into chunks: bytes, and whether they are payload."""
    segments: list[tuple[bytes, bool]] = []
    for start, stop in pairwise(borders):
        segments += [(b"%x\r\n" % (stop - start), False), (payload[start:stop], True), (b"\r\n", False)]
    return [*segments, (b"0\r\n\r\n", False)]


def _payload(segments: Sequence[tuple[bytes, bool]], cut: int) -> bytes:
    """Give the payload in the first bytes of a framed body."""
    arrived = b""
    for data, is_payload in segments:
        arrived += data[: max(cut, 0)] if is_payload else b""
        cut -= len(data)
    return arrived


def _encoded(parts: Sequence[bytes], encoding: str | None) -> bytes:
    """Compress part by part, as a server does that sends each event at once."""
    if encoding not in {"gzip", "deflate"}:
        return b"".join(parts)
    compressor = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    sent = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return b"".join((*sent, compressor.flush()))


def _decoded(payload: bytes, encoding: str | None) -> bytes:
    return zlib.decompressobj(wbits=47).decompress(payload) if encoding in {"gzip", "deflate"} else payload
