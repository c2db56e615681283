"""The faults of the raw server. A fault turns a good reply into a script of what happens on the connection.

No fault sends a second response to a request. Over httpx the next call on that connection would be given this response,
as it would by the bare client, because the HTTP library keeps what it has read beyond a response.
"""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.chaos.answering import IS_HASTY, WARM_UP

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.chaos.answering import Reply

Step: TypeAlias = bytes | float | Literal["close", "reset", "stall"]
"""Bytes to send, seconds to wait, or what happens to the connection. After the last step it is kept."""

Fault: TypeAlias = "Callable[[Random, Reply], list[Step]]"

_AT_ONCE = "retry-after-ms: 20"
_ERROR = json.dumps({"error": {"message": "chaos", "type": "server_error", "param": None, "code": "x"}}).encode()
_PAGE = b"<html><head><title>chaos</title></head><body>" + b"no answer " * 50 + b"</body></html>"
_ENDLESS_PIECES = 60


def _head(status: int, *headers: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} Chaos", *headers, "")).encode()


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def _pieces(random: Random, body: bytes, most: int = 12) -> list[bytes]:
    """Cut a body anywhere."""
    cuts = sorted({0, len(body), *(random.randint(0, len(body)) for _ in range(random.randint(0, most)))})
    return [body[start:end] for start, end in pairwise(cuts)]


def _sent(random: Random, body: bytes, content_type: str, *headers: str, status: int = 200) -> list[Step]:
    """Send a body whole, in chunks or with its length."""
    kind = f"content-type: {content_type}"
    if random.random() < 0.5:
        return [_head(status, kind, *headers, f"content-length: {len(body)}") + body]
    framed = b"".join(_chunked(piece) for piece in _pieces(random, body))
    return [_head(status, kind, *headers, "transfer-encoding: chunked") + framed + b"0\r\n\r\n"]


def _whole(random: Random, reply: Reply, *headers: str) -> list[Step]:
    return _sent(random, reply.body, reply.content_type, *headers)


def _bytes(random: Random, reply: Reply) -> bytes:
    return b"".join(step for step in _whole(random, reply) if isinstance(step, bytes))


def _part(random: Random, reply: Reply) -> bytes:
    """Send a part of the response that ends anywhere, with equal chances in the headers and in the body."""
    data = _bytes(random, reply)
    body = data.index(b"\r\n\r\n") + 4
    end = random.randrange(body) if random.random() < 0.3 else random.randrange(body, len(data))
    return data[:end]


def _dripped(random: Random, reply: Reply) -> list[Step]:
    steps: list[Step] = []
    for piece in _pieces(random, _bytes(random, reply), most=20):
        steps += [piece, random.uniform(0, 0.01)]
    return steps


def _commented(random: Random, reply: Reply) -> list[Step]:
    """Send what DeepSeek sends while it works: comments in a stream, blank lines before JSON."""
    filler = b": keep-alive\n\n" if reply.streamed else b"\n"
    body = [filler * random.randint(0, 5)]
    for piece in reply.pieces:
        body += [piece, filler * random.choice((0, 0, 1, 3)) if reply.streamed else b""]
    framed = b"".join(_chunked(piece) for piece in body)
    return [_head(200, f"content-type: {reply.content_type}", "transfer-encoding: chunked") + framed + b"0\r\n\r\n"]


def _compressed(random: Random, reply: Reply) -> list[Step]:
    return _sent(random, gzip.compress(reply.body), reply.content_type, "content-encoding: gzip")


def _closing(random: Random, reply: Reply) -> list[Step]:
    return [*_whole(random, reply, "connection: close"), "close"]


def _informed(random: Random, reply: Reply) -> list[Step]:
    return [b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n", *_whole(random, reply)]


def _until_closed(_: Random, reply: Reply) -> list[Step]:
    return [_head(200, f"content-type: {reply.content_type}") + reply.body, "close"]


def _ended_early(random: Random, reply: Reply) -> list[Step]:
    """End the chunks properly in the middle of the body."""
    body = reply.body[: random.randrange(len(reply.body) - 8)]
    head = _head(200, f"content-type: {reply.content_type}", "transfer-encoding: chunked")
    return [head + _chunked(body) + b"0\r\n\r\n"]


def _wrong_length(random: Random, reply: Reply) -> list[Step]:
    length = len(reply.body) + random.choice((-20, -1, 1, 1000))
    return [_head(200, f"content-type: {reply.content_type}", f"content-length: {length}") + reply.body, "close"]


def _broken_framing(random: Random, reply: Reply) -> list[Step]:
    kind = f"content-type: {reply.content_type}"
    chunked = _head(200, kind, "transfer-encoding: chunked")
    broken = random.choice(
        (
            chunked + b"zz\r\n" + reply.body,
            chunked + b"%x\r\n%s" % (len(reply.body) - 2, reply.body) + b"\r\n0\r\n\r\n",
            chunked + b"ffffffffffffffffffffff\r\n" + reply.body,
            _head(200, kind, "content-length: -1") + reply.body,
            _head(200, kind, "content-length: 5", "content-length: 6") + reply.body,
            _head(200, kind, "no colon here", "content-length: 0"),
            _head(200, kind, "x: " + "y" * 200_000, "content-length: 0"),
            b"HTTP/9.9 hello\r\n\r\n" + reply.body,
            reply.body,
            b"\x00\xff\x16\x03\x01" * 20,
        )
    )
    return [broken, "close"]


def _wrong_encoding(random: Random, reply: Reply) -> list[Step]:
    packed = gzip.compress(reply.body)
    encoding, body = random.choice(
        (
            ("gzip", reply.body),
            ("gzip", packed[: len(packed) // 2]),
            ("gzip", packed[:-4] + b"\0\0\0\0"),
            ("deflate", reply.body),
            ("gzip", zlib.compress(reply.body)),
        )
    )
    return _sent(random, body, reply.content_type, f"content-encoding: {encoding}")


def _other_charset(random: Random, reply: Reply) -> list[Step]:
    """Send UTF-16, with or without saying so, or one byte in an id that is not UTF-8."""
    body, kind = random.choice(
        (
            (reply.body.decode().encode("utf-16"), f"{reply.content_type}; charset=utf-16"),
            (reply.body.decode().encode("utf-16"), reply.content_type),
            (reply.body.replace(b'"id": "', b'"id": "\xff', 1), reply.content_type),
        )
    )
    return _sent(random, body, kind)


def _not_an_answer(random: Random, _: Reply) -> list[Step]:
    """Answer 200 with something else than a completion or a stream."""
    body, kind = random.choice(
        ((_PAGE, "text/html"), (b"", "application/json"), (b"no", "text/plain"), (b"[]", "application/json"))
    )
    return _sent(random, body, kind)


def _page(random: Random, _: Reply) -> list[Step]:
    return _sent(random, _PAGE, "text/html", _AT_ONCE, status=random.choice((403, 502, 503, 520, 522, 524, 530)))


def _error(random: Random, _: Reply) -> list[Step]:
    status = random.choice((400, 401, 402, 404, 408, 409, 422, 429, 500, 503, 504))
    body = random.choice((_ERROR, _ERROR[:30], b"", b"upstream connect error"))
    return _sent(random, body, "application/json", _AT_ONCE, status=status)


def _gateway_error(random: Random, _: Reply) -> list[Step]:
    code = random.choice((2001, 2003, 2005, 2009, 2016, 2021, 7013, 9999))
    body = json.dumps({"success": False, "error": [{"code": code, "message": "chaos"}]}).encode()
    return _sent(random, body, "application/json", _AT_ONCE, status=random.choice((200, 400, 429, 503)))


def _error_event(random: Random, reply: Reply) -> list[Step]:
    if not reply.streamed:
        return _sent(random, _ERROR, "application/json")
    error = random.choice((_ERROR, b'{"success":false,"error":[{"code":2005,"message":"chaos"}]}'))
    events = reply.pieces[: random.randrange(len(reply.pieces))]
    return _sent(random, b"".join((*events, b"data: ", error, b"\n\n")), reply.content_type)


def _redirect(random: Random, _: Reply) -> list[Step]:
    place = random.choice(
        ("http://127.0.0.1:9/elsewhere", "https://chaos.cloudflareaccess.com/login", "/same", "", "::")
    )
    return _sent(random, _PAGE, "text/html", f"location: {place}", status=random.choice((301, 302, 303, 307, 308)))


def _endless_error(random: Random, reply: Reply) -> list[Step]:
    """Begin the body of an error that does not end before the client leaves, or for some seconds."""
    status = random.choice((400, 429, 500, 503))
    steps: list[Step] = [_head(status, "content-type: text/plain", _AT_ONCE, "transfer-encoding: chunked")]
    piece = _chunked(b"and so on " * random.choice((1, 10_000)))
    for _ in range(_ENDLESS_PIECES):
        steps.extend((piece, 0.02))
    return [*steps, "reset"]


HARMLESS: dict[str, Fault] = {
    "none": _whole,
    "drip": _dripped,
    "comments": _commented,
    "gzip": _compressed,
    "connection: close": _closing,
    "early hints": _informed,
    "body until the end of the connection": _until_closed,
    "idle connection closed at once": lambda random, reply: [*_whole(random, reply), "close"],
    "idle connection closed soon": lambda random, reply: [*_whole(random, reply), random.uniform(0, 0.02), "close"],
    "idle connection reset": lambda random, reply: [*_whole(random, reply), random.uniform(0.05, 0.1), "reset"],
}
"""Peculiar but whole answers. The caller must get each of them at the first try."""

HARMFUL: dict[str, Fault] = {
    "cut": lambda random, reply: [_part(random, reply), "close"],
    "reset": lambda random, reply: [_part(random, reply), random.choice((0.0, 0.01)), "reset"],
    "nothing": lambda random, _: [random.choice(("close", "reset"))],
    "ended early": _ended_early,
    "wrong length": _wrong_length,
    "broken framing": _broken_framing,
    "wrong encoding": _wrong_encoding,
    "other charset": _other_charset,
    "not an answer": _not_an_answer,
    "HTML": _page,
    "error": _error,
    "gateway error": _gateway_error,
    "error event": _error_event,
    "redirect": _redirect,
    "endless error": _endless_error,
    "late": lambda random, reply: [random.uniform(0.1, 0.6), *_whole(random, reply)],
}
HASTY: dict[str, Fault] = {"stall": lambda random, reply: [_part(random, reply), "stall"]}
"""Only calls with a short timeout meet these, so that the run does not wait most of the time."""


def fault_for(random: Random, marker: str) -> str:
    """Choose what happens to one attempt of the call with this marker."""
    if random.random() < 0.3 or marker.endswith(WARM_UP):
        return "none"
    tables = [HARMLESS, HARMFUL, HARMFUL, HARMFUL, *([HASTY] if marker.endswith(IS_HASTY) else [])]
    return random.choice(list(random.choice(tables)))


def script(name: str, random: Random, reply: Reply) -> list[Step]:
    return (HARMLESS | HARMFUL | HASTY)[name](random, reply)
