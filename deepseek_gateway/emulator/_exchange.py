"""What travels: requests as they were received, replies as they will be sent."""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeGuard, cast

from starlette.datastructures import Headers


def to_json(value: object) -> bytes:
    """Both services write compact JSON, keep non-ASCII text, and end without a line break (recorded)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def mapping(value: object) -> dict[str, Any]:
    """Return `value` if it is a JSON object, else an empty one, so that odd requests are merely odd."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """Return `value` if it is a JSON array, else an empty one."""
    return value if _is_list(value) else []


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedRequest:
    """A request as it reached the gateway and, in `upstream`, as it went on to DeepSeek.

    Attributes:
        method: `POST`, `GET`, ...
        path: The path of the URL, decoded, without the query.
        query: The query of the URL, without the question mark.
        headers: Case-insensitive; keeps repeated headers apart (`headers.getlist(name)`).
        body: The bytes as received.
        upstream: The request that DeepSeek got, or `None` if the gateway answered by itself.
    """

    method: str
    path: str
    query: str = ""
    headers: Headers = field(default_factory=Headers, repr=False)
    body: bytes = field(default=b"", repr=False)
    upstream: Self | None = None

    @property
    def json(self) -> Any:
        """The body parsed as JSON, or `None` if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer: one chunk is an ordinary body, `streamed` ones go out chunk by chunk."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    chunks: tuple[bytes, ...] = ()
    streamed: bool = False

    def with_headers(self, *headers: tuple[str, str]) -> Self:
        """Return this reply with `headers` in front of its own."""
        return replace(self, headers=(*headers, *self.headers))


def json_reply(status: int, value: object, content_type: str = "application/json") -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status=status, headers=(("content-type", content_type),), chunks=(to_json(value),))
