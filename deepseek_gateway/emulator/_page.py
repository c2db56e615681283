"""The page that shows a browser the exchanges as they happen, without their secrets.

Clients that accept HTML get the page at `/`. `/_exchanges`, which is no provider's name, is a stream of rows
(server-sent events), and `/_exchanges/{number}` is one exchange.

Prompts and answers are untrusted: the page shows them as text, and may not load or run anything else. The `Host` of a
website that points at 127.0.0.1 (DNS rebinding) is refused.
"""

import asyncio
import json
import re
import secrets
import shlex
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from deepseek_gateway.emulator._features import token_counts
from deepseek_gateway.emulator._json import Json, from_json, mapping, sequence
from deepseek_gateway.emulator._prompt import text_of
from deepseek_gateway.emulator._record import MOST_EXCHANGES, Exchange, Record
from deepseek_gateway.emulator._routes import locate

_EVENTS = "/_exchanges"
_DENIED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_SAFE = {
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_MAX_SHOWN = 65_536
_MAX_PROMPT = 160
_MIN_SECRET = 8  # to mask shorter values of headers would spoil ordinary text
_CREDENTIAL = re.compile("authorization|cookie|api-?key|secret|token|jwt", re.IGNORECASE)
_SCHEMED = re.compile(r"(?:(bearer|basic|token)\s+)?(.*)", re.IGNORECASE | re.DOTALL)
Mask = Callable[[str], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """An exchange in one line.

    Attributes:
        number: Counts the requests that were received, from 1.
        began: When the request was received, in seconds since 1970.
        method: `POST`, `GET`, ...
        path: The path of the URL.
        route: The route of that path.
        endpoint: The path below that route, such as `/chat/completions`.
        asked: The model that the caller named, if any.
        sent: The model that DeepSeek was asked for; `None` if the gateway answered by itself.
        status: The status that was sent; `None` before that, and if none was.
        cache: `MISS`, `HIT` or empty.
        tokens: The numbers of prompt, completion and cached tokens, if the response has them.
        streamed: Whether the response is a stream.
        complete: Whether the response came to its proper end.
        seconds: How long the exchange took; `None` while it goes on.
        prompt: The beginning of the last message.
        code: The code of an error, or its type if it has no code.
        retry: How many tries of the caller's SDK came before.
        first: The number of the first try.
        retried: Whether another try has followed.
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
    prompt: str = ""
    code: str = ""
    retry: int = 0
    first: int = 0
    retried: bool = False


def to_row(exchange: Exchange, known: Collection[str]) -> Row:
    """Return the row of an exchange, without the `known` secrets and those in its own headers."""
    mask, request, headers = _masking(exchange, known), exchange.request, Headers(dict(exchange.headers))
    target, upstream = locate(request.path), request.upstream
    served = target.provider in {"deepseek", "compat"}
    answers = list(_answers(b"".join(exchange.chunks))) if exchange.seconds is not None else []
    return Row(
        number=exchange.number,
        began=exchange.began,
        method=request.method,
        path=mask(request.path),
        route=target.route if served else "",
        endpoint=mask(target.path if served else request.path),
        asked=mask(request.model),
        sent=None if upstream is None else mask(upstream.model),
        status=exchange.status,
        cache=headers.get("cf-aig-cache-status", ""),
        tokens=next(filter(None, map(token_counts, answers)), None),
        streamed="event-stream" in headers.get("content-type", ""),
        complete=exchange.complete,
        seconds=exchange.seconds,
        prompt=" ".join(mask(_prompt(mapping(request.json))).split())[:_MAX_PROMPT],
        code=mask(next((code for answer in answers if (code := _code(answer))), "")),
        retry=exchange.retry,
        first=exchange.first,
        retried=exchange.retried,
    )


def to_parts(exchange: Exchange, known: Collection[str]) -> list[Json]:
    """Return the two requests and the response, each with headers and body, without secrets."""
    mask, request = _masking(exchange, known), exchange.request
    title = "Gateway to DeepSeek" + (f" ({len(request.attempts)} tries)" if len(request.attempts) > 1 else "")
    requests = [("Caller to gateway", request), (title, request.upstream)]
    if request.route == "direct":
        requests = [("Caller to DeepSeek", request)]
    parts: list[Json] = []
    for name, each in requests:
        if each is None:
            parts.append({"title": name, "line": "Not sent: the gateway answered by itself."})
        else:
            line = f"{each.method} {each.path}{'?' if each.query else ''}{each.query}"
            parts.append(_part(name, line, each.headers.items(), each.body, mask))
    ended = "" if exchange.complete else " (cut off)" if exchange.seconds is not None else " (not ended yet)"
    line = f"{exchange.status or 'No status'}{ended}"
    return [*parts, _part("Answer", line, exchange.headers, b"".join(exchange.chunks), mask)]


def _part(title: str, line: str, headers: Collection[tuple[str, str]], body: bytes, mask: Mask) -> Json:
    value = from_json(body)
    text = mask(body.decode(errors="replace") if value is None else json.dumps(value, indent=2, ensure_ascii=False))
    note = f"The first {_MAX_SHOWN:,} of {len(text):,} characters." if len(text) > _MAX_SHOWN else ""
    shown: list[tuple[str, str]] = []
    for name, value in headers:
        scheme, secret = _credential(name, value)
        shown.append((name, f"{scheme} [{len(secret)} characters]".strip() if secret else mask(value)))
    return {"title": title, "line": mask(line), "headers": shown, "body": text[:_MAX_SHOWN], "note": note}


def _answers(body: bytes) -> Iterator[Json]:
    """Yield the JSON of a response; that of a stream from its end, where the tokens and errors are."""
    for text in (body, *reversed(re.findall(rb"(?m)^data: (\{.*)$", body))):
        value = mapping(from_json(text))
        yield from (value, mapping(value.get("response")))


def _code(answer: Json) -> str:
    error: Any = answer.get("error") or answer.get("errors")
    error = mapping(next(iter(sequence(error)), error))
    return str(error.get("code") or error.get("type") or "")


def _prompt(body: Json) -> str:
    said = next((body[name] for name in ("messages", "input", "prompt") if body.get(name)), "")
    return said if isinstance(said, str) else text_of(mapping((sequence(said) or [None])[-1]).get("content"))


def to_curl(exchange: Exchange, known: Collection[str], environ: Mapping[str, str]) -> str:
    """Return a command that repeats the request, with variables in place of its credentials.

    A body that is not text, or too long for a command, makes the command empty.
    """
    mask, request, body = _masking(exchange, known), exchange.request, exchange.request.body.decode(errors="replace")
    if "\ufffd" in body or len(body) > _MAX_SHOWN:
        return ""
    query, variables = f"?{request.query}" if request.query else "", {value: name for name, value in environ.items()}
    url = shlex.quote(mask(f"http://{request.headers.get('host', '')}{quote(request.path)}{query}"))
    usual = {"authorization": "DEEPSEEK_API_KEY", "cf-aig-authorization": "CF_AIG_TOKEN"}
    lines = [f"curl{'' if request.method == ('POST' if body else 'GET') else f' -X {request.method}'} {url}"]
    for name, value in request.headers.items():
        scheme, secret = _credential(name, value)
        if secret:
            variable = variables.get(secret) or usual.get(name) or re.sub(r"\W", "_", name.upper())
            lines.append(f'-H "{name}: {scheme}{" " if scheme else ""}${variable}"')
        elif name == "content-type" or name.startswith("cf-aig-"):
            lines.append(f"-H {shlex.quote(mask(f'{name}: {value}'))}")
    return " \\\n  ".join([*lines, *([f"--data-raw {shlex.quote(mask(body))}"] if body else [])])


def _credential(name: str, value: str) -> tuple[str, str]:
    """Return the scheme, if it is a usual one, and the secret of a header; both are empty without a credential."""
    scheme, secret = _SCHEMED.findall(value)[0]
    return (scheme, secret) if scheme.lower() == "bearer" or _CREDENTIAL.search(name) else ("", "")


def _masking(exchange: Exchange, known: Collection[str]) -> Mask:
    """Return a function that replaces secrets by their length: the `known` ones, and those in the exchange's headers.

    A secret is found as it is, as JSON and URLs spell it, and by its last four characters where DeepSeek repeats them.
    """
    requests = exchange.request, *exchange.request.attempts
    own = {_credential(*pair)[1] for request in requests for pair in request.headers.items()}
    masks: dict[str, str] = {}
    for secret in {*known, *(secret for secret in own if len(secret) >= _MIN_SECRET)}:
        spellings = secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe="")
        masks |= dict.fromkeys(spellings, f"[{len(secret)} characters]")
        masks["****" + secret[-4:]] = "****[4 characters]"
    pattern = re.compile("|".join(re.escape(spelled) for spelled in sorted(masks, key=len, reverse=True)))
    return lambda text: pattern.sub(lambda found: masks[found[0]], text)


class Page:
    def __init__(self, record: Record, known: Collection[str], environ: Callable[[], Mapping[str, str]]) -> None:
        """Show `record` without the `known` secrets; `environ` returns the settings to paste."""
        self._record, self._known, self._environ = record, known, environ
        # A page that outlives the emulator must not take another emulator's changes for those that the page missed.
        self._run = secrets.token_hex(4)

    def row(self, exchange: Exchange) -> Row:
        return to_row(exchange, self._known)

    def answer(self, request: Request) -> Response | None:
        """Return the response if the request is for the page and not for the gateway."""
        path, accept = request.scope["path"], request.headers.get("accept", "")
        below = path.startswith(f"{_EVENTS}/")
        if request.method != "GET" or not (below or path == _EVENTS or (path == "/" and "text/html" in accept)):
            return None
        nonce = secrets.token_urlsafe(16)
        if not is_loopback(request.headers.get("host", "")):
            text = "This page is shown under a loopback name only; open it as http://127.0.0.1 or http://localhost.\n"
            response = Response(text, 403, media_type="text/plain")
        elif path == _EVENTS:
            events = self._events(request.headers.get("last-event-id", ""))
            response = StreamingResponse(events, media_type="text/event-stream")
        elif below:
            number = path.removeprefix(f"{_EVENTS}/")
            exchange = self._record.find(int(number)) if re.fullmatch(r"[0-9]{1,15}", number) else None
            parts = to_parts(exchange, self._known) if exchange else []
            if exchange:
                parts[0]["curl"] = to_curl(exchange, self._known, self._environ())
            response = Response(json.dumps(parts), 200 if exchange else 404, media_type="application/json")
        else:
            html, script = (Path(__file__).with_name(f"_page.{kind}").read_text("utf-8") for kind in ("html", "js"))
            html = html.replace("{{nonce}}", nonce).replace("{{script}}", script)
            response = Response(html, media_type="text/html")
        allowed = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:"
        response.headers.update({"content-security-policy": f"default-src 'none'; {allowed}; {_DENIED}", **_SAFE})
        return response

    async def _events(self, last: str) -> AsyncIterator[str]:
        """Yield the exchanges that changed after the event `last`, then each exchange when it changes."""
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
                    row = json.dumps(asdict(self.row(exchange)))
                    yield f"id: {self._run}.{seen}\ndata: {row}\n\n"
                await changed.wait()
        finally:
            self._record.watchers.discard(changed)

    def _settings(self) -> dict[str, str]:
        """Return the settings to paste into a shell, without secrets other than the emulator's own fakes."""
        hidden = {value for value in self._known if not value.startswith("emulator-")}
        return {name: "..." if value in hidden else value for name, value in self._environ().items()}


def is_loopback(host: str) -> bool:
    with suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    return False
