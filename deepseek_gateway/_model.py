"""The model that a request names, and the body that is sent for it."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ._adapt import adapt, adapted_model, rows_for
from ._request import RefusedRequestError, loaded_body
from ._settings import DEEPSEEK_ONLY, VARIABLE

if TYPE_CHECKING:
    import httpx2 as httpx

    from ._config import GatewayConfig
    from ._settings import Route

Parts: TypeAlias = tuple[bytes | memoryview, ...]


def model_named(request: httpx.Request) -> str | None:
    """Give the model that the body of a request names, if the body is JSON in memory."""
    body = loaded_body(request) or b""
    plain = _LEADING.match(body) or _only_model(body)
    model = plain.group(1).decode("utf-8", "replace") if plain else _members(body).get("model")
    return model if isinstance(model, str) else None


def model_sent(request: httpx.Request, config: GatewayConfig) -> str | None:
    """Give the name under which the model of the SDK's request is sent."""
    model = model_named(request)
    with suppress(RefusedRequestError):
        return _model_to_send(model, config)[0] if model else None
    return model


def asks_for_a_stream(request: httpx.Request) -> bool:
    """Say whether the body of a request asks for a stream, if it is JSON in memory."""
    return b'"stream"' in (body := loaded_body(request) or b"") and _members(body).get("stream") is True


def _members(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", members) if isinstance(members, dict) else {}


_MODEL = re.compile(rb'"model"(?:: ?"([^"\\]*)")?')
_LEADING = re.compile(rb'\{"model": ?"([^"\\]*)"')  # openai 3 writes the model first


def _only_model(body: bytes) -> re.Match[bytes] | None:
    """Find the model in a body that names only one. Reading a large body as JSON takes three times its memory."""
    named = list(_MODEL.finditer(body))
    return named[0] if len(named) == 1 and named[0].group(1) is not None else None


def body_to_send(config: GatewayConfig, path: str, body: bytes) -> tuple[Parts, tuple[str, ...]]:
    """Give a JSON body the model name that its route expects, and translate it into DeepSeek's dialect.

    The body comes in parts, so that a large one is not copied for its model. If nothing changes, the only part is the
    same object. The names say what was translated.
    """
    rows = rows_for(path, body, config)
    if not rows and (plain := _LEADING.match(body) or _only_model(body)):
        start, end = plain.span(1)
        model = body[start:end].decode("utf-8", "surrogateescape")
        leads = plain.start() == 0  # elsewhere it may be part of another member, and is neither changed nor refused
        if leads or "/" not in model or config.route not in DEEPSEEK_ONLY:
            wanted, names = _model_to_send(model, config) if config.model else (model_on(config.route, model), ())
            name = wanted.encode("utf-8", "surrogateescape")
            if name == body[start:end]:
                return (body,), ()
            if leads:
                return (body[:start] + name, memoryview(body)[end:]), names
    try:
        content = json.loads(body)
        model = content["model"]
        wanted, names = _model_to_send(model, config) if isinstance(model, str) else (model, ())
        translated = content if wanted == model else {**content, "model": wanted}
        if config.route in DEEPSEEK_ONLY or wanted.startswith("deepseek/"):
            translated, more = adapt(translated, config, rows)
            names += more
        # These are the separators of the SDK. A body in ASCII may hold escapes that UTF-8 cannot express.
        form: Any = {"ensure_ascii": body.isascii(), "separators": (",", ":"), "allow_nan": False}
        return (body if translated is content else json.dumps(translated, **form).encode(),), names
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return (body,), ()  # the service can say best what is wrong with such a body


def _model_to_send(model: str, config: GatewayConfig) -> tuple[str, tuple[str, ...]]:
    adapted = adapted_model(model, config)
    return model_on(config.route, adapted), () if adapted == model else ("model",)


@lru_cache(maxsize=256)
def model_on(route: Route, model: str) -> str:
    """Give the name under which a route knows a model.

    DeepSeek refuses a name with a prefix, and the provider route passes names on unchanged. The compat and rest
    routes tell the providers apart by the prefix (Cloudflare docs: usage/providers/deepseek, usage/chat-completion).
    Names themselves are not checked, because new ones appear every quarter. A name that the provider route does not
    lead to is a `RefusedRequestError`.
    """
    if route not in DEEPSEEK_ONLY:
        return model if "/" in model or not model else f"deepseek/{model}"
    bare = model.removeprefix("deepseek/")
    if "/" not in bare:
        return bare
    kind = "dynamic route" if bare.startswith("dynamic/") else "model"
    problem = f"The {kind} {model!r} cannot be reached on the {route} route, which leads to DeepSeek only."
    remedy = f"Use the compat or rest route: create_client(route='compat') or {VARIABLE['route']}=compat."
    raise RefusedRequestError(f"{problem} {remedy}", code="wrong_route", param="model")
