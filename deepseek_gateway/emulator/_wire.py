"""What travels: requests as they were received, replies before they are sent."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from starlette.datastructures import Headers

from deepseek_gateway.emulator._json import from_json, mapping, to_json

Route = Literal["provider", "compat", "rest", "direct"]
Pairs = tuple[tuple[str, str], ...]
JSON_TYPE, TEXT_TYPE = "application/json", "text/plain; charset=UTF-8"
_MAX_METADATA = 5


@dataclass(kw_only=True, slots=True)
class ReceivedRequest:
    """A request as it was received and, in `attempts`, as it reached DeepSeek.

    Attributes:
        method: `POST`, `GET`, ...
        path: The path of the URL, decoded, without the query.
        route: `provider`, `compat`, `rest`, or `direct` for a request to DeepSeek itself.
        query: The query of the URL, without the question mark.
        headers: Case-insensitive. Repeated headers are kept apart (`headers.getlist(name)`).
        body: The bytes as received.
        attempts: The request that DeepSeek got, once per attempt so far; empty if the gateway answered by itself. A
            direct request has one, with all its headers.
        cost: The cost in USD that the gateway logs: an estimate from the tokens, 0 if the answer came from the cache,
            `None` if the model has no known price, no tokens were counted, or the gateway was not asked.
    """

    method: str
    path: str
    route: Route = "provider"
    query: str = ""
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)
    attempts: list[Self] = field(default_factory=list["Self"])
    cost: float | None = None

    @property
    def upstream(self) -> Self | None:
        """The request that DeepSeek got in the last attempt, or `None` if the gateway answered by itself."""
        return self.attempts[-1] if self.attempts else None

    @property
    def json(self) -> Any:
        """The body parsed as JSON, or `None` if it is not JSON."""
        return from_json(self.body)

    @property
    def model(self) -> str:
        """The model that the body names, empty if there is none."""
        return str(mapping(self.json).get("model", ""))

    @property
    def metadata(self) -> dict[str, str | float | bool]:
        """The part of `cf-aig-metadata` that the gateway keeps.

        A null or nested value makes the gateway drop all metadata (observed). Otherwise it keeps the first five entries
        and strips keys that start with `cf.` (Cloudflare docs: observability/custom-metadata, features/policies).
        """
        entries = mapping(from_json(self.headers.get("cf-aig-metadata", "")))
        if not all(isinstance(value, str | int | float) for value in entries.values()):
            return {}
        kept = [(key, value) for key, value in entries.items() if not key.startswith("cf.")]
        return dict(kept[:_MAX_METADATA])

    @property
    def custom_cost(self) -> dict[str, float]:
        """The USD numbers in `cf-aig-custom-cost`; empty without that header."""
        entries = mapping(from_json(self.headers.get("cf-aig-custom-cost", "")))
        return {name: value for name, value in entries.items() if isinstance(value, int | float)}


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a reply is sent: by default whole, at once, and with a proper end; see `Emulator.fail_next()`."""

    latency: float = 0.0
    keep_alive: int = 0
    cut_after: int | None = None
    clean: bool = False
    stall_after: int | None = None
    reset: bool = False

    @property
    def delay(self) -> float:
        """Seconds until the headers are sent, which are the first part of a response."""
        return 0.0 if self.keep_alive else self.latency

    @property
    def intact(self) -> bool:
        """Whether the body is neither cut nor filled, so that its length is known beforehand."""
        return self.cut_after is None and self.stall_after is None and not self.keep_alive


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A response. An ordinary body is one chunk; a streamed one is sent chunk by chunk.

    `unstreamed` is the body that would have been sent if no stream had been asked for.
    """

    status: int
    headers: Pairs = ()
    chunks: tuple[bytes, ...] = ()
    streamed: bool = False
    unstreamed: bytes = b""
    delivery: Delivery = Delivery()

    @property
    def body(self) -> bytes:
        return self.unstreamed or b"".join(self.chunks)

    def as_one_body(self) -> Self:
        """Return this reply as it would be if no stream had been asked for."""
        if not self.streamed:
            return self
        kept = tuple(pair for pair in self.headers if pair[0] not in {"content-type", "cache-control"})
        return replace(self, headers=(("content-type", JSON_TYPE), *kept), chunks=(self.body,), streamed=False)

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """Return this reply with more headers; one that the reply has already, as from `fail_next()`, is kept."""
        own = {name for name, _ in self.headers}
        return replace(self, headers=(*(pair for pair in headers if pair[0] not in own), *self.headers))


def body_reply(status: int, body: bytes, content_type: str | None) -> Reply:
    """Return a reply with one body; `content_type` None sends no such header."""
    return Reply(status=status, headers=(("content-type", content_type),) if content_type else (), chunks=(body,))


def json_reply(status: int, value: object, content_type: str = JSON_TYPE) -> Reply:
    return body_reply(status, to_json(value), content_type)
