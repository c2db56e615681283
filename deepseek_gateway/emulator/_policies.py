"""What the owner of a gateway may switch on: limits, scanners and a cache; and what an answer costs."""

from collections import deque
from collections.abc import Collection, Mapping
from time import monotonic
from typing import NamedTuple

from starlette.datastructures import Headers

from deepseek_gateway.emulator._answers import digest
from deepseek_gateway.emulator._exchange import ReceivedRequest, Reply, from_json, mapping, to_json

_SHORTEST_TTL, _USUAL_TTL, _LONGEST_TTL = 60, 300, 30 * 24 * 3600
_LARGEST_CACHED = 25_000_000
_MOST_DIGITS = 20
# Off-peak USD per token (DeepSeek docs: quick_start/pricing); of other models no price is known here.
_PRICES: Mapping[str, Mapping[str, float]] = {
    "deepseek-flash": {"per_token_in": 0.15e-6, "per_token_out": 0.6e-6, "per_cache_read_token": 0.003e-6}
}


def number(headers: Headers, *names: str) -> int | None:
    """Return the whole number in the first of the headers that is there."""
    value = next((headers[name].strip() for name in names if name in headers), "")
    return int(value) if value.isdecimal() and len(value) < _MOST_DIGITS else None


def found(words: Collection[str] | None, body: bytes) -> list[str]:
    """Return those of `words` that occur in the text of a body, in whatever case."""
    if not words:
        return []
    text = to_json(from_json(body) or body.decode(errors="replace")).decode().lower()
    return [word for word in words if word.lower() in text]


def prices(request: ReceivedRequest, model: str) -> Mapping[str, float] | None:
    """Return the USD per token that the caller names, else the gateway's own; an unknown model has no price."""
    return request.custom_cost or _PRICES.get(model)


def cost(reply: Reply, prices: Mapping[str, float] | None) -> float | None:
    """Return the USD for the tokens of an answer, if there are both tokens and prices.

    A price for reading or writing DeepSeek's own cache is `per_token_in` when omitted (Cloudflare docs: changelog
    2026-09-09); DeepSeek counts no writes.
    """
    counts = counted(from_json(reply.body))
    if counts is None or prices is None:
        return None
    asked, answered, cached = counts
    price = prices.get("per_token_in", 0.0)
    tokens = (asked - cached) * price + cached * prices.get("per_cache_read_token", price)
    estimate = tokens + answered * prices.get("per_token_out", 0.0)
    return prices.get("total_cost", estimate)


def counted(answer: object) -> tuple[int, int, int] | None:
    """Return the tokens asked, answered and read from DeepSeek's cache; chat and `/responses` name them differently."""
    usage = mapping(mapping(answer).get("usage"))
    if not usage:
        return None
    details = mapping(usage.get("prompt_tokens_details", usage.get("input_tokens_details")))
    return (
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _count(usage.get("completion_tokens", usage.get("output_tokens"))),
        _count(details.get("cached_tokens")),
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


class Window:
    """A limit of some amount within the last seconds; None is no limit."""

    def __init__(self, limit: tuple[float, float] | None) -> None:
        """Count from nothing."""
        self._limit = limit
        self._counted: deque[tuple[float, float]] = deque()

    def add(self, amount: float) -> None:
        """Count `amount` from now on."""
        if self._limit is not None:
            self._counted.append((monotonic(), amount))

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        if self._limit is None:
            return False
        most, seconds = self._limit
        while self._counted and self._counted[0][0] <= monotonic() - seconds:
            self._counted.popleft()
        return sum(amount for _, amount in self._counted) >= most


class Slot(NamedTuple):
    """A place in the cache for one request: under which key, for how many seconds."""

    key: str
    seconds: float


class Cache:
    """The gateway's cache, of exact matches (Cloudflare docs: features/caching)."""

    def __init__(self, ttl: float | None) -> None:
        """Keep answers for `ttl` seconds, 0 being no say in how long; without, only requests that ask are cached."""
        self._ttl = ttl
        self._kept: dict[str, tuple[float, Reply]] = {}

    def slot(self, request: ReceivedRequest, forwarded: ReceivedRequest, route: str) -> Slot | None:
        """Return the request's place, or None if it is not cached.

        The gateway's setting opts in, and so does a key of the caller's own, which the body is then no part of. A
        lifetime alone does not. A lifetime of 0 is not "off", neither in the setting nor in a header: hits went on for
        about 300 seconds (observed). Others are brought into the range of 60 seconds to a month. The names without
        `aig` are old, but still honoured. Routes share no entries; metadata and the like do not count.
        """
        headers = request.headers
        skip = headers.get("cf-aig-skip-cache", headers.get("cf-skip-cache", "")).lower() == "true"
        own = headers.get("cf-aig-cache-key")
        opted_in = self._ttl is not None or own is not None
        if skip or not opted_in or request.method != "POST" or len(request.body) > _LARGEST_CACHED:
            return None
        seconds = number(headers, "cf-aig-cache-ttl", "cf-cache-ttl") or self._ttl or _USUAL_TTL
        key = forwarded.headers.get("authorization")
        parts = (route, forwarded.path, mapping(request.json).get("model"), key, request.body)
        return Slot(digest(own) if own is not None else digest(parts), min(max(seconds, _SHORTEST_TTL), _LONGEST_TTL))

    def get(self, slot: Slot) -> Reply | None:
        """Return what is kept for a request, while it is fresh."""
        expires, reply = self._kept.get(slot.key, (0.0, None))
        return reply if monotonic() < expires else None

    def put(self, slot: Slot, reply: Reply) -> None:
        """Keep a good answer; streams are not cached (Cloudflare docs: reference/troubleshooting)."""
        if reply.status == 200 and not reply.streamed and reply.delivery.intact:  # noqa: PLR2004
            self._kept[slot.key] = monotonic() + slot.seconds, reply
