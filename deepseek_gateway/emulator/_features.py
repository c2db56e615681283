"""The features that the owner of a gateway may switch on: cache, limits and scanners; and the cost of a response."""

import re
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import replace
from math import inf
from time import monotonic

from starlette.datastructures import Headers

from deepseek_gateway.emulator._ids import digest
from deepseek_gateway.emulator._json import from_json, mapping, to_json
from deepseek_gateway.emulator._wire import ReceivedRequest, Reply

_MIN_TTL, _USUAL_TTL, _MAX_TTL = 60, 300, 30 * 24 * 3600
_MAX_BYTES = 25_000_000
_MAX_DIGITS = 20
# Off-peak USD per token (DeepSeek docs: quick_start/pricing). No price is known for other models.
PRICES: Mapping[str, Mapping[str, float]] = {
    "deepseek-flash": {"per_token_in": 0.15e-6, "per_token_out": 0.6e-6, "per_cache_read_token": 0.003e-6}
}


def cost_of(reply: Reply, prices: Mapping[str, float] | None) -> float | None:
    """Return the USD for the tokens of a response, if it has both tokens and prices.

    An omitted price for reading or writing DeepSeek's own cache is `per_token_in` (Cloudflare docs: changelog
    2026-09-09). DeepSeek counts no writes.
    """
    counts = token_counts(from_json(reply.body))
    if counts is None or prices is None:
        return None
    prompt, completion, cached = counts
    price = prices.get("per_token_in", 0.0)
    read = (prompt - cached) * price + cached * prices.get("per_cache_read_token", price)
    return prices.get("total_cost", read + completion * prices.get("per_token_out", 0.0))


def token_counts(body: object) -> tuple[int, int, int] | None:
    """Return the numbers of prompt, completion and cached tokens; chat and `/responses` name them differently."""
    usage = mapping(mapping(body).get("usage"))
    if not usage:
        return None
    details = mapping(usage.get("prompt_tokens_details", usage.get("input_tokens_details")))
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    counts = prompt, completion, details.get("cached_tokens")
    prompt, completion, cached = (count if isinstance(count, int) else 0 for count in counts)
    return prompt, completion, cached


class Window:
    """A limit of some amount within the last seconds; None is no limit."""

    def __init__(self, limit: tuple[float, float] | None) -> None:
        self._limit = limit
        self._used: deque[tuple[float, float]] = deque()

    def add(self, amount: float) -> None:
        self._used.append((monotonic(), amount))

    @property
    def full(self) -> bool:
        limit, seconds = self._limit or (inf, 0)
        while self._used and self._used[0][0] <= monotonic() - seconds:
            self._used.popleft()
        return sum(amount for _, amount in self._used) >= limit


def number(headers: Headers, *names: str) -> int | None:
    """Return the whole number in the first of the named headers that is present."""
    value = next((headers[name].strip() for name in names if name in headers), "")
    return int(value) if value.isdecimal() and len(value) < _MAX_DIGITS else None


def skips_cache(headers: Headers) -> bool:
    return headers.get("cf-aig-skip-cache", headers.get("cf-skip-cache", "")).lower() == "true"


class Cache:
    """The cache, of exact matches (Cloudflare docs: features/caching)."""

    def __init__(self, ttl: float | None) -> None:
        self._ttl = ttl
        self._kept: dict[str, tuple[float, Reply]] = {}

    def slot(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> tuple[str, float] | None:
        """Return the key of a request and the seconds to keep its response, or None if it is not cached.

        The gateway's setting opts in, and so does `cf-aig-cache-key`, which replaces the key. A TTL header alone does
        not. A TTL of 0 is not "off": hits went on for about 300 seconds (observed). Other TTLs are brought into the
        range of 60 seconds to a month. Header names without `aig` are deprecated but honoured.
        """
        headers = request.headers
        own = headers.get("cf-aig-cache-key")
        opted_in = self._ttl is not None or own is not None
        if skips_cache(headers) or not opted_in or request.method != "POST" or len(request.body) > _MAX_BYTES:
            return None
        seconds = number(headers, "cf-aig-cache-ttl", "cf-cache-ttl") or self._ttl or _USUAL_TTL
        parts = route, forwarded.path, request.model, forwarded.headers.get("authorization"), request.body
        return digest(parts if own is None else own), min(max(seconds, _MIN_TTL), _MAX_TTL)

    def clear(self) -> None:
        self._kept.clear()

    def get(self, key: str) -> Reply | None:
        """Return the response that is kept under a key, while it is fresh."""
        expires, reply = self._kept.get(key, (0.0, None))
        return reply if monotonic() < expires else None

    def put(self, key: str, seconds: float, reply: Reply) -> None:
        """Keep a successful response; streams are not cached (Cloudflare docs: reference/troubleshooting)."""
        if reply.status == 200 and not reply.streamed and reply.delivery.intact:  # noqa: PLR2004
            self._kept[key] = monotonic() + seconds, reply


def matches(texts: Collection[str] | None, body: bytes) -> list[str]:
    """Return the scanner's texts that occur in a body, in upper or lower case."""
    if not texts:
        return []
    content = to_json(from_json(body) or body.decode(errors="replace")).decode().lower()
    return [text for text in texts if text.lower() in content]


def reframed(reply: Reply, *, padding: bool, crlf: bool) -> Reply:
    """Return a stream with Cloudflare's protection against a side channel, and with its line ends (observed)."""
    if not reply.streamed:
        return reply
    chunks = reply.chunks
    if padding:
        chunks = tuple(_padded(chunk, digest("padding", index)) for index, chunk in enumerate(chunks))
    if crlf:
        chunks = tuple(chunk.replace(b"\n", b"\r\n") for chunk in chunks)
    return replace(reply, chunks=chunks, unstreamed=reply.body)


def _padded(event: bytes, random: str) -> bytes:
    first = f'data: {{"p": "{random[: 1 + int(random[-1], 16)]}", '.encode()
    return re.sub(rb"(?m)^data: \{(.+)\}$", first + rb"\1" + b" " * int(random[-2], 16) + b"}", event)
