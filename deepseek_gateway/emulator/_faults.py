"""What can go wrong: the errors of the gateway and of Cloudflare's edge, and failures on demand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, get_args

from deepseek_gateway.emulator._answers import digest
from deepseek_gateway.emulator._checks import check_mapping, check_number, check_text, check_whole
from deepseek_gateway.emulator._deepseek import STATUS_ERRORS, DeepSeekError
from deepseek_gateway.emulator._exchange import Delivery, Reply, json_reply, to_json

Shape = Literal["short", "policy", "text", "edge", "problem"]
_SHAPES: tuple[str, ...] = get_args(Shape)
_STATUSES = 200, 599
_HEADER_VALUE = r"|[!-~\x80-\xff]([ -~\x80-\xff]*[!-~\x80-\xff])?"
Action = Literal["BLOCK", "FLAG"]
Pairs = tuple[tuple[str, str], ...]


class Documented(NamedTuple):
    """A gateway error as Cloudflare documents it, or as it was observed."""

    status: int
    message: str


_SPEND_LIMIT = "Spend limit exceeded: rule 'daily' (cost limit 1 per 86400s, fixed) for deepseek deepseek-flash"
# Codes 2001 to 2045 are the gateway host's (observed; Cloudflare docs: features/guardrails, features/dlp,
# features/spend-limits). No text of 2018 and 7013 is known; the status of 2029 and 2030 rests on one observation.
# 7001, 7003 and 10000 are those of api.cloudflare.com, 7000 is its usual answer to an unknown path.
CODES: Mapping[int, Documented] = {
    2001: Documented(400, "Please configure AI Gateway in the Cloudflare dashboard"),
    2003: Documented(429, "Rate limited"),
    2005: Documented(400, "Failed to get response from provider"),
    2008: Documented(400, "Invalid provider"),
    2009: Documented(401, "Unauthorized"),
    2016: Documented(424, "Prompt blocked due to security configurations"),
    2017: Documented(424, "Response blocked due to security configurations"),
    2018: Documented(429, "Wholesale limit exceeded"),
    2019: Documented(400, "Chat completion bad format"),
    2021: Documented(
        402,
        "Insufficient wholesale credits. Please add additional credits on the AI Gateway Cloudflare dashboard to "
        "continue using provider models.",
    ),
    2029: Documented(424, "Request content blocked due to DLP policy violations"),
    2030: Documented(424, "Response content blocked due to DLP policy violations"),
    2040: Documented(400, "Provider 'deepseek' has no BYOK credential named 'missing'. Configured aliases: 'default'"),
    2041: Documented(429, _SPEND_LIMIT),
    2045: Documented(429, _SPEND_LIMIT),
    7000: Documented(404, "No route for that URI"),
    7001: Documented(405, "GET not supported for requested URI."),
    7003: Documented(404, "Model not found: deepseek/missing"),
    7013: Documented(503, "Guardrails are unavailable"),
    10000: Documented(401, "Authentication error"),
}
# Refused before there is a log row, hence without a log id (observed for the run path, assumed for the others).
UNLOGGED = frozenset({2001, 2009, 7000, 7001, 10000})
_DLP_CHECKS: Mapping[int, str] = {2029: "REQUEST", 2030: "RESPONSE"}


def dlp_header(action: Action, *checks: str) -> tuple[str, str]:
    """Return `cf-aig-dlp`, with a finding for each of the `checks` (Cloudflare docs: features/dlp/set-up-dlp)."""
    profile: dict[str, Any] = {"context": {}, "entry_ids": [digest("entry")[:32]], "profile_id": digest("profile")[:32]}
    findings = [{"profile": profile, "policy_ids": [digest("policy")[:32]], "check": check} for check in checks]
    return "cf-aig-dlp", to_json({"findings": findings, "action": action}).decode()


class GatewayError(Exception):
    """An error that the gateway makes, by its code."""

    def __init__(self, code: int, message: str | None = None, status: int | None = None) -> None:
        """Take status and text from the table unless they are given."""
        documented = CODES.get(code, Documented(500, "Unknown error"))
        self.code, self.status = code, status or documented.status
        self.message = documented.message if message is None else message
        super().__init__(self.message)

    def reply(self, route: str, *, short: bool = False) -> Reply:
        """Return the error in the envelope of the host: a list under `error`, or under `errors` on the REST API.

        The short envelope is that of older captures.
        """
        listed = [{"code": self.code, "message": self.message}]
        body: dict[str, Any] = {"success": False, "error": listed}
        if route == "rest":
            body = {"success": False, "errors": listed, "messages": [], "result": None}
        elif not short:
            body = {
                "success": False,
                "result": [],
                "messages": [],
                "error": listed,
                "name": "AiGatewayError",
                "httpCode": self.status,
                "internalCode": self.code,
                "message": self.message,
                "description": self.message,
            }
        check = _DLP_CHECKS.get(self.code)
        return json_reply(self.status, body).with_headers(*((dlp_header("BLOCK", check),) if check else ()))


def _policy(status: int, message: str | None) -> Reply:
    error = _POLICIES.get(status, {}) | ({} if message is None else {"message": message})
    return json_reply(status, {"success": False, "error": error})


def _text(status: int, message: str | None) -> Reply:
    content_type = None if status == HTTPStatus.UNAUTHORIZED else "text/plain"
    return DeepSeekError(_TEXTS.get(status, ""), status=status, kind=None, content_type=content_type).reply(message)


def _edge(status: int, message: str | None) -> Reply:
    text = message or _EDGE[status]
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return replace(_verbatim(text), status=status)
    page = f"<!DOCTYPE html>\n<html>\n<head><title>{status}: {text}</title></head>\n<body>cloudflare</body>\n</html>\n"
    return Reply(status=status, headers=(("content-type", "text/html; charset=UTF-8"),), chunks=(page.encode(),))


def _problem(status: int, message: str | None) -> Reply:
    title = f"Error {status}: {message or _EDGE[status]}"
    problem = {"type": "about:blank", "title": title, "status": status, "detail": title, "instance": digest(title)[:16]}
    return json_reply(status, problem, "application/problem+json")


def _deepseek(status: int, message: str | None) -> Reply:
    known = HTTPStatus.SERVICE_UNAVAILABLE if status == HTTPStatus.OK else status
    return STATUS_ERRORS.get(known, DeepSeekError("", status=status)).reply(message)


class _Form(NamedTuple):
    """An error's looks, and the statuses that come with a text; the first one is the usual one."""

    make: Callable[[int, str | None], Reply]
    known: Mapping[int, Any]


# Policies have an object under `error` and no code (Cloudflare docs: features/policies).
_POLICIES: dict[int, dict[str, Any]] = {
    403: {"message": "Access denied by policy"},
    429: {"message": "Spending limit exceeded", "bucket": "daily", "spent": 1000.42, "limit": 1000},
}
_TEXTS = {401: "Authentication Fails (governor)", 422: STATUS_ERRORS[422].message}
# The edge turns clients away in plain text, and reports 5xx in HTML or as problem JSON (observed).
_BROKEN = {502: "Bad gateway", 520: "Web server is returning an unknown error", 524: "A timeout occurred"}
_GAVE_UP = 524
_EDGE = {403: "error code: 1010"} | _BROKEN
# What a status alone stands for.
STATUSES = frozenset({*STATUS_ERRORS, *_EDGE})
_FORMS: Mapping[str, _Form] = {
    "policy": _Form(_policy, _POLICIES),
    "text": _Form(_text, _TEXTS),
    "edge": _Form(_edge, _EDGE),
    "problem": _Form(_problem, _BROKEN),
    "deepseek": _Form(_deepseek, {**STATUS_ERRORS, 200: None}),
}


def _verbatim(body: bytes | str | Mapping[str, Any]) -> Reply:
    if isinstance(body, bytes):
        return Reply(status=200, chunks=(body,))
    if isinstance(body, str):
        return Reply(status=200, headers=(("content-type", "text/plain; charset=UTF-8"),), chunks=(body.encode(),))
    return json_reply(200, body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault(Delivery):
    """A failure on demand, as `Emulator.fail_next()` describes it."""

    code: int | None = None
    status: int | None = None
    message: str | None = None
    shape: Shape | None = None
    body: bytes | str | Mapping[str, Any] | None = None
    headers: Mapping[str, str] | None = None
    event: int | None = None
    unreachable: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense, in a sentence."""
        self._check_each()
        said = {field.name for field in fields(self) if getattr(self, field.name) != field.default}
        known: Mapping[int, Any] = _FORMS[self._form].known if self._form in _FORMS else {}
        unspelled = self.status is None or self.message is None
        alone, ends = {"reset", "unreachable"}, {"cut_after", "stall_after"}
        rules: list[tuple[object, str]] = [
            (not said, "Say what fails: a code, a status, a shape, a body, or how the answer is delivered."),
            (said & alone and len(said - {"latency"}) > 1, "A reset and unreachable stand alone, but for a latency."),
            (said >= ends, "An answer ends in one way: give cut_after or stall_after."),
            (self.clean and self.cut_after is None, "A clean end is that of a cut answer: give cut_after too."),
            (said >= {"body"} and said & {"code", "message"}, "A body is sent as it is: give no code and no message."),
            (
                self.shape and (self.shape == "short") == (self.code is None),
                "The short envelope is for codes, and codes come in the long or the short one.",
            ),
            (
                self.code is not None and self.code not in CODES and unspelled,
                f"No gateway error {self.code} is documented; give its status and message too.",
            ),
            (self.message is not None and not self._form, "A message needs an error: give its code, status or shape."),
            (
                known and self.status and self.status not in known and unspelled,
                f"Give a gateway code, a body or a message, or a known status: {', '.join(map(str, known))}.",
            ),
            (
                self.event is not None and self._form not in {"gateway", "body", "policy", "deepseek"},
                "Only an error in JSON can be an event of a stream.",
            ),
        ]
        for wrong, sentence in rules:
            if wrong:
                raise ValueError(sentence)

    def _check_each(self) -> None:
        for name in ("code", "event", "keep_alive", "cut_after", "stall_after"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name))
        check_number("latency", self.latency)
        if self.message is not None:
            check_text("message", self.message, r"(?s:.*)", "text")
        if self.shape is not None:
            check_text("shape", self.shape, "|".join(_SHAPES), f"one of {', '.join(_SHAPES)}")
        if self.status is not None:
            check_whole("status", self.status, *_STATUSES)
        if self.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            raise ValueError(f"An answer with status {self.status} has no body, so it says nothing.")
        if self.body is not None and not isinstance(self.body, bytes | str | Mapping):
            raise TypeError(f"Give body as bytes, text or a mapping, not as {type(self.body).__name__}.")
        for name, value in check_mapping("headers", self.headers or {}).items():
            check_text("a header's name", name, r"[-!#$%&'*+.^_`|~0-9A-Za-z]+", "letters, digits and hyphens")
            check_text("a header's value", value, _HEADER_VALUE, "one line of Latin-1 text")
            if name.lower() in {"content-length", "transfer-encoding"}:
                raise ValueError("The emulator itself says how long an answer is; cut_after ends it earlier.")

    @property
    def _form(self) -> str:
        if self.code is not None:
            return "gateway"
        if self.body is not None:
            return "body"
        if self.shape is None and self.status is not None:
            return "edge" if self.status in _EDGE else "deepseek"
        return self.shape or ""

    @property
    def edge(self) -> bool:
        """Whether the edge answers: the gateway knows nothing of it."""
        return self.shape in {"edge", "problem"} or self._form == "edge"

    @property
    def early(self) -> bool:
        """Whether the request gets no further than the gateway; other faults strike a try to reach DeepSeek."""
        late = self.event is not None or (self.edge and self.status == _GAVE_UP)
        return self.reset or (not late and (self.edge or self.code is not None or self.shape == "policy"))

    def error(self, route: str) -> Reply | None:
        """Return the error, or None if only the delivery is at fault."""
        if self.code is not None:
            status = None if self.status == HTTPStatus.OK else self.status
            reply = GatewayError(self.code, self.message, status).reply(route, short=self.shape == "short")
        elif self.body is not None:
            reply = _verbatim(self.body)
        elif self._form:
            form = _FORMS[self._form]
            reply = form.make(self.status or next(iter(form.known)), self.message)
        else:
            return None
        return replace(reply, status=self.status or reply.status)

    def strike(self, reply: Reply, route: str) -> Reply:
        """Return DeepSeek's `reply`, or the answer of who is before DeepSeek, with what this fault makes of it."""
        error = self.error(route)
        if error is not None and (self.early or self.edge):
            reply = error
        elif error is not None and self.event is not None:
            chunks: tuple[bytes, ...] = (error.body,)
            if reply.streamed:
                at = min(self.event, len(reply.chunks) - 1)
                chunks = (*reply.chunks[:at], b"data: " + error.body + b"\n\n")
            reply = replace(reply, status=200, chunks=chunks, unstreamed=error.body)
        given = {name.lower(): value for name, value in (self.headers or {}).items()}
        kept = tuple(pair for pair in reply.headers if pair[0] not in given)
        return replace(reply, headers=(*kept, *given.items()), delivery=self)
