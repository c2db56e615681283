"""What `deepseek-gateway doctor` looks at: one table of checks.

The checks are pure functions of a `Case`; those marked `network` read the one completion that `probe` makes, which is
made, and openai imported, when the first of them is due.
"""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from deepseek_gateway._config import Findings, GatewayConfig, look_up
from deepseek_gateway._request import RefusedRequestError, model_on
from deepseek_gateway._settings import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import EllipsisType

    from .probe import Outcome

MODEL = "deepseek-flash"
Verdict: TypeAlias = Literal["pass", "warn", "fail", "skip"]

# Retired 2026-07-24 and 2026-09-10 (DeepSeek docs: news/news260424, news/news260910).
_RETIRED = ("deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp")
# What a client that is made without this library does with each (read in the SDK's source, and measured).
_STRAY = {
    "OPENAI_API_KEY": "as the key, unless it is given one",
    "OPENAI_ADMIN_KEY": "as the key of some calls",
    "OPENAI_ORG_ID": "as OpenAI-Organization",
    "OPENAI_PROJECT_ID": "as OpenAI-Project",
    "OPENAI_CUSTOM_HEADERS": "as headers, all that it lists",
    "OPENAI_BASE_URL": "nowhere, but everything else to the host in it, unless it is given one",
}
_OPENAI_FLOOR, _OPENAI_CEILING, _HTTPX2_SINCE = (1, 66), (4,), (3,)
_DISTRIBUTIONS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2", "deepseek-gateway")
_MOST_SECONDS_OFF = 300
# Of the time until the first piece: one that arrives whole is read in far less, and no model writes as fast.
_LEAST_SPREAD = 0.01


class Judgement(NamedTuple):
    """What a check says."""

    verdict: Verdict
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A check that was made, or why it was not."""

    name: str
    verdict: Verdict
    found: str
    remedy: str


def installed() -> dict[str, str]:
    """Give the versions that matter of what is installed; nothing is imported for that."""
    found: dict[str, str] = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is looked at."""

    findings: Findings
    in_file: Findings
    model: str = MODEL
    offline: bool = False
    max_retries: int = 2
    max_attempts: int = 1
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    versions: Mapping[str, str] = field(default_factory=installed)

    @classmethod
    def of(
        cls,
        env_file: str | os.PathLike[str] | EllipsisType = ...,
        *,
        settings: Mapping[str, str | None],
        **options: Any,
    ) -> Case:
        """Look the settings up, and once more in the `.env` file alone, to tell what the environment hides."""
        findings = look_up(None, env_file=env_file, **settings)
        return cls(findings=findings, in_file=look_up({}, env_file=findings.env_file), **options)

    @cached_property
    def config(self) -> GatewayConfig:
        """The settings, once they are known to suffice."""
        return GatewayConfig(**self.findings.values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @cached_property
    def outcome(self) -> Outcome:
        """What the one completion told; it is made when somebody asks."""
        from .probe import probe  # noqa: PLC0415  # importing openai is put off until it must be

        return probe(self.config, self.model)

    @property
    def traceback(self) -> str:
        """Where the completion failed, if it was tried and did."""
        return self.outcome.traceback if "outcome" in vars(self) else ""


def masked(url: str) -> str:
    """Take user, password and query out of a URL."""
    return re.sub(r"[?#].*", "?***", re.sub(r"^(\w[\w.+-]*://)?.*@", r"\1***@", url))


def _settings(case: Case) -> Judgement:
    if not case.findings.complaint:
        return Judgement("pass", f"all that the {case.config.route} route needs; requests go to {case.config.base_url}")
    _, *lines = case.findings.complaint.splitlines()
    problems = [line.strip().removeprefix("- ") for line in lines if line.startswith(" ")]
    looked = "".join(line for line in lines if line.startswith("Looked in"))
    remedy = "set what is missing in the environment or in a .env file" if case.findings.missing else "correct it"
    return Judgement("fail", "\n".join(problems), f"{remedy}. {looked}".strip())


def _hidden(case: Case) -> Judgement:
    hidden: list[str] = []
    for name, (path, in_file) in case.in_file.origins.items():
        origin, variable = case.findings.origins[name]
        if origin == "environment" and case.findings.values[name] != case.in_file.values[name]:
            hidden.append(f"{variable} in the environment hides another value of {in_file} in {path}")
    if hidden:
        return Judgement("warn", "\n".join(hidden), "unset the variable, or correct the file")
    return Judgement("pass", "no value in the environment hides another one in a .env file")


def _stray(case: Case) -> Judgement:
    stray = [name for name in _STRAY if case.environ.get(name)]
    if not stray:
        return Judgement("pass", "none is set")
    told = ["to Cloudflare and DeepSeek a bare OpenAI client would have sent, and this library does not send:"]
    told += [f"{name}, {_STRAY[name]}" for name in stray]
    return Judgement("warn", "\n".join(told), f"unset {', '.join(stray)}, unless another program needs it")


def _model_name(case: Case) -> Judgement:
    retired = [f"{case.model} is a retired name"] if case.model.removeprefix("deepseek/") in _RETIRED else []
    retired += [
        f"the variable {name} holds the retired name {value}"
        for name, value in case.environ.items()
        if value.strip().removeprefix("deepseek/") in _RETIRED
    ]
    try:
        name = model_on(case.config.route, case.model)
    except RefusedRequestError as error:
        found, _, remedy = str(error).partition(". ")
        return Judgement("fail", found, remedy)
    if retired:
        return Judgement("warn", "\n".join(retired), f"use {MODEL}; a retired name may be refused any day")
    return Judgement("pass", f"{case.model} is sent as {name}")


def _versions(case: Case) -> Judgement:
    numbers = case.versions
    if "openai" not in numbers:
        return Judgement("fail", "openai is not installed", "pip install 'openai>=1.66,<4'")
    own = numbers.get("deepseek-gateway", "from a checkout")
    parts = tuple(int(part) for part in re.findall(r"\d+", numbers["openai"])[:2])
    library, core = ("httpx2", "httpcore2") if parts >= _HTTPX2_SINCE else ("httpx", "httpcore")
    found = f"openai {numbers['openai']}, "
    found += ", ".join(f"{name} {numbers.get(name, 'is missing')}" for name in (library, core))
    found += f", Python {python_version()}, deepseek-gateway {own}"
    if not _OPENAI_FLOOR <= parts < _OPENAI_CEILING:
        return Judgement("fail", f"{found}: this openai is not supported", "pip install 'openai>=1.66,<4'")
    if not {library, core} <= numbers.keys():
        return Judgement("fail", found, "pip install --force-reinstall 'openai>=1.66,<4'")
    return Judgement("pass", found)


def _proxies(case: Case) -> Judgement:
    proxies = {scheme: proxy for scheme, proxy in getproxies().items() if scheme in {"http", "https", "all"}}
    url = urlsplit(case.config.base_url)
    for scheme, proxy in proxies.items():
        variable = f"{scheme.upper()}_PROXY"
        kind = _proxy_kind(proxy)
        if kind not in {"http", "https", "socks5", "socks5h"}:
            remedy = f"write {variable} like http://proxy.example.com:3128, or unset it"
            return Judgement("fail", f"{variable} is {masked(proxy)}", remedy)
        if kind.startswith("socks") and not find_spec("socksio"):
            found = f"{variable} is {masked(proxy)}, and for SOCKS the HTTP library needs socksio"
            return Judgement("fail", found, f"pip install socksio, or unset {variable}")
    proxy = proxies.get(url.scheme) or proxies.get("all", "")
    if not proxy:
        return Judgement("pass", "none")
    if proxy_bypass(url.hostname or ""):
        return Judgement("pass", f"{masked(proxy)}, but not for {url.hostname}: NO_PROXY names it")
    if url.scheme == "http":
        remedy = f"set NO_PROXY={url.hostname}"
        return Judgement("warn", f"{masked(proxy)}, although {url.hostname} is this computer", remedy)
    return Judgement("pass", f"{masked(proxy)}; it resolves and connects, so the next checks look at the proxy")


def _proxy_kind(proxy: str) -> str:
    """Give the scheme of a proxy's address; nothing, if it is none."""
    with suppress(ValueError):  # also of a port that is no number
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return url.scheme if url.hostname and url.port != 0 else ""
    return ""


def _trust(case: Case) -> Judgement:
    file, folder = case.environ.get("SSL_CERT_FILE"), case.environ.get("SSL_CERT_DIR")
    if not (file or folder):
        return Judgement("pass", "the defaults of the HTTP library")
    name, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
    try:
        if not file and not Path(path or "").is_dir():
            raise FileNotFoundError(2, "no such folder")
        ssl.create_default_context(cafile=file, capath=None if file else folder)
    except OSError as error:  # ssl.SSLError is one
        remedy = f"correct or unset {name}; it names certificates in PEM form"
        return Judgement("fail", f"{name}={path}: {error.strerror or 'no certificate in it'}", remedy)
    return Judgement("pass", f"only those in {name}={path}")


def _calls(case: Case) -> Judgement:
    tries, attempts = case.max_retries + 1, case.max_attempts
    told = f"one call of yours makes at most {tries * attempts} at DeepSeek"
    told += f" (max_retries={case.max_retries}, max_attempts={attempts})"
    if attempts == 1 or tries == 1:
        return Judgement("pass", told)
    found = f"{told}, if the connection is lost after each answer; else at most {attempts}"
    return Judgement("warn", found, "set max_retries=0 where the gateway tries several times, or max_attempts=1")


def _resolution(case: Case) -> Judgement:
    host = f"the proxy {case.outcome.host}" if case.outcome.proxied else case.outcome.host
    return Judgement("pass", f"{host} is at {case.outcome.address}" if case.outcome.address else f"{host} is known")


def _tcp(case: Case) -> Judgement:
    return Judgement("pass", f"connected to {case.outcome.host}:{case.outcome.port}")


def _tls(case: Case) -> Judgement:
    if not case.outcome.secure:
        return Judgement("pass", "none, and none is needed: plain http stays on this computer")
    protocol, issuer, expires = case.outcome.certificate or ("TLS", "", "")
    return Judgement("pass", f"{protocol}, issued by {issuer or 'an unnamed CA'}, valid until {expires or 'unknown'}")


def _gateway(case: Case) -> Judgement:
    headers, error = case.outcome.headers, case.outcome.error
    if any(name.startswith("cf-aig-") for name in headers) or getattr(error, "type", "") == "ai_gateway_error":
        return Judgement("pass", "AI Gateway answered")
    remedy = f"check that {VARIABLE['endpoint']} is an AI Gateway's address"
    return Judgement("warn", "something answered, without any header of AI Gateway", remedy)


def _authentication(case: Case) -> Judgement:
    if case.config.gateway_token:
        return Judgement("pass", f"the token in {VARIABLE['gateway_token']} was sent, and not refused")
    return Judgement("pass", "the gateway asks for none")


def _reached(_: Case) -> Judgement:
    return Judgement("pass", "no limit, policy or guardrail was in the way")


def _key(case: Case) -> Judgement:
    key = "the key stored at Cloudflare" if case.outcome.sent.key_is_stored else f"the key in {VARIABLE['api_key']}"
    return Judgement("pass", f"{key} was accepted")


def _balance(_: Case) -> Judgement:
    return Judgement("pass", "enough for this call")


def _model(case: Case) -> Judgement:
    answered = case.outcome.model
    as_other = answered and answered != case.model.removeprefix("deepseek/")
    return Judgement("pass", f"{case.model} answered{f' as {answered}' if as_other else ''}")


def _streaming(case: Case) -> Judgement:
    outcome = case.outcome
    if not outcome.headers.get("content-type", "").startswith("text/event-stream"):
        remedy = "guardrails do that: switch them off, or use the rest route, if you need answers piece by piece"
        return Judgement("fail", "the answer came in one JSON body, of which this library made a stream", remedy)
    if not outcome.chunks:
        return Judgement("fail", "the stream was empty", "try again; if it stays so, see the gateway's log")
    sent, *pieces = outcome.arrivals
    wait, spread = pieces[0] - sent, pieces[-1] - pieces[0]
    found = f"{len(pieces)} pieces, the first after {wait:.3f} s, the last {spread:.3f} s later"
    if len(pieces) > 1 and spread >= wait * _LEAST_SPREAD:
        return Judgement("pass", found)
    remedy = "if long answers come at once too, look for what holds them back: a proxy, a virus scanner, DLP"
    return Judgement("warn", f"all at once: {found}", remedy)


def _cache(case: Case) -> Judgement:
    status = case.outcome.headers.get("cf-aig-cache-status")
    if status == "HIT":
        found = "HIT: a question never asked before was answered from a cache, so key and model were not tried"
        return Judgement("warn", found, "look for a cache key that does not depend on the question")
    return Judgement("pass", status or "not told, as usual where caching is off")


def _clock(case: Case) -> Judgement:
    try:
        theirs = parsedate_to_datetime(case.outcome.headers["date"]).replace(tzinfo=UTC).timestamp()
    except (KeyError, ValueError):
        return Judgement("skip", "no answer that tells the time")
    off = case.outcome.clock - theirs
    found = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the server's"
    if abs(off) > _MOST_SECONDS_OFF:
        return Judgement("warn", found, "set this computer's clock; certificates and tokens depend on it")
    return Judgement("pass", found)


class Check(NamedTuple):
    """One row of the table: a check is made when all that it needs has passed, or passed with a warning."""

    name: str
    judge: Callable[[Case], Judgement]
    needs: tuple[str, ...] = ()
    network: bool = False


_READY = ("settings", "model name", "versions", "proxies", "trusted certificates")

CHECKS = (
    Check("settings", _settings),
    Check("hidden values", _hidden),
    Check("OPENAI_* variables", _stray),
    Check("model name", _model_name, ("settings",)),
    Check("versions", _versions),
    Check("proxies", _proxies, ("settings",)),
    Check("trusted certificates", _trust),
    Check("upstream calls", _calls),
    Check("name resolution", _resolution, _READY, network=True),
    Check("TCP connection", _tcp, ("name resolution",), network=True),
    Check("TLS certificate", _tls, ("TCP connection",), network=True),
    Check("gateway", _gateway, ("TLS certificate",), network=True),
    Check("clock", _clock, ("gateway",), network=True),
    Check("gateway authentication", _authentication, ("gateway",), network=True),
    Check("DeepSeek reached", _reached, ("gateway authentication",), network=True),
    Check("DeepSeek key", _key, ("DeepSeek reached",), network=True),
    Check("DeepSeek balance", _balance, ("DeepSeek key",), network=True),
    Check("model accepted", _model, ("DeepSeek balance",), network=True),
    Check("streaming", _streaming, ("model accepted",), network=True),
    Check("cache status", _cache, ("model accepted",), network=True),
)


def diagnose(case: Case) -> list[Result]:
    """Make every check that can be made."""
    results: dict[str, Result] = {}
    for check in CHECKS:
        results[check.name] = Result(check.name, *_judge(check, case, results))
    return list(results.values())


def _judge(check: Check, case: Case, results: Mapping[str, Result]) -> Judgement:
    for need in check.needs:
        if results[need].verdict == "fail":
            return Judgement("skip", f"not tried, because {need} failed")
        if results[need].verdict == "skip":
            return Judgement("skip", results[need].found)
    if check.network and case.offline:
        return Judgement("skip", "not tried, because of --offline")
    trouble = case.outcome.trouble if check.network else None
    if trouble and trouble.check == check.name:
        return Judgement("fail", trouble.found, trouble.remedy)
    return check.judge(case)
