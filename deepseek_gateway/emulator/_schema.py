"""JSON schemas: the one in a text, and the smallest value that fits one.

Both searches have a limited effort, because a text or a schema of some kilobytes can keep an unlimited one busy for
hours.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice
from math import inf, isfinite
from typing import Any

from deepseek_gateway.emulator._json import Json, mapping, sequence, to_json

_MAX_SIZE = 10_000
_MAX_LIMITS = 16
# So many items of a list, members of an object or characters of a text cost as much as one step of the search.
_CHEAP = 100
_OBJECT = re.compile(r'\{\s*"')
_WORD, _DAY, _UUID = "example", "2026-11-01", "00000000-0000-4000-8000-000000000000"
_FORMATS = (
    {"date": _DAY, "date-time": f"{_DAY}T00:00:00Z", "time": "00:00:00Z", "duration": "P1D", "uuid": _UUID}
    | {"uuid4": _UUID, "email": "user@example.com", "uri": "https://example.com/"}
    | {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}
)  # fmt: skip
_LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_TYPES: dict[str, Any] = (
    {"object": dict, "array": list, "string": str, "integer": int, "number": int | float, "boolean": bool}
    | {"null": type(None)}
)  # fmt: skip
# The type that is meant where none is stated. Without these keywords it is a string.
_IMPLIED = {"properties": "object", "required": "object", "items": "array", "minimum": "number", "maximum": "number"}
_Entered = frozenset[str]
_Parts = list[tuple[list[Any], _Entered]]


class _NothingFits(Exception):  # noqa: N818 - control flow, not an error
    """The schema contradicts itself, leads into itself again, or asks for an enormous value."""


def schema_in(text: str) -> Json | None:
    """Return the last JSON schema in a text, which may be part of a larger object."""
    found, end, effort = None, 0, 10_000 + 20 * len(text)
    while effort > 0 and (begun := _OBJECT.search(text, end)):
        try:
            value, end = json.JSONDecoder().raw_decode(text, begun.start())
            found = _last_schema(value) or found
        except (ValueError, RecursionError) as error:
            # The decoder has read the text up to `pos`, and has counted the lines before it.
            effort -= getattr(error, "pos", len(text)) - begun.start() + len(text) // _CHEAP
            end = begun.end()
    return found


def _last_schema(value: object) -> Json | None:
    """Return the last schema in a parsed value that is not part of another schema."""
    left = [value]
    while left:
        value = left.pop()
        schema = mapping(value)
        if _kinds(schema) or not {"$ref", "properties", "allOf", "anyOf", "oneOf"}.isdisjoint(schema):
            return schema
        left += schema.values() or sequence(value)
    return None


def smallest(schema: Json) -> Any:
    """Return the smallest value that fits `schema`, the same one on every run.

    An object has only its required properties. An array has as few items as allowed. A default is used if there is one,
    else the first type, alternative and enum value that fits. A string is `example`, cut or repeated to the allowed
    length. A schema that contains itself ends as early as possible.

    The value need not fit `pattern`, `patternProperties`, `propertyNames`, `not`, `if`, `contains`, `uniqueItems`,
    `dependentRequired`, a format outside `_FORMATS`, or a reference to another document. `oneOf` is read as `anyOf`.
    Invalid parts of a schema count as absent. The value is `{}` if no value fits or if the value would be enormous.
    """
    try:
        return _Search(schema).fit([schema], frozenset({"#"}))
    except (_NothingFits, RecursionError, OverflowError):
        return {}


class _Search:
    """The search for one value, in a limited number of steps.

    `entered` holds the references that led to a schema. The search follows none of them again, because the smallest
    value of a schema contains no other value of that schema.
    """

    def __init__(self, root: Json) -> None:
        self._root, self._left = root, _MAX_SIZE

    def fit(self, schemas: list[Any], entered: _Entered) -> Any:
        """Return the first candidate that fits all of `schemas`."""
        for demands, inner in self._choices([([schema], entered) for schema in schemas], [], entered):
            listed = sum(len(sequence(demand.get("enum"))) for demand in demands)
            for value in self._candidates(demands, inner):
                self._spend(len(demands) + listed // _CHEAP)
                if all(_fits(value, demand) for demand in demands):
                    return value
        raise _NothingFits

    def _choices(self, parts: _Parts, demands: list[Json], entered: _Entered) -> Iterator[tuple[list[Json], _Entered]]:
        """Yield `demands` plus one alternative of each part, for every choice, with references followed."""
        if not parts:
            yield demands, entered
            return
        (alternatives, path), *others = parts
        for alternative in alternatives:
            own: Json = {"enum": []} if alternative is False else mapping(alternative)
            sizes = (len(part if isinstance(part, str) else mapping(part) or sequence(part)) for part in own.values())
            self._spend(1 + (len(own) + sum(sizes) + len(demands) + len(others)) // _CHEAP)
            combined = [sequence(own[key]) for key in ("anyOf", "oneOf") if sequence(own.get(key))]
            combined += [[part] for part in sequence(own.get("allOf"))]
            reference, inner = own.get("$ref"), path
            if isinstance(reference, str):
                if reference in path:
                    continue
                combined, inner = [[self._referred(reference)], *combined], path | {reference}
            parts = [*((part, inner) for part in combined), *others]
            yield from self._choices(parts, [*demands, own], entered | inner)

    def _candidates(self, demands: list[Json], entered: _Entered) -> Iterator[Any]:
        stated_values = [[demand["default"]] for demand in demands if "default" in demand]
        stated_values += [[each["const"]] if "const" in each else sequence(each.get("enum")) for each in demands]
        for value in chain.from_iterable(stated_values):
            self._spend(len(to_json(value)) // _CHEAP)
            yield value
        if any(key in demand for key in ("const", "enum") for demand in demands):
            return
        stated = [kind for demand in demands for kind in _kinds(demand)]
        implied = [kind for key, kind in _IMPLIED.items() if any(key in demand for demand in demands)]
        for kind in dict.fromkeys(stated or [*implied, "string"][:1]):
            with suppress(_NothingFits):
                match kind:
                    case "object":
                        yield self._object(demands, entered)
                    case "array":
                        yield self._array(demands, entered)
                    case "string":
                        yield from (_FORMATS[name] for each in demands if (name := str(each.get("format"))) in _FORMATS)
                        fewest = self._fewest(demands, "minLength")
                        most = min(_real(demand, "maxLength", len(_WORD)) for demand in demands)
                        yield (_WORD * (fewest + 1))[: max(fewest, min(int(most), len(_WORD)))]
                    case "boolean" | "null":
                        yield True if kind == "boolean" else None
                    case _:
                        yield from _numbers(demands)

    def _object(self, demands: list[Json], entered: _Entered) -> Json:
        stated = [(mapping(each.get("properties")), each.get("additionalProperties", True)) for each in demands]
        required = dict.fromkeys(str(name) for demand in demands for name in sequence(demand.get("required")))
        optional = [name for properties, _ in stated for name in properties]
        fewest, value = self._fewest(demands, "minProperties"), Json()
        for name in (*required, *optional, *map(str, range(fewest))):
            if name not in value and (name in required or len(value) < fewest):
                value[name] = self.fit([properties.get(name, others) for properties, others in stated], entered)
        return value

    def _array(self, demands: list[Json], entered: _Entered) -> list[Any]:
        def item(demand: Json, index: int) -> Any:
            rest = demand.get("items", True)
            first = sequence(demand.get("prefixItems", rest))  # `items` is a list in older drafts
            return first[index] if index < len(first) else rest

        indexes = range(self._fewest(demands, "minItems"))
        return [self.fit([item(demand, index) for demand in demands], entered) for index in indexes]

    def _fewest(self, demands: list[Json], key: str) -> int:
        fewest = int(max(_real(demand, key, 0) for demand in demands))
        if fewest > self._left:
            raise _NothingFits
        self._spend(fewest)
        return fewest

    def _spend(self, size: int) -> None:
        """Count steps; a search that has taken too many must not go on with the next alternative."""
        self._left -= size
        if self._left < 0:
            raise _NothingFits

    def _referred(self, reference: str) -> object:
        """Return the part of the schema that a reference names (`#/$defs/Node`, or `#` for all of it)."""
        target: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            target = mapping(target).get(step.replace("~1", "/").replace("~0", "~"))
        return target


def _kinds(schema: Json) -> list[str]:
    """Return the types that a schema states, as far as there are such types."""
    stated = schema.get("type")
    return [kind for kind in sequence(stated) or [stated] if isinstance(kind, str) and kind in _TYPES]


def _fits(value: object, schema: Json) -> bool:
    """Return whether a value has the right type and meets enum and limits. Its parts are not checked."""
    kinds, is_bool = _kinds(schema), isinstance(value, bool)
    if kinds and not any(isinstance(value, _TYPES[kind]) and is_bool == (kind == "boolean") for kind in kinds):
        return False
    if ("const" in schema and value != schema["const"]) or value not in sequence(schema.get("enum", [value])):
        return False
    if isinstance(value, str):
        return _real(schema, "minLength", 0) <= len(value) <= _real(schema, "maxLength", inf)
    if is_bool or not isinstance(value, int | float):
        return True
    step = _real(schema, "multipleOf", 0)
    low, above, high, below = map(_real, [schema] * 4, _LIMITS, (-inf, -inf, inf, inf))
    return low <= value <= high and above < value < below and (step <= 0 or (value / step).is_integer())


def _numbers(demands: list[Json]) -> Iterator[float]:
    """Yield the minimum, 1, and then numbers on, near and between the first limits."""
    limits = (number for each in demands for name in _LIMITS if (number := _real(each, name, inf)) < inf)
    near = list(islice(limits, _MAX_LIMITS))
    units = [unit for each in demands if (unit := _real(each, "multipleOf", 0)) > 0][:_MAX_LIMITS] or [1]
    tried = [*(number for each in demands if (number := _real(each, "minimum", inf)) < inf), 1, *near, 0]
    tried += [at // unit * unit + more for at in tried for unit in units for more in (0, unit, -unit)]
    tried += [(one + other) / 2 for one in near for other in near]
    yield from (int(number) if number == int(number) else number for number in tried)


def _real(schema: Json, key: str, otherwise: float) -> float:
    """Return the finite number that a schema states under `key`."""
    value = schema.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else otherwise
