"""Every error that the gateway, Cloudflare's edge and DeepSeek make: one table, and the form of each on the wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Literal

from deepseek_gateway.emulator._ids import digest
from deepseek_gateway.emulator._json import Json, to_json
from deepseek_gateway.emulator._wire import JSON_TYPE, TEXT_TYPE, Reply, body_reply

Form = Literal["deepseek", "text", "edge", "problem", "policy", "gateway", "wholesale", "unbilled"]
# DeepSeek's model layer labels its errors as bytes although they are JSON (recorded).
OCTETS = "application/octet-stream"
DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


@dataclass(frozen=True, slots=True)
class ServiceError:
    """One error.

    Attributes:
        form: `deepseek` and `text` are DeepSeek's JSON and plain text, `edge` and `problem` are Cloudflare's edge,
            `policy` and `gateway` are the gateway's, and so are `wholesale` and `unbilled`, of Unified Billing.
        details: What the form shows besides the message; the `check` of data loss prevention goes into a header.
        content_type: The content type of `deepseek` and `text`; None sends none.
        code: The code of a `gateway` error.
        logged: Whether the gateway keeps a log row (observed on the run path, assumed elsewhere).
    """

    form: Form
    status: int
    message: str
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content_type: str | None = OCTETS
    code: int | None = None
    logged: bool = True

    def reply(self, route: str = "provider", *, short: bool = False) -> Reply:
        """Return the response; `route` and `short` choose the envelope of a `gateway` error."""
        status, text = self.status, self.message
        match self.form:
            case "deepseek":
                # The code is almost always the same (DeepSeek docs: quick_start/error_codes; observed).
                usual = {"type": "invalid_request_error", "param": None, "code": "invalid_request_error"}
                body, content_type = to_json({"error": {"message": text, **usual, **self.details}}), self.content_type
            case "text":
                body, content_type = text.encode(), self.content_type
            case "edge" if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                body, content_type = text.encode(), TEXT_TYPE
            case "edge":
                page = f"<html>\n<head><title>{status}: {text}</title></head>\n<body>cloudflare</body>\n</html>\n"
                body, content_type = f"<!DOCTYPE html>\n{page}".encode(), "text/html; charset=UTF-8"
            case "problem":
                title = f"Error {status}: {text}"
                problem = {"type": "about:blank", "title": title, "status": status, "detail": title}
                body, content_type = to_json(problem | {"instance": digest(title)[:16]}), "application/problem+json"
            case "policy":
                body, content_type = to_json({"success": False, "error": {"message": text, **self.details}}), JSON_TYPE
            case "gateway" | "wholesale" | "unbilled":
                body, content_type = to_json(self._envelope(route, short=short)), JSON_TYPE
        reply = body_reply(status, body, content_type)
        return reply.with_headers(dlp_header("BLOCK", *self.details.values())) if "check" in self.details else reply

    def _envelope(self, route: str, *, short: bool) -> Json:
        """Return a list under `error`, or under `errors` on the REST API; older captures have the short envelope."""
        listed = [{"code": self.code, "message": self.message}]
        if route == "rest":
            return {"success": False, "errors": listed, "messages": [], "result": None}
        if short:
            return {"success": False, "error": listed}
        named = {"name": "AiGatewayError", "httpCode": self.status, "internalCode": self.code}
        texts = {"message": self.message, "description": self.message}
        return {"success": False, "result": [], "messages": [], "error": listed, **named, **texts}


@dataclass(eq=False)
class Refusal(Exception):  # noqa: N818 - the emulated service answers with an error, nothing has failed
    """The service refuses a request with `error`."""

    error: ServiceError


def find(code: int | None = None, form: str | None = None, status: int | None = None) -> ServiceError | None:
    """Return the first row of the table with this code or without any, in this form and status or in any."""
    rows = (row for row in ERRORS if row.code == code and form in {None, row.form} and status in {None, row.status})
    return next(rows, None)


def gateway_refusal(code: int, message: str | None = None) -> Refusal:
    """Return the gateway's refusal with `code`, possibly with a text other than the documented one."""
    error = next(row for row in ERRORS if row.code == code)
    return Refusal(error if message is None else replace(error, message=message))


def deepseek_refusal(message: str, content_type: str = OCTETS) -> Refusal:
    return Refusal(ServiceError("deepseek", 400, message, content_type=content_type))


def wrong_key(key: str) -> ServiceError:
    """Return DeepSeek's error for an unknown key: its last four characters are shown, a short key whole (recorded)."""
    shown = "****" + key[-4:] if len(key) > len("****") else key
    text = f"Authentication Fails, Your api key: {shown} is invalid"
    return ServiceError("deepseek", 401, text, {"type": "authentication_error"}, JSON_TYPE)


def dlp_header(action: Literal["BLOCK", "FLAG"], *checks: str) -> tuple[str, str]:
    """Return `cf-aig-dlp`, with a finding for each of the checks (Cloudflare docs: features/dlp/set-up-dlp)."""
    profile: Json = {"context": {}, "entry_ids": [digest("entry")[:32]], "profile_id": digest("profile")[:32]}
    finding = {"profile": profile, "policy_ids": [digest("policy")[:32]]}
    findings = [finding | {"check": check} for check in checks]
    return "cf-aig-dlp", to_json({"findings": findings, "action": action}).decode()


_BUSY = "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers."
_UNAVAILABLE = {"type": "service_unavailable_error", "code": "service_unavailable_error"}
_SERVER_ERROR = {"type": "server_error", "code": "server_error"}
_CONCURRENCY = (
    "Too many requests. Your current concurrency is 26, which exceeds your concurrency limit of 25 based on your "
    "remaining balance. Please top up your balance to restore your concurrency."
)
_CREDITS = (
    "Insufficient wholesale credits. Please add additional credits on the AI Gateway Cloudflare dashboard to continue "
    "using provider models."
)
_BY_DLP = " content blocked due to DLP policy violations"
_LIMITED = "Wholesale rate limit exceeded for this gateway. Please reduce request rate or use BYOK."
_ALIAS = "Provider 'deepseek' has no BYOK credential named 'missing'. Configured aliases: 'default'"
_SPENT = "Spend limit exceeded: rule 'daily' (cost limit 1 per 86400s, fixed) for deepseek deepseek-flash"
_BUCKET = {"bucket": "daily", "spent": 1000.42, "limit": 1000}

# The first row that fits is taken, so the order decides between rows of one status.
ERRORS: tuple[ServiceError, ...] = (
    # DeepSeek, as documented or observed. No body of a 500 is known. The content types of 402, 429, 500 and 503 are
    # unknown. 200 is an error inside a response that looks like a success.
    ServiceError("deepseek", 200, _BUSY, _UNAVAILABLE, JSON_TYPE),
    ServiceError("deepseek", 400, "Content Exists Risk"),
    wrong_key("emulated-key"),
    ServiceError("text", 401, "Authentication Fails (governor)", content_type=None),
    ServiceError("deepseek", 402, "Insufficient Balance", {"type": "unknown_error"}, JSON_TYPE),
    ServiceError("text", 422, DESERIALIZE + "missing field `messages` at line 4 column 1", content_type="text/plain"),
    ServiceError("deepseek", 429, _CONCURRENCY, {"type": "rate_limit_error"}, JSON_TYPE),
    ServiceError("deepseek", 500, "Server error, please retry.", _SERVER_ERROR, JSON_TYPE),
    ServiceError("deepseek", 503, _BUSY, _UNAVAILABLE, JSON_TYPE),
    # The edge turns clients away in plain text, and reports 5xx in HTML or as problem JSON (observed).
    ServiceError("edge", 403, "error code: 1010"),
    ServiceError("edge", 502, "Bad gateway"),
    ServiceError("edge", 520, "Web server is returning an unknown error"),
    ServiceError("edge", 524, "A timeout occurred"),
    ServiceError("problem", 502, "Bad gateway"),
    ServiceError("problem", 520, "Web server is returning an unknown error"),
    ServiceError("problem", 524, "A timeout occurred"),
    # Policies have an object under `error` and no code (Cloudflare docs: features/policies).
    ServiceError("policy", 403, "Access denied by policy"),
    ServiceError("policy", 429, "Spending limit exceeded", _BUCKET),
    # Codes 2001 to 2045 and 7013 are the gateway host's (observed; Cloudflare docs: features/guardrails, features/dlp,
    # features/spend-limits). No text of 7013 is known; the status of 2029 and 2030 rests on one observation.
    ServiceError("gateway", 400, "Please configure AI Gateway in the Cloudflare dashboard", code=2001, logged=False),
    ServiceError("gateway", 429, "Rate limited", code=2003),
    ServiceError("gateway", 400, "Failed to get response from provider", code=2005),
    ServiceError("gateway", 400, "Invalid provider", code=2008),
    ServiceError("gateway", 401, "Unauthorized", code=2009, logged=False),
    ServiceError("gateway", 424, "Prompt blocked due to security configurations", code=2016),
    ServiceError("gateway", 424, "Response blocked due to security configurations", code=2017),
    ServiceError("gateway", 429, "Wholesale Rate limited", code=2018),
    ServiceError("gateway", 400, "Chat completion bad format", code=2019),
    ServiceError("gateway", 402, _CREDITS, code=2021),
    ServiceError("gateway", 424, f"Request{_BY_DLP}", {"check": "REQUEST"}, code=2029),
    ServiceError("gateway", 424, f"Response{_BY_DLP}", {"check": "RESPONSE"}, code=2030),
    ServiceError("gateway", 400, _ALIAS, code=2040),
    ServiceError("gateway", 429, _SPENT, code=2041),
    ServiceError("gateway", 429, _SPENT, code=2045),
    ServiceError("gateway", 503, "Guardrails are unavailable", code=7013),
    # Codes of api.cloudflare.com; 7000 is its usual answer to an unknown path.
    ServiceError("gateway", 404, "No route for that URI", code=7000, logged=False),
    ServiceError("gateway", 405, "GET not supported for requested URI.", code=7001, logged=False),
    ServiceError("gateway", 404, "Model not found: deepseek/missing", code=7003),
    ServiceError("gateway", 401, "Authentication error", code=10000, logged=False),
    # The limiter of Unified Billing has several shapes beside 2018, and 2021 has a second meaning (observed).
    ServiceError("wholesale", 402, _LIMITED, code=2021),
    ServiceError("wholesale", 429, _LIMITED, code=2018),
    ServiceError("wholesale", 200, _LIMITED, code=7003),
    ServiceError("unbilled", 402, "This model is not available via unified billing. Please use BYOK.", code=2021),
)
