"""The controls over HTTP, for tests in any language.

`POST /_emulator/answers`, `/_emulator/failures` and `/_emulator/reset` are `answer_next()`, `fail_next()` and `reset()`
of `Emulator`, with the keyword arguments as a JSON object. The response has the number of answers and failures that are
`pending`, or is a 400 with an `error`.

A browser says which website sends a request, and only websites on loopback may steer the emulator.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse

from deepseek_gateway.emulator._json import from_json
from deepseek_gateway.emulator._page import is_loopback

_PREFIX = "/_emulator/"


class Control:
    """The controls; `actions` are called with what is sent to them."""

    def __init__(self, actions: Mapping[str, Callable[..., None]], pending: Callable[[], int]) -> None:
        self._actions, self._pending = actions, pending

    async def answer(self, request: Request) -> JSONResponse | None:
        """Return the response if the request is a control."""
        path, headers = request.scope["path"], request.headers
        if not path.startswith(_PREFIX):
            return None
        if not all(map(is_loopback, (headers.get("host", ""), urlsplit(headers.get("origin", "//localhost")).netloc))):
            return _refused(403, "The emulator is controlled from loopback only.")
        action = self._actions.get(path.removeprefix(_PREFIX))
        if action is None or request.method != "POST":
            known = ", ".join(f"POST {_PREFIX}{name}" for name in self._actions)
            response = _refused(405 if action else 404, f"The controls are {known}.")
            response.headers.update({"allow": "POST"} if action else {})
            return response
        arguments: Any = from_json(await request.body() or b"{}")
        if not isinstance(arguments, dict):
            return _refused(400, "Send the keyword arguments as one JSON object.")
        try:
            action(**arguments)
        except (TypeError, ValueError) as error:
            return _refused(400, str(error))
        return JSONResponse({"pending": self._pending()})


def _refused(status: int, error: str) -> JSONResponse:
    return JSONResponse({"error": error}, status)
