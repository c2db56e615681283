"""The page for whoever opens the emulator in a browser: the exchanges as they happen, without their secrets.

`GET /` is the page for those who accept HTML, which API clients do not; `/_exchanges` is a stream of rows
(server-sent events) and `/_exchanges/{number}` what was sent and received. No provider of the gateway is called so.

Prompts and answers are anybody's text. The page only ever shows them as text, and may not load or run anything else.
Websites whose name someone has pointed at 127.0.0.1 (DNS rebinding) are refused by their `Host`.
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deepseek_gateway.emulator._exchange import ReceivedRequest, from_json, mapping
from deepseek_gateway.emulator._gateway import locate
from deepseek_gateway.emulator._policies import counted
from deepseek_gateway.emulator._record import MOST_EXCHANGES, Exchange, Record

_EVENTS = "/_exchanges"
_LONGEST_BODY = 65_536
_SHORTEST_SECRET = 8
_CREDENTIAL = re.compile(r".*(authorization|cookie|api-?key|secret|token|jwt).*", re.IGNORECASE)
_SCHEMED = re.compile(r"(?:(bearer|basic|token)\s+)?(.*)", re.IGNORECASE | re.DOTALL)
_DENIED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SAFE = {
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

Mask = Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An exchange in one line.

    Attributes:
        number: Counts the requests that were received, from 1.
        began: When it was received, in seconds since 1970.
        method: `POST`, `GET`, ...
        path: The path of the URL, ...
        route: ... which belongs to this route, ...
        endpoint: ... and means this path below it, such as `/chat/completions`.
        asked: The model that was asked for, if any.
        sent: The model that DeepSeek was asked for, `None` if the gateway answered by itself.
        status: The status that was sent, `None` before, and if none was.
        cache: `MISS`, `HIT` or nothing.
        tokens: How many were asked, answered, and read from DeepSeek's cache, if the answer says so.
        streamed: Whether the answer is a stream.
        complete: Whether the answer came to its proper end.
        seconds: How long it took, `None` while it goes on.
    """

    number: int
    began: float
    method: str
    path: str
    route: str
    endpoint: str
    asked: str
    sent: str | None
    status: int | None
    cache: str
    tokens: tuple[int, int, int] | None
    streamed: bool
    complete: bool
    seconds: float | None


def to_row(exchange: Exchange, known: Collection[str]) -> Row:
    """Return the row of an exchange, without the `known` secrets and those that it brought along."""
    mask, request, headers = _masking(exchange, known), exchange.request, Headers(dict(exchange.headers))
    target, upstream = locate(request.path), request.upstream
    served = target.provider in {"deepseek", "compat"}
    return Row(
        number=exchange.number,
        began=exchange.began,
        method=request.method,
        path=mask(request.path),
        route=target.route if served else "",
        endpoint=mask(target.path if served else request.path),
        asked=mask(_model(request)),
        sent=None if upstream is None else mask(_model(upstream)),
        status=exchange.status,
        cache=headers.get("cf-aig-cache-status", ""),
        tokens=_tokens(b"".join(exchange.sent)) if exchange.seconds is not None else None,
        streamed="event-stream" in headers.get("content-type", ""),
        complete=exchange.complete,
        seconds=exchange.seconds,
    )


def to_parts(exchange: Exchange, known: Collection[str]) -> list[dict[str, Any]]:
    """Return what an exchange consists of: each request and the answer, with headers and body, without secrets."""
    mask, request, upstream = _masking(exchange, known), exchange.request, exchange.request.upstream
    parts = [_part("Caller to gateway", _line(request), request.headers.items(), request.body, mask)]
    if upstream is None:
        parts.append({"title": "Gateway to DeepSeek", "line": "Not sent: the gateway answered by itself."})
    else:
        tries = f" ({len(request.attempts)} tries)" if len(request.attempts) > 1 else ""
        parts.append(
            _part(f"Gateway to DeepSeek{tries}", _line(upstream), upstream.headers.items(), upstream.body, mask)
        )
    ended = "" if exchange.complete else " (cut off)" if exchange.seconds is not None else " (not ended yet)"
    line = f"{exchange.status or 'No status'}{ended}"
    return [*parts, _part("Answer", line, exchange.headers, b"".join(exchange.sent), mask)]


def _part(title: str, line: str, headers: Collection[tuple[str, str]], body: bytes, mask: Mask) -> dict[str, Any]:
    value = from_json(body)
    text = mask(body.decode(errors="replace") if value is None else json.dumps(value, indent=2, ensure_ascii=False))
    note = f"The first {_LONGEST_BODY:,} of {len(text):,} characters." if len(text) > _LONGEST_BODY else ""
    shown = [_header(*pair, mask) for pair in headers]
    return {"title": title, "line": mask(line), "headers": shown, "body": text[:_LONGEST_BODY], "note": note}


def _line(request: ReceivedRequest) -> str:
    return f"{request.method} {request.path}{'?' if request.query else ''}{request.query}"


def _model(request: ReceivedRequest) -> str:
    return str(mapping(request.json).get("model", ""))


def _tokens(body: bytes) -> tuple[int, int, int] | None:
    """Read the tokens off an answer, whole or stream: there they are in the last event that has any."""
    for text in (body, *reversed(re.findall(rb"(?m)^data: (\{.*)$", body))):
        answer = mapping(from_json(text))
        if counts := counted(answer) or counted(answer.get("response")):
            return counts
    return None


def _credential(name: str, value: str) -> tuple[str, str] | None:
    """Return the scheme, if it is a usual one, and the secret of a header that holds a credential."""
    found = _SCHEMED.fullmatch(value)
    scheme, secret = found.groups("") if found else ("", value)
    return (scheme, secret) if scheme.lower() == "bearer" or _CREDENTIAL.fullmatch(name) else None


def _header(name: str, value: str, mask: Mask) -> tuple[str, str]:
    scheme, secret = _credential(name, value) or ("", "")
    return name, f"{scheme} [{len(secret)} characters]".strip() if secret else mask(value)


def _masking(exchange: Exchange, known: Collection[str]) -> Mask:
    """Return what replaces secrets by their length: the `known` ones, and those in the exchange's own headers.

    Of the latter, very short ones are no secrets, and would spoil ordinary text. A secret is found as it is, as JSON
    and URLs spell it, and by its last four characters where DeepSeek repeats them.
    """
    sent = [pair for request in (exchange.request, *exchange.request.attempts) for pair in request.headers.items()]
    brought = {credential[1] for pair in sent if (credential := _credential(*pair))}
    masks: dict[str, str] = {}
    for secret in {*known, *(secret for secret in brought if len(secret) >= _SHORTEST_SECRET)}:
        spellings = secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe="")
        masks |= dict.fromkeys(spellings, f"[{len(secret)} characters]")
        masks["****" + secret[-4:]] = "****[4 characters]"
    pattern = re.compile("|".join(re.escape(spelled) for spelled in sorted(masks, key=len, reverse=True)))
    return lambda text: pattern.sub(lambda found: masks[found[0]], text)


class Page:
    """The page of one emulator."""

    def __init__(self, record: Record, known: Collection[str], environ: Callable[[], Mapping[str, str]]) -> None:
        """Show `record` without the `known` secrets; `environ` gives the settings to paste."""
        self._record, self._known, self._environ = record, known, environ
        # A page that outlives the emulator must not take another one's changes for those that it missed.
        self._run = secrets.token_hex(4)

    def answer(self, request: Request) -> Response | None:
        """Return what to answer if the request is for the page, not for the gateway."""
        path, accept = request.scope["path"], request.headers.get("accept", "")
        below = path.startswith(f"{_EVENTS}/")
        if request.method != "GET" or not (below or path == _EVENTS or (path == "/" and "text/html" in accept)):
            return None
        nonce = secrets.token_urlsafe(16)
        if not _is_loopback(request.headers.get("host", "")):
            text = "This page is shown under a loopback name only; open it as http://127.0.0.1 or http://localhost.\n"
            response = Response(text, 403, media_type="text/plain")
        elif path == _EVENTS:
            events = self._events(request.headers.get("last-event-id", ""))
            response = StreamingResponse(events, media_type="text/event-stream")
        elif below:
            number = path.removeprefix(f"{_EVENTS}/")
            exchange = self._record.find(int(number)) if re.fullmatch(r"[0-9]{1,15}", number) else None
            parts = to_parts(exchange, self._known) if exchange else []
            response = Response(json.dumps(parts), 200 if exchange else 404, media_type="application/json")
        else:
            html = Path(__file__).with_name("_page.html").read_text(encoding="utf-8")
            response = Response(html.replace("{{nonce}}", nonce), media_type="text/html")
        allowed = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:"
        response.headers.update({"content-security-policy": f"default-src 'none'; {allowed}; {_DENIED}", **_SAFE})
        return response

    async def _events(self, last: str) -> AsyncIterator[str]:
        """Yield the exchanges that changed after the event `last`, then each one when it changes."""
        missed = re.fullmatch(rf"{self._run}\.([0-9]{{1,15}})", last)
        seen = int(missed[1]) if missed else 0
        changed = asyncio.Event()
        self._record.watchers.add(changed)
        try:
            about = {"run": self._run, "most": MOST_EXCHANGES, "empty": not self._record.since(0)}
            yield f"retry: 1000\nevent: run\ndata: {json.dumps(about | {'settings': self._settings()})}\n\n"
            while True:
                changed.clear()
                for change, exchange in self._record.since(seen):
                    seen = change
                    row = json.dumps(asdict(to_row(exchange, self._known)))
                    yield f"id: {self._run}.{change}\ndata: {row}\n\n"
                await changed.wait()
        finally:
            self._record.watchers.discard(changed)

    def _settings(self) -> str:
        """Return the settings to paste; a secret that is no fake of the emulator's own stays out."""
        shown = {
            name: "..." if value in self._known and not value.startswith("emulator-") else value
            for name, value in self._environ().items()
        }
        return "\n".join(f"export {name}='{value}'" for name, value in shown.items())


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    return False
