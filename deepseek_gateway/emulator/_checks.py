"""What is wrong with an argument, in a sentence that never shows its value: it may be a secret."""

import re
from collections.abc import Collection, Mapping
from typing import Final, TypeVar, cast

Value = TypeVar("Value")

SEGMENT: Final = r"[^\s/?#%]+"
VISIBLE: Final = r"[!-~]+"


def check_text(name: str, value: object, pattern: str, meaning: str) -> None:
    """Refuse what is no text, or does not match `pattern`, which is to mean `meaning`."""
    if not isinstance(value, str):
        raise TypeError(f"Give {name} as text, not as {type(value).__name__}.")
    if not re.fullmatch(pattern, value):
        raise ValueError(f"Give {name} as {meaning}.")


def check_number(name: str, value: object, least: float = 0) -> None:
    """Refuse what is no number, or less than `least`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"Give {name} as a number, not as {type(value).__name__}.")
    if not value >= least:
        raise ValueError(f"Give {name} as a number of {least:g} or more.")


def check_whole(name: str, value: object, least: int = 0, most: int | None = None) -> None:
    """Refuse what is no whole number, or not between `least` and `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"Give {name} as a whole number, not as {type(value).__name__}.")
    if value < least or (most is not None and value > most):
        upper = "or more" if most is None else f"to {most}"
        raise ValueError(f"Give {name} as a whole number, {least} {upper}.")


def check_limit(name: str, value: object) -> None:
    """Refuse what is no limit: an amount in a number of seconds."""
    pair = cast("Collection[object]", value) if isinstance(value, tuple | list) else ()
    if len(pair) != len(("amount", "seconds")):
        raise TypeError(f"Give {name} as a pair: an amount, and in how many seconds.")
    for number, part in zip(pair, ("amount", "seconds"), strict=True):
        check_number(f"the {part} of {name}", number)
        if number == 0:
            raise ValueError(f"Give the {part} of {name} as more than 0.")


def check_texts(name: str, value: Collection[str]) -> None:
    """Refuse what is not several texts, such as a single one, and the empty text, which is found everywhere."""
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise TypeError(f"Give {name} as several texts, not as {type(value).__name__}.")
    for text in value:
        check_text(f"each text of {name}", text, r"(?s:.+)", "text that is not empty")


def check_mapping(name: str, value: Mapping[str, Value]) -> dict[str, Value]:
    """Return a copy of a mapping that has texts for keys, or refuse it."""
    if not isinstance(value, Mapping):
        raise TypeError(f"Give {name} as a mapping, not as {type(value).__name__}.")
    check_texts(name, value.keys())
    return dict(value)
