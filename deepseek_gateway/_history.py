"""Long conversations, without the SDK's walk over every message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, cast

if TYPE_CHECKING:
    from collections.abc import Iterable


class LongHistory(TypedDict):
    """The keyword arguments for `chat.completions.create()` that `long_history()` gives."""

    messages: list[Any]
    extra_body: dict[str, Any]


def long_history(messages: Iterable[Any], **extra_body: Any) -> LongHistory:
    """Send a conversation without the SDK's walk over every message, which can take longer than the call itself.

    Pass the result on::

        client.chat.completions.create(model="deepseek-flash", **long_history(messages))

    The SDK transforms `messages` piece by piece, to no effect for chat messages, and takes `extra_body` as it is. So
    the messages travel in `extra_body`, and the same JSON is sent. `docs/performance.md` says how much faster it is.
    Type checkers no longer see the messages, and `create()` must get no other `extra_body`: pass its members here.

    Args:
        messages: The `messages` for `create()`: dictionaries, or the SDK's own message objects.
        **extra_body: Further members of the body, for which the SDK has no parameter, such as `thinking={...}`.

    Returns:
        The keyword arguments `messages` and `extra_body`. The messages themselves are not changed.
    """
    return {"messages": [], "extra_body": {**extra_body, "messages": [_json_form(message) for message in messages]}}


def _json_form(value: Any) -> Any:
    """Give the JSON form of a message or a part of one. A value that has this form already stays as it is."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        if all(type(member) is str for member in members.values()):  # most messages: there is nothing below
            return members
        return {name: _json_form(member) for name, member in members.items()}
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return value
    if hasattr(value, "model_dump"):  # a model of pydantic
        return value.model_dump(mode="json", exclude_unset=True, exclude=getattr(value, "__api_exclude__", None))
    return [_json_form(part) for part in value]
