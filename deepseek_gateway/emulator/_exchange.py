"""What travels: requests as they were received, replies as they will be sent."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeGuard, cast

from starlette.datastructures import Headers

_MOST_METADATA = 5
# The usual limit of the deserialiser whose words DeepSeek repeats (inferred; no such error is known).
_MOST_LEVELS = 128


def to_json(value: object) -> bytes:
    """Both services write compact JSON, keep non-ASCII text, and end without a line break (recorded)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def parse(text: str | bytes) -> Any:
    """Return the parsed text, or raise ValueError if it is not JSON or is nested too deeply to be read by anybody."""
    too_deep = "recursion limit exceeded"
    try:
        level: list[object] = [json.loads(text)]
    except RecursionError:
        raise ValueError(too_deep) from None
    value = level[0]
    for _ in range(_MOST_LEVELS):
        level = [inner for outer in level for inner in (*mapping(outer).values(), *sequence(outer))]
        if not level:
            return value
    raise ValueError(too_deep)


def from_json(text: str | bytes) -> Any:
    """Return the parsed text, or `None` if it is not JSON."""
    try:
        return parse(text)
    except ValueError:
        return None


def mapping(value: object) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one, so that odd requests are merely odd."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


@dataclass(kw_only=True, slots=True)
class ReceivedRequest:
    """A request as it reached the gateway and, in `attempts`, as it went on to DeepSeek.

    It is listed as soon as it is here; what becomes of it is filled in later.

    Attributes:
        method: `POST`, `GET`, ...
        path: The path of the URL, decoded, without the query.
        query: The query of the URL, without the question mark.
        headers: Case-insensitive; keeps repeated headers apart (`headers.getlist(name)`).
        body: The bytes as received.
        attempts: What DeepSeek got, once per try of the gateway; empty if the gateway answered by itself.
        cost: What the gateway logs as the cost of the answer, in USD: an estimate from the tokens, 0 if the answer
            came from the cache, `None` if the price is not known or no tokens were counted.
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)
    attempts: list[Self] = field(default_factory=list["Self"])
    cost: float | None = None

    @property
    def upstream(self) -> Self | None:
        """The request that DeepSeek got, the last one of several, or `None` if the gateway answered by itself."""
        return self.attempts[-1] if self.attempts else None

    @property
    def json(self) -> Any:
        """The body parsed as JSON, or `None` if it is not JSON."""
        return from_json(self.body)

    @property
    def metadata(self) -> dict[str, str | float | bool]:
        """What the gateway keeps of `cf-aig-metadata`.

        A null or nested value voids it all (observed), keys that start with `cf.` are stripped, and of more than five
        entries the first five stay (Cloudflare docs: observability/custom-metadata, features/policies).
        """
        sent = mapping(from_json(self.headers.get("cf-aig-metadata", "")))
        if not all(isinstance(value, str | int | float) for value in sent.values()):
            return {}
        kept = [(key, value) for key, value in sent.items() if not key.startswith("cf.")]
        return dict(kept[:_MOST_METADATA])

    @property
    def custom_cost(self) -> dict[str, float]:
        """The USD numbers of `cf-aig-custom-cost`, empty without that header."""
        sent = mapping(from_json(self.headers.get("cf-aig-custom-cost", "")))
        return {name: value for name, value in sent.items() if isinstance(value, int | float)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """How a reply goes out, which is the same for whatever it says; by default whole, at once and properly ended.

    Attributes:
        latency: Seconds until the answer begins; `math.inf` for never.
        keep_alive: Lines of filler during `latency`, and between the events of a stream.
        cut_after: The connection ends after so many bytes of the body, ...
        clean: ... with a proper end of the body instead of a closed connection.
        stall_after: Nothing more comes after so many bytes of the body, and the connection stays open.
        reset: The connection is reset instead.
    """

    latency: float = 0.0
    keep_alive: int = 0
    cut_after: int | None = None
    clean: bool = False
    stall_after: int | None = None
    reset: bool = False

    @property
    def delay(self) -> float:
        """Seconds until the headers go out, which are the first part of a response."""
        return 0.0 if self.keep_alive else self.latency

    @property
    def intact(self) -> bool:
        """Whether the body is neither cut nor filled, so that its length is known beforehand."""
        return self.cut_after is None and self.stall_after is None and not self.keep_alive


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer: one chunk is an ordinary body, `streamed` ones go out chunk by chunk.

    `unstreamed` is what would have been sent if the stream had not been asked for.
    """

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] = ()
    streamed: bool = False
    unstreamed: bytes = b""
    delivery: Delivery = Delivery()

    @property
    def body(self) -> bytes:
        """The content as one body."""
        return self.unstreamed or b"".join(self.chunks)

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """Return this reply with `headers` in front of its own."""
        return replace(self, headers=(*headers, *self.headers))


def json_reply(status: int, value: object, content_type: str = "application/json") -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status=status, headers=(("content-type", content_type),), chunks=(to_json(value),))
