"""The simplest value that fits a JSON schema."""

from contextlib import suppress
from typing import Any

from deepseek_gateway.emulator._json import Json, mapping, sequence

_MAX_VALUES = 10_000


class _NothingFits(Exception):  # noqa: N818 - control flow, not an error
    """The schema leads into itself again, or to too many values."""


def example(schema: Json) -> Any:
    """Return the simplest value that fits: required properties, first alternatives, first enum values.

    A schema that contains itself ends as early as possible: with the next alternative, such as null, or an empty array.
    The value is `{}` for a schema that cannot end or is enormous. Invalid parts of a schema count as absent.
    """
    try:
        return _Example(schema).fit(schema)
    except (_NothingFits, RecursionError):
        return {}


class _Example:
    """The making of one example, which counts its values."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._left = _MAX_VALUES

    def fit(self, schema: Json, open_references: frozenset[str] = frozenset({"#"})) -> Any:
        """Return an example of `schema`, which was reached through `open_references`."""
        self._left -= 1
        if self._left < 0:
            raise _NothingFits
        if "$ref" in schema:
            reference = str(schema["$ref"])
            if reference in open_references:
                raise _NothingFits
            return self.fit(self._referred(reference), open_references | {reference})
        alternatives = sequence(schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"))
        for alternative in alternatives:
            with suppress(_NothingFits):
                return self.fit(mapping(alternative), open_references)
        if alternatives:
            raise _NothingFits
        fixed = [schema[key] for key in ("const", "default") if key in schema] + sequence(schema.get("enum"))
        if fixed:
            return fixed[0]
        stated = schema.get("type", "object" if "properties" in schema else "string")
        kind = str(next(iter(sequence(stated)), stated))
        if kind == "object":
            properties = mapping(schema.get("properties"))
            return {
                name: self.fit(mapping(properties.get(name)), open_references)
                for name in map(str, sequence(schema.get("required")))
            }
        if kind == "array":
            return self._array(schema, open_references)
        minimum = schema.get("minimum")
        number = minimum if isinstance(minimum, int | float) else 1
        return {"integer": number, "number": number, "boolean": True, "null": None}.get(kind, "example")

    def _array(self, schema: Json, open_references: frozenset[str]) -> list[Any]:
        """Return as few items as are allowed, but one if possible."""
        stated = schema.get("minItems")
        fewest = stated if isinstance(stated, int) else 0
        items = mapping(schema.get("items"))
        try:
            return [self.fit(items, open_references) for _ in range(max(fewest, 1))]
        except _NothingFits:
            if fewest > 0:
                raise
            return []

    def _referred(self, reference: str) -> Json:
        """Return the part of the schema that a reference names (`#/$defs/Node`, or `#` for all of it)."""
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            target = mapping(target).get(step)
        return mapping(target)
