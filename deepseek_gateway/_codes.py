"""What an error code means, what to do about it, and whether a retry can help: one table.

The facts come from Cloudflare's documentation and from captured responses. A code that is not in the table is reported
with the gateway's own text, and the SDK decides by the status whether to retry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ._settings import DEEPSEEK_ONLY, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import httpx2 as httpx

    from ._settings import Route

REDACTED = "[redacted]"
CREDENTIAL = re.compile(rb"(?:cf-aig-)?authorization|cf-access-.*", re.IGNORECASE)
"""The names of headers that hold a credential."""

_SHORTEST_SECRET = 8  # a shorter text is an ordinary word, and replacing it would spoil the message

_ACCOUNT, _GATEWAY, _KEY, _TOKEN, _ENDPOINT, _MODEL, _ROUTE = (
    VARIABLE[name] for name in ("account_id", "gateway_id", "api_key", "gateway_token", "endpoint", "model", "route")
)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What is known of a request that was sent, for its remedy."""

    method: str
    route: Route
    authorization: bool
    gateway_token: bool
    key_is_stored: bool
    """Whether Cloudflare is expected to add the DeepSeek key. On the rest route it always is."""
    model: str | None
    max_attempts: int
    path: str
    secrets: tuple[str, ...] = field(repr=False)

    @property
    def to_deepseek(self) -> bool:
        """Whether DeepSeek was asked, and not another provider that compat and rest lead to."""
        return self.route in DEEPSEEK_ONLY or not self.model or self.model.startswith("deepseek/")

    def hide(self, text: str) -> str:
        """Replace every credential that was sent, or is configured, in a text that somebody else wrote."""
        return hide(text, self.secrets)


def hide(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a text, also where the escapes of JSON spell them."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, REDACTED)
            if "\\" in text:
                text = re.sub("".join(map(_spellings, secret)), REDACTED, text)
    return text


def _spellings(character: str) -> str:
    """Give a pattern of a character as JSON may spell it, also JSON inside a text of JSON."""
    return rf"(?:\\{{0,4}}{re.escape(character)}|\\{{1,4}}u(?i:{ord(character):04x}))"


def redact(headers: httpx.Headers, names: Iterable[str] | None = None) -> None:
    """Blank out credentials in headers that stay on responses and exceptions, where they may be pickled or logged."""
    for name in credentials_in(headers.raw) if names is None else names:
        headers[name] = REDACTED


def credentials_in(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """Name the headers that hold a credential."""
    return tuple(name.decode() for name, _ in headers if CREDENTIAL.fullmatch(name))


class Code(NamedTuple):
    """One row: the meaning, the remedy, and whether the SDK may retry (None: as it decides by the status)."""

    meaning: str
    remedy: str | Callable[[RequestFacts], str]
    retry: bool | None = False

    def advice(self, facts: RequestFacts) -> str:
        return self.remedy if isinstance(self.remedy, str) else self.remedy(facts)


def _token_with(permission: str) -> Callable[[RequestFacts], str]:
    return lambda facts: (
        f"the token in {_TOKEN} was sent; it needs {permission} on this account"
        if facts.gateway_token
        else f"set {_TOKEN} to a token with {permission}"
    )


def _provider_unknown(facts: RequestFacts) -> str:
    if facts.route == "rest":  # its path begins with /v1, which the endpoint of another route takes for a provider
        return f"{_ENDPOINT} is an address of the other routes; give one of the rest route, or set {_ROUTE} to another"
    if facts.route == "provider":
        return f"check that {_ENDPOINT} ends before /deepseek"
    return f"check the prefix of the model {facts.model!r}, such as deepseek/"


def _nothing_there(facts: RequestFacts) -> str:
    return f"check {_ENDPOINT}" + ("" if facts.route == "rest" else "; api.cloudflare.com is for the rest route only")


def _not_reached(facts: RequestFacts) -> str:
    if facts.model and facts.model.startswith("dynamic/"):
        return f"if the error persists, check that the dynamic route {facts.model!r} exists and is deployed"
    return f"if the error persists, check that the model {facts.model!r} exists"


def _other_payer(facts: RequestFacts) -> str:
    own = "use the provider route with a key of your own" if facts.route == "rest" else f"set {_KEY}"
    return f"store a DeepSeek key for this gateway, {own}, or check your credits in the Cloudflare dashboard"


def _wait_for_billing(facts: RequestFacts) -> str:
    return f"wait about a minute, because the limit is a few calls a minute, or {_other_payer(facts)}"


_SPEND_LIMIT = Code("a spend limit of this gateway is reached", "wait until its period is over, or raise the limit")

CODES: dict[str, Code] = {
    "2001": Code("this account has no such gateway", f"check {_GATEWAY} and {_ACCOUNT}, or create the gateway"),
    "2002": Code("the gateway could not read the model's answer", "try again", None),
    "2003": Code("the gateway's own rate limit is reached", "slow down, or raise the limit", retry=True),
    "2005": Code("the provider behind the gateway did not answer", _not_reached, retry=True),
    "2008": Code("the gateway knows no such provider", _provider_unknown),
    "2009": Code("this gateway asks for authentication", _token_with("AI Gateway Run")),
    "2016": Code("a guardrail blocked the prompt", "change the prompt, or the gateway's guardrails"),
    "2017": Code("a guardrail blocked the response", "change the prompt, or the gateway's guardrails"),
    "2018": Code("there were too many requests that Cloudflare pays for", _wait_for_billing),
    "2019": Code("the compat route takes chat completions only", "use the provider route for this request"),
    "2021": Code("Cloudflare's credits do not cover this call", _other_payer),
    "2029": Code("a data loss prevention policy blocked the prompt", "change the prompt, or the gateway's policies"),
    "2030": Code("a data loss prevention policy blocked the response", "change the prompt, or the gateway's policies"),
    "2040": Code("no key is stored under this alias", "correct byok_alias, or store a key under it at Cloudflare"),
    "2041": _SPEND_LIMIT,
    "2045": _SPEND_LIMIT,
    "7000": Code("there is nothing at this address", _nothing_there),
    "7001": Code("the rest route does not offer this method here", "use the provider route"),
    "7003": Code("the model is not known here", "check its name and prefix, such as deepseek/deepseek-flash"),
    "7013": Code("the guardrails' scanner is not available", "try again later", retry=True),
    "10000": Code("the rest route does not accept this token", _token_with("Workers AI Read")),
}
"""By the gateway's number. Sources: Cloudflare's changelog, guardrail, DLP, spend-limit and policy pages, captures."""

TEXTS: dict[str, Code] = {
    "wholesale rate limit": Code("there were too many requests that Cloudflare pays for", _wait_for_billing),
    "this model is not available via unified billing": Code("Cloudflare does not pay for this model", _other_payer),
    "model execution failed": Code("the model refused the request, or failed", "check the request and its parameters"),
    "access denied by policy": Code("an identity policy of this gateway denies this call", "ask its administrator"),
    "spending limit exceeded": _SPEND_LIMIT,
    "spend limit exceeded": _SPEND_LIMIT,
}
"""By the beginning of the text, in lower case. It counts before the number, because 2018, 2021 and 7003 have several
meanings, and some errors have no number (Cloudflare docs: features/policies, captures)."""

EDGE: dict[str, Code] = {
    "1010": Code("it takes this program for a bot", "change its User-Agent, or the rules of your custom domain"),
    "blocked": Code("it refuses this program's User-Agent", "send another, or change the rules of your custom domain"),
    "502": Code("the gateway could not be reached", "try again later", None),
    "520": Code("the gateway gave no valid answer", "try again later", None),
    "524": Code("the gateway took too long", "try again later, or stream the answer", None),
}
"""Responses of Cloudflare's edge, which stands before the gateway: plain text, HTML or problem JSON."""


def _key_refused(facts: RequestFacts) -> str:
    if facts.route == "rest":  # its Authorization holds the Cloudflare token, and the key is always the stored one
        return "DeepSeek refused the key stored at Cloudflare for this gateway; replace it in the Cloudflare dashboard"
    if not facts.authorization:
        return f"no key was sent; store one for this gateway at Cloudflare or replace the stored one, or set {_KEY}"
    if facts.key_is_stored:
        return (
            "an Authorization header was sent, which keeps Cloudflare from adding the stored key; leave it out, "
            "also from default_headers and with_options(api_key=...)"
        )
    stored = "" if facts.route == "direct" else "; to use a key stored at Cloudflare, leave it unset"
    return f"check {_KEY}{stored}"


# OpenAI's APIs that DeepSeek lacks, by the paths of their requests.
_MISSING = re.compile(r"/(embeddings|images|audio|moderations|batches|fine_tuning|assistants|threads|vector_stores)\b")


def _no_such_api(facts: RequestFacts) -> str:
    missing = _MISSING.search(facts.path)
    return f"DeepSeek has no {missing.group(1).replace('_', '-')} API" if missing else ""


DEEPSEEK: tuple[tuple[int, str, str | Callable[[RequestFacts], str]], ...] = (
    (400, "supported api model names", f"use a name from that list, or set {_MODEL} to one in place of OpenAI's names"),
    (400, "does not support this tool_choice", 'pass extra_body={"thinking": {"type": "disabled"}} to force a tool'),
    (400, "reasoning_content", "give earlier assistant messages back whole, with their reasoning_content"),
    (400, "must contain the word", "JSON mode needs the word json in a message; add it to the prompt"),
    (400, "response_format type", "chat takes json_object only; with adapt=True, json_schema is translated"),
    (400, "maximum context length", "shorten the messages"),
    (400, "content exists risk", "DeepSeek's content filter refused the prompt; change the prompt"),
    (400, "unknown variant `developer`", "use the role system; with adapt=True, developer is translated"),
    (401, "", _key_refused),
    (404, "", _no_such_api),
    (402, "", "the balance of the DeepSeek account is used up; top it up at platform.deepseek.com"),
    (429, "", "make fewer calls at a time; DeepSeek limits concurrency, and the limit falls with the balance"),
    (503, "", "DeepSeek is busy; try again later"),
)
"""The remedies for DeepSeek's own errors, by status and a part of the text in lower case. The first match counts."""


WITHHELD = (
    "the URL does not lie under the base URL of this client, so your credentials were withheld. Give the address of "
    "another gateway as endpoint, and use another client for any other service."
)
"""The remedy for an error of a URL to which no credential was sent."""


def deepseek_remedy(status: int, text: str, facts: RequestFacts) -> str | None:
    """Give the remedy for an error that DeepSeek made, if there is one."""
    if not facts.to_deepseek:
        return None
    lowered = text.lower()
    for known, part, remedy in DEEPSEEK:
        if known == status and part in lowered:
            return remedy if isinstance(remedy, str) else remedy(facts)
    return None
