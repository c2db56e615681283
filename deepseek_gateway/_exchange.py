"""One call, from the SDK's request to what the SDK is given. No I/O."""

from __future__ import annotations

import json
import re
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING

from ._adapt import NOT_ENFORCED, SCHEMA
from ._body import PIECE, BoundedBody, LoadedRequest, Pieces, settle_charset, with_body
from ._calls import call_from, log_call, logger, note_response, usage_in, watchers
from ._codes import WITHHELD, deepseek_remedy, redact
from ._events import as_events
from ._fallback import is_outage, never_connected
from ._merge import MergedChunks
from ._model import asks_for_a_stream, body_to_send, model_sent
from ._request import RefusedRequestError, loaded_body, request_facts
from ._response import (
    Fault,
    content_type,
    explain,
    final,
    hidden_fault,
    is_a_completion,
    json_object,
    may_be_mislabelled,
    may_hold_a_fault,
    not_an_answer,
    redirect_refused,
    request_id,
)
from ._stream import CheckedBody, DoneMark, TerminalEvent, Watcher, begins_like_events
from ._trace import add_trace, note_on_span, recording_span

if TYPE_CHECKING:
    import httpx2 as httpx

    from ._calls import GatewayCall
    from ._codes import RequestFacts
    from ._model import Parts
    from ._request import Destination
else:
    from ._connections import httpx

_REDIRECTION = 300  # the lowest status that is no success
_EVENT_STREAM = "text/event-stream"
_USAGE = re.compile(rb'"usage": ?\{')  # most chunks of DeepSeek say that it is null
_UNAUTHORISED = {401, 403}


class Exchange:
    """One HTTP exchange of the SDK: what is sent for its request, and what it is given for the response.

    `request` is the SDK's request. Its credentials are redacted, and it is never sent. `outgoing` is sent, unless there
    is an `answer` for a request that must not be sent. `covered` requests go to the gateway, others to some other URL.
    """

    def __init__(
        self, request: httpx.Request, destination: Destination, *, streamed: bool, direct: httpx.Request | None = None
    ) -> None:
        """Decide what to send. `streamed` means that the SDK reads the body of the response itself.

        `direct` is a request to DeepSeek itself that may take the place of this one if there is an `outage`.
        """
        self.request = request
        self.direct = direct
        self.outage: str | None = None
        """Why the gateway was not reached. Blank: it has answered."""
        below = destination.below(request.url)
        self.covered = below is not None
        self._path = (below or "").partition("?")[0]
        self.destination = destination
        self.streamed = streamed
        self._span = recording_span() if self.covered and destination.config.route != "direct" else None
        self._recorders = watchers() if self.covered else None
        self._call = None if self._recorders is None else call_from(request, destination.config.route)
        self._started = perf_counter()
        self.answer: httpx.Response | None = None
        self._credentials: tuple[str, ...] | None = None
        try:
            self.outgoing = self._build_outgoing()
        except RefusedRequestError as error:
            # Old SDKs retry after whatever is raised in send(), but not after a response that says so.
            fault = Fault(400, str(error), "invalid_request_error", error.code, error.param, retry=False)
            self.answer = _explained(fault, httpx.Response(400, request=request, content=b""))
        finally:
            redact(request.headers, self._credentials)

    def _build_outgoing(self) -> httpx.Request:
        request, config = self.request, self.destination.config
        prepared = self.destination.headers(request, covered=self.covered)
        self._credentials = prepared.credentials
        body, stream = loaded_body(request), request.stream
        parts: Parts = () if body is None else (body,)
        if self.covered and body and prepared.is_json:
            parts, adapted = body_to_send(config, self._path, body)
            if adapted:
                self._note_adapted(adapted)
        length = sum(map(len, parts))
        if length > PIECE:
            stream = Pieces(parts)
        elif parts and parts[0] is not body:
            stream = httpx.ByteStream(b"".join(parts))
        kind = LoadedRequest if parts else type(request)
        outgoing = kind(
            request.method, request.url, headers=prepared.headers, stream=stream, extensions=request.extensions
        )
        if self._span is not None:
            add_trace(outgoing.headers, self._span)
        if prepared.has_length:
            outgoing.headers["Content-Length"] = str(length) if parts else request.headers["Content-Length"]
        return outgoing

    def _note_adapted(self, names: tuple[str, ...]) -> None:
        if self._call:
            self._call.adapted = names
        if SCHEMA in names and next(self.destination.schemas) == 0:
            logger.warning(NOT_ENFORCED)

    @cached_property
    def facts(self) -> RequestFacts:
        """What is known of the request that was sent, for remedies."""
        config = self.destination.config
        return request_facts(self.outgoing, config, model_sent(self.request, config))

    def received(self, response: httpx.Response) -> bool:
        """Note the headers of a response, and say whether to read its body before the SDK is given it.

        The bodies of errors are read, and those that should have been a stream but are labelled otherwise.
        """
        response.request = self.request
        if not self.covered:
            return not self.streamed
        headers, success = response.headers, response.status_code < _REDIRECTION
        if self._call or not success:
            self._hide_echoes(headers)
        if not (success and "x-request-id" in headers) and (known := request_id(headers)):
            headers["x-request-id"] = known
        if self._call:
            note_response(self._call, response.status_code, headers)
            self._record(self._call)
        if self._span is not None:
            note_on_span(self._span, headers, self.facts)
        if success and not (self.streamed and self.request.method == "POST" and may_be_mislabelled(headers)):
            return not self.streamed
        if not response.is_closed:
            seconds = self.outgoing.extensions.get("timeout", {}).get("read")
            response.stream = BoundedBody(response, seconds, error=not success)
        return not response.is_closed

    def failed(self, error: BaseException) -> None:
        """Note that no response came, or not the whole of one, and keep credentials off the exception."""
        if never_connected(error):
            self.outage = type(error).__name__
        if isinstance(error, httpx.HTTPError):
            error.request = self.request
            if response := getattr(error, "response", None):  # only a caller's response hook raises such an error
                response.request = self.request
        if self._call and self._call.status is None:
            self._record(self._call)
        self._ended(error)

    def incoming(self, response: httpx.Response) -> httpx.Response:
        """Give what the SDK is given. The body has been read, unless the SDK reads it itself."""
        if not self.covered:
            if response.status_code in _UNAUTHORISED and "authorization" not in self.outgoing.headers:
                _warn(f"{response.status_code} from {self.request.url.host}: {WITHHELD}", response)
            return response
        success = response.status_code < _REDIRECTION
        self.outage = ""
        if success and not response.is_closed:
            return self._checked(response)
        if success and self._recorders and self._call:
            self._call.usage = usage_in(response.content)
        if success and not self.streamed and is_a_completion(response.content):
            given = response
        else:
            given = self._success(response) if success else self._failure(response)
        if self._call and not isinstance(given.stream, CheckedBody):
            self._ended()
        return given

    def _failure(self, response: httpx.Response) -> httpx.Response:
        """Explain an error. DeepSeek's own errors pass as they are, and their remedy goes to the log."""
        status = response.status_code
        if response.has_redirect_location:
            return _explained(redirect_refused(status, response.headers["location"], self.facts), response)
        settle_charset(response)
        text = self.facts.hide(response.text)
        if fault := explain(status, response.headers, text, self.facts):
            if fault.type == "edge_error" and is_outage(status, response.headers):
                self.outage = f"{status} from Cloudflare's edge"
            return _explained(fault, response)
        if remedy := deepseek_remedy(status, text, self.facts):
            _warn(f"{status} from DeepSeek: {remedy}", response)
        if text != response.text:
            kind = [(b"content-type", b"application/json")]
            response = with_body(response, status, content=text.encode(), headers=kind)
        if final(status, self.facts):
            response.headers["x-should-retry"] = "false"
        return response

    def _success(self, response: httpx.Response) -> httpx.Response:
        """Look for an error in a successful response, and make a stream of one that should have been a stream."""
        body = response.content
        if may_hold_a_fault(body):
            settle_charset(response)
            if fault := hidden_fault(response.text, self.facts):
                self._hide_echoes(response.headers)
                return _explained(fault, response)
        status = response.status_code
        given = with_body(response, status, stream=httpx.ByteStream(body)) if self.streamed else response
        if self.streamed and begins_like_events(body):  # whatever it is labelled
            return self._checked(given)
        if not (self.streamed and asks_for_a_stream(self.request)):
            wrong = self._asks_a_model and json_object(body) is None
            return self._not(response, "an answer in JSON") if wrong else given
        try:
            events = as_events(json.loads(body))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return self._not(response, "a stream")
        return with_body(response, status, content=events, headers=[(b"content-type", _EVENT_STREAM.encode())])

    @property
    def _asks_a_model(self) -> bool:
        return self.request.method == "POST" and self._path.endswith(("/completions", "/responses"))

    def _not(self, response: httpx.Response, wanted: str) -> httpx.Response:
        settle_charset(response)
        self._hide_echoes(response.headers)
        return _explained(not_an_answer(content_type(response.headers), response.text, self.facts, wanted), response)

    def _checked(self, response: httpx.Response) -> httpx.Response:
        """Have a body looked at as it passes: an event stream for its end, any body for when it is closed."""
        end = None
        is_stream = content_type(response.headers).startswith(_EVENT_STREAM) or asks_for_a_stream(self.request)
        if is_stream and self._asks_a_model:
            end = TerminalEvent() if self._path.endswith("/responses") else DoneMark()
        elif self._call is None:
            return response
        timeouts = self.outgoing.extensions.get("timeout", {})
        on_line = self._note_usage if self._recorders else None
        watcher = Watcher(partial(self._explain_event, response), on_line, self._ended)
        pause = self.destination.merge_pause if isinstance(end, DoneMark) else None
        body = CheckedBody(response, end, timeouts, watcher, None if pause is None else MergedChunks(pause))
        if body.decoded:
            return with_body(response, response.status_code, stream=body)
        response.stream = body
        return response

    def _hide_echoes(self, headers: httpx.Headers) -> None:
        """Redact credentials that a server repeats in headers, which hold the ids that are shown and logged."""
        for name, value in headers.items():
            if (hidden := self.facts.hide(value)) != value:
                headers[name] = hidden

    def _explain_event(self, response: httpx.Response, data: bytes) -> bytes | None:
        text = data.decode("utf-8", "replace")
        fault = hidden_fault(text, self.facts)
        if not fault or fault.type != "ai_gateway_error":
            hidden = self.facts.hide(text)
            return None if hidden == text else hidden.encode()
        self._hide_echoes(response.headers)
        _warn(fault.logged, response)
        return json.dumps(fault.body).encode()

    def _note_usage(self, line: bytes) -> None:
        if self._call and _USAGE.search(line) and (usage := usage_in(line.removeprefix(b"data:"))):
            self._call.usage = usage

    def _record(self, call: GatewayCall) -> None:
        for recorder in self._recorders or ():
            recorder.append(call)

    def _ended(self, error: BaseException | None = None) -> None:
        call = self._call  # of several times only the first counts
        if call and call.elapsed is None:
            call.elapsed = perf_counter() - self._started
            log_call(call, f"{self.request.method} {self._path}", error)


def _warn(text: str, response: httpx.Response) -> None:
    """Log a warning that ends with the id to ask about."""
    known = request_id(response.headers)
    logger.warning("%s%s", text, f" (request id {known})" if known else "")


def _explained(fault: Fault, response: httpx.Response) -> httpx.Response:
    """Put an error that the SDK can read in place of a response, and log it."""
    _warn(fault.logged, response)
    retry = [] if fault.retry is None else [(b"x-should-retry", str(fault.retry).lower().encode())]
    headers = [(b"content-type", b"application/json"), *retry]
    return with_body(response, fault.status, content=json.dumps(fault.body).encode(), headers=headers)
