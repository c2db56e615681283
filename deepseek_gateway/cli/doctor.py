"""The checks of `doctor`: local ones, and those that one short completion passes on its way to the answer.

The completion is made, and openai imported, when the first of the latter is due.
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
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from deepseek_gateway._config import Findings, GatewayConfig, look_up
from deepseek_gateway._request import RefusedRequestError, model_on
from deepseek_gateway._settings import DEFAULT_MODEL, OPENAI_VARIABLES, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .probe import Probe

# Retired 2026-07-24 and 2026-09-10 (DeepSeek docs: news/news260424, news/news260910).
_RETIRED = {
    model_on("compat", name)
    for name in ("deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp")
}
_OPENAI_FLOOR, _OPENAI_CEILING, _HTTPX2_SINCE = (1, 66), (4,), (3,)
_INSTALL_OPENAI = "pip install --force-reinstall 'openai>=1.66,<4'"
_MOST_SECONDS_OFF = 300
# As a share of the time to the first chunk. Only a buffered answer is read faster than that.
_LEAST_SPREAD = 0.01


class Judgement(NamedTuple):
    """The outcome of a check."""

    verdict: Literal["pass", "warn", "fail", "skip"]
    found: str
    remedy: str = ""


def installed() -> dict[str, str]:
    """Give the installed versions of the packages that matter, without importing them."""
    found: dict[str, str] = {}
    for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2", "deepseek-gateway"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is checked."""

    findings: Findings
    model: str = DEFAULT_MODEL
    offline: bool = False
    versions: Mapping[str, str] = field(default_factory=installed)

    @cached_property
    def config(self) -> GatewayConfig:
        """The settings, once the first check has passed."""
        return GatewayConfig(**self.findings.values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @cached_property
    def probe(self) -> Probe:
        """The one completion; it is made on the first access."""
        from .probe import Probe  # noqa: PLC0415  # imports openai

        return Probe(self.config, self.model).run()


def masked(url: str) -> str:
    """Hide user, password and query of a URL."""
    return re.sub(r"[?#].*", "?***", re.sub(r"^(\w[\w.+-]*://)?.*@", r"\1***@", url))


def _settings(case: Case) -> Judgement:
    problems = case.findings.problems
    if not problems:
        return Judgement("pass", f"all that the {case.config.route} route needs; requests go to {case.config.base_url}")
    missing = any(problem.missing for problem in problems)
    remedy = "set what is missing in the environment or in a .env file" if missing else "correct it"
    lines = (line.strip() for problem in problems for line in problem.sentence.splitlines())
    return Judgement("fail", "\n".join(lines), f"{remedy}. {case.findings.looked}")


def _hidden_values(case: Case) -> Judgement:
    found, in_file = case.findings, look_up({}, env_file=case.findings.env_file)
    hidden: list[str] = []
    for name, (path, hidden_variable) in in_file.origins.items():
        origin, variable = found.origins[name]
        if origin == "environment" and found.values[name] != in_file.values[name]:
            hidden.append(f"{variable} in the environment hides another value of {hidden_variable} in {path}")
    if hidden:
        return Judgement("warn", "\n".join(hidden), "unset the variable, or correct the file")
    return Judgement("pass", "no value in the environment hides another one in a .env file")


def _openai_variables(_: Case) -> Judgement:
    present = [name for name in OPENAI_VARIABLES if os.environ.get(name)]
    if not present:
        return Judgement("pass", "none is set")
    lines = ["clients of this library ignore these variables; a bare OpenAI client uses"]
    lines += [f"{name} {OPENAI_VARIABLES[name].use}" for name in present]
    return Judgement("warn", "\n".join(lines), f"unset {', '.join(present)}, unless another program needs it")


def _model_name(case: Case) -> Judgement:
    names = {f"the model {case.model}": case.model}
    names |= {f"{value} in the variable {name}": value.strip() for name, value in os.environ.items()}
    retired = [f"{place} is a retired name" for place, name in names.items() if model_on("compat", name) in _RETIRED]
    try:
        name = model_on(case.config.route, case.model)
    except RefusedRequestError as error:
        found, _, remedy = str(error).partition(". ")
        return Judgement("fail", found, remedy)
    if retired:
        return Judgement("warn", "\n".join(retired), f"use {DEFAULT_MODEL}; a retired name may be refused any day")
    return Judgement("pass", f"{case.model} is sent as {name}")


def _versions(case: Case) -> Judgement:
    numbers = case.versions
    if "openai" not in numbers:
        return Judgement("fail", "openai is not installed", _INSTALL_OPENAI)
    parts = tuple(int(part) for part in re.findall(r"\d+", numbers["openai"])[:2])
    libraries = ("httpx2", "httpcore2") if parts >= _HTTPX2_SINCE else ("httpx", "httpcore")
    found = ", ".join(f"{name} {numbers.get(name, 'is missing')}" for name in ("openai", *libraries))
    found += f", Python {python_version()}, deepseek-gateway {numbers.get('deepseek-gateway', 'from a checkout')}"
    supported = _OPENAI_FLOOR <= parts < _OPENAI_CEILING
    if not supported or not numbers.keys() >= set(libraries):
        return Judgement("fail", found if supported else f"{found}: this openai is not supported", _INSTALL_OPENAI)
    return Judgement("pass", found)


def _proxies(case: Case) -> Judgement:
    proxies = {scheme: proxy for scheme, proxy in getproxies().items() if scheme in {"http", "https", "all"}}
    for scheme, proxy in proxies.items():
        variable, kind = f"{scheme.upper()}_PROXY", _proxy_kind(proxy)
        found = f"{variable} is {masked(proxy)}"
        if kind not in {"http", "https", "socks5", "socks5h"}:
            return Judgement("fail", found, f"write {variable} like http://proxy.example.com:3128, or unset it")
        if kind.startswith("socks") and not find_spec("socksio"):
            return Judgement("fail", f"{found}, and SOCKS needs socksio", f"pip install socksio, or unset {variable}")
    url = urlsplit(case.config.base_url)
    proxy = proxies.get(url.scheme) or proxies.get("all", "")
    if not proxy:
        return Judgement("pass", "none")
    if proxy_bypass(url.hostname or ""):
        return Judgement("pass", f"{masked(proxy)}, but not for {url.hostname}: NO_PROXY names it")
    if url.scheme == "http":
        found = f"{masked(proxy)}, although {url.hostname} is this computer"
        return Judgement("warn", found, f"set NO_PROXY={url.hostname}")
    return Judgement("pass", f"{masked(proxy)}; the next checks look at the proxy, which connects to the gateway")


def _proxy_kind(proxy: str) -> str:
    """Give the scheme of a proxy's address, or nothing if the address is not valid."""
    with suppress(ValueError):  # also raised for a port that is no number
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return url.scheme if url.hostname and url.port != 0 else ""
    return ""


def _trusted_certificates(_: Case) -> Judgement:
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
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


def _clock(probe: Probe) -> Judgement:
    try:
        theirs = parsedate_to_datetime(probe.headers["date"]).replace(tzinfo=UTC).timestamp()
    except (KeyError, ValueError):
        return Judgement("skip", "the answer has no date")
    off = probe.clock - theirs
    found = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the server's"
    if abs(off) > _MOST_SECONDS_OFF:
        return Judgement("warn", found, "set this computer's clock; certificates and tokens depend on it")
    return Judgement("pass", found)


def _gateway(probe: Probe) -> Judgement:
    marked = any(name.startswith("cf-aig-") for name in probe.headers)
    if marked or getattr(probe.error, "type", "") == "ai_gateway_error":
        return Judgement("pass", "AI Gateway answered")
    remedy = f"check that {VARIABLE['endpoint']} is an AI Gateway's address"
    return Judgement("warn", "something answered, without any header of AI Gateway", remedy)


def _cache_status(probe: Probe) -> Judgement:
    status = probe.headers.get("cf-aig-cache-status")
    if status == "HIT":
        found = "HIT: a cache answered a new question, so key and model were not tried"
        return Judgement("warn", found, "look for a cache key that does not depend on the question")
    return Judgement("pass", status or "not reported, as usual where caching is off")


def _streaming(probe: Probe) -> Judgement:
    if not probe.headers.get("content-type", "").startswith("text/event-stream"):
        remedy = "guardrails do that: switch them off, or use the rest route, if you need answers piece by piece"
        return Judgement("fail", "the answer came as one JSON body, which this library turned into a stream", remedy)
    if not probe.answer.chunks:
        return Judgement("fail", "the stream was empty", "try again; if it stays so, see the gateway's log")
    asked, *pieces = probe.arrivals
    wait, spread = pieces[0] - asked, pieces[-1] - pieces[0]
    found = f"{len(pieces)} pieces, the first after {wait:.3f} s, the last {spread:.3f} s later"
    if len(pieces) > 1 and spread >= wait * _LEAST_SPREAD:
        return Judgement("pass", found)
    remedy = "if long answers come at once too, look for what holds them back: a proxy, a virus scanner, DLP"
    return Judgement("warn", f"all at once: {found}", remedy)


LOCAL_CHECKS: dict[str, Callable[[Case], Judgement]] = {
    "settings": _settings,
    "hidden values": _hidden_values,
    "OPENAI_* variables": _openai_variables,
    "model name": _model_name,
    "versions": _versions,
    "proxies": _proxies,
    "trusted certificates": _trusted_certificates,
}
_NEED_SETTINGS = {"model name", "proxies"}

NETWORK_CHECKS: dict[str, str | Callable[[Probe], Judgement]] = {
    "name resolution": "{probe.place} is {probe.address}",
    "TCP connection": "connected to {probe.host}:{probe.port}",
    "TLS certificate": "{probe.tls}",
    "gateway": _gateway,
    "clock": _clock,
    "gateway authentication": "{probe.authentication}",
    "DeepSeek reached": "no limit, policy or guardrail refused the call",
    "DeepSeek key": "{probe.key} was accepted",
    "DeepSeek balance": "enough for this call",
    "model accepted": "{probe.answered}",
    "cache status": _cache_status,
    "streaming": _streaming,
}
"""In the order in which the completion passes them. Where only a failed completion can fail a check, there is a text
for a check that was passed; the others are judged by a function."""


def diagnose(case: Case) -> dict[str, Judgement]:
    """Make the checks, and skip those that cannot be made."""
    no_settings = "valid settings are needed" if case.findings.problems else ""
    results: dict[str, Judgement] = {}
    for name, judge in LOCAL_CHECKS.items():
        skipped = no_settings and name in _NEED_SETTINGS
        results[name] = Judgement("skip", no_settings) if skipped else judge(case)
    broken = next((f"{name} failed" for name, result in results.items() if result.verdict == "fail"), "")
    obstacle = no_settings or broken or ("--offline was given" if case.offline else "")
    for name, check in NETWORK_CHECKS.items():
        if obstacle:
            results[name] = Judgement("skip", obstacle)
        elif case.probe.failure and case.probe.failure.check == name:
            results[name] = Judgement("fail", case.probe.failure.found, case.probe.failure.remedy)
            obstacle = f"{name} failed"
        else:
            results[name] = (
                Judgement("pass", check.format(probe=case.probe)) if isinstance(check, str) else check(case.probe)
            )
    return results
