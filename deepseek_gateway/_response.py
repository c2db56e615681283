"""What comes back from the gateway, made such that the SDK raises the exception an OpenAI user expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._config import VARIABLE

if TYPE_CHECKING:
    import httpx2 as httpx


def is_redirect(response: httpx.Response) -> bool:
    """Whether the answer asks to go elsewhere, which a request that carries credentials must not."""
    return response.has_redirect_location


def refused_redirect(response: httpx.Response) -> dict[str, Any]:
    """Say that a redirect was not followed; the target is named by its host alone, its path could hold a secret."""
    target = response.headers["location"].partition("?")[0]
    host = target.partition("://")[2].partition("/")[0].rpartition("@")[2] or "another path of the same host"
    return error_body(
        f"The gateway's address answered with a redirect to {host}, which was not followed, because your credentials "
        f"would have gone there. Check {VARIABLE['endpoint']}.",
        type="redirect_refused",
        code="redirect_refused",
    )


def error_body(message: str, *, type: str, code: str, param: str | None = None) -> dict[str, Any]:  # noqa: A002  # the field's own name
    """Write an error in OpenAI's form, which every supported SDK turns into `.code`, `.type` and `.param`."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}
