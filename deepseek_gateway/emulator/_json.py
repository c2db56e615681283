"""JSON as the two services read and write it."""

import json
from contextlib import suppress
from typing import Any, cast

Json = dict[str, Any]

# The usual limit of the deserialiser that DeepSeek's error texts come from (inferred; no such error is known).
_MAX_DEPTH = 128


def to_json(value: object) -> bytes:
    """Both services write compact JSON, keep non-ASCII text, and add no final line break (recorded)."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def parse(text: str | bytes) -> Any:
    """Parse JSON, or raise ValueError if the text is not JSON or is nested too deeply."""
    too_deep = "recursion limit exceeded"
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [inner for outer in level for inner in (*mapping(outer).values(), *sequence(outer))]
        if not level:
            return value
    raise ValueError(too_deep)


def from_json(text: str | bytes) -> Any:
    """Parse JSON, or return None if `parse()` would raise."""
    with suppress(ValueError):
        return parse(text)
    return None


def mapping(value: object) -> Json:
    """Return `value` if it is a JSON object, else an empty one, so that malformed requests cause no crash."""
    return cast("Json", value) if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
