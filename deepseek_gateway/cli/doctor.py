"""The checks of `doctor`: local ones, and those that one short completion passes on its way to the answer.

The completion is made, and openai imported, when the first of the latter is due.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING

from deepseek_gateway._adapt import adapted_model
from deepseek_gateway._config import Findings, GatewayConfig, look_up
from deepseek_gateway._model import model_on
from deepseek_gateway._request import RefusedRequestError
from deepseek_gateway._settings import DEFAULT_MODEL, OPENAI_VARIABLES, SETTINGS, VARIABLE

from .computer import Judgement, installed, judge_proxies, judge_trusted_certificates, judge_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .probe import Probe

# Retired 2026-07-24 and 2026-09-10 (DeepSeek docs: news/news260424, news/news260910).
_RETIRED = {
    model_on("compat", name)
    for name in ("deepseek-chat", "deepseek-reasoner", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp")
}
_MOST_SECONDS_OFF = 300
# As a share of the time to the first chunk. Only a buffered answer is read faster than that.
_LEAST_SPREAD = 0.01


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


def _settings(case: Case) -> Judgement:
    problems = case.findings.problems
    if not problems:
        return Judgement("pass", f"all that the {case.config.route} route needs; requests go to {case.config.base_url}")
    missing = {name for problem in problems for name in problem.missing}
    found = "; ".join(each.sentence.partition(":")[0] if each.missing else each.sentence for each in problems)
    remedy = "set what is missing in the environment or in a .env file" if missing else "correct it"
    variables = ((each.variables[0], f"{each.meaning} ({each.source})") for each in SETTINGS)
    about = (f"{name}: {meaning}" for name, meaning in variables if name in missing)
    return Judgement("fail", found, "\n".join((f"{remedy}. {case.findings.looked}", *about)))


def _hidden_values(case: Case) -> Judgement:
    found, in_file = case.findings, look_up({}, env_file=case.findings.env_file)
    hidden: list[str] = []
    for name, (path, hidden_variable) in in_file.origins.items():
        origin, variable = found.origins[name]
        if origin == "environment" and found.values[name] != in_file.values[name]:
            hidden.append(f"{variable} in the environment hides another value of {hidden_variable} in {path}")
    if hidden:
        return Judgement("warn", "; ".join(hidden), "unset the variable, or correct the file")
    return Judgement("pass", "no value in the environment hides another one in a .env file")


def _openai_variables(_: Case) -> Judgement:
    present = [name for name in OPENAI_VARIABLES if os.environ.get(name)]
    if not present:
        return Judgement("pass", "none is set")
    names, uses = ", ".join(present), "; ".join(f"{name} {OPENAI_VARIABLES[name].use}" for name in present)
    remedy = f"unset {names}, unless another program needs it; a bare OpenAI client uses {uses}"
    return Judgement("warn", f"clients of this library ignore {names}", remedy)


def _model_name(case: Case) -> Judgement:
    names = {f"the model {case.model}": case.model}
    names |= {f"{value} in the variable {name}": value.strip() for name, value in os.environ.items()}
    retired = [f"{place} is a retired name" for place, name in names.items() if model_on("compat", name) in _RETIRED]
    try:
        name = model_on(case.config.route, adapted_model(case.model, case.config))
    except RefusedRequestError as error:
        found, _, remedy = str(error).partition(". ")
        return Judgement("fail", found, remedy)
    if retired:
        return Judgement("warn", "; ".join(retired), f"use {DEFAULT_MODEL}; a retired name may be refused any day")
    return Judgement("pass", f"{case.model} is sent as {name}")


def _translation(case: Case) -> Judgement:
    config, adapt = case.config, VARIABLE["adapt"]
    if not config.adapt:
        idle = [VARIABLE[name] for name in ("model", "thinking") if getattr(config, name) is not None]
        if idle:
            found = f"{' and '.join(idle)} without effect, because {adapt} is off"
            return Judgement("warn", found, f"unset {adapt}, or {' and '.join(idle)}")
        return Judgement("pass", f"{adapt} is off, so DeepSeek may refuse what is written for OpenAI")
    models = f"OpenAI's model names become {config.model}" if config.model else "OpenAI's model names are kept"
    thinking = {None: "as each call says", True: "on by default", False: "off by default"}[config.thinking]
    return Judgement("pass", f"on; {models}; thinking {thinking}")


def _fallback(case: Case) -> Judgement:
    config, fallback = case.config, VARIABLE["fallback"]
    if not config.fallback:
        return Judgement("pass", "off: while the gateway is down, calls fail")
    if config.route == "direct":
        return Judgement("warn", f"{fallback} has no effect on the direct route", f"unset {fallback}")
    if not config.api_key:
        found = "it needs a key of your own, so it serves only calls that bring one"
        return Judgement("warn", found, f"set {VARIABLE['api_key']}, or unset {fallback}")
    found = f"while the gateway is down, calls go to {config.direct_endpoint}, past its policies and its log"
    return Judgement("pass", found)


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


def _fallback_reached(probe: Probe) -> Judgement:
    where = probe.config.direct_endpoint
    if error := probe.direct_error():
        return Judgement("fail", f"{where}: {error}", f"check {VARIABLE['direct_endpoint']} and {VARIABLE['api_key']}")
    return Judgement("pass", f"{where} accepted the key")


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
    "translation": _translation,
    "fallback": _fallback,
    "versions": lambda case: judge_versions(case.versions),
    "proxies": lambda case: judge_proxies(case.config.base_url),
    "trusted certificates": lambda _: judge_trusted_certificates(),
}
_NEED_SETTINGS = {"model name", "translation", "fallback", "proxies"}

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

FALLBACK_CHECK = "fallback reached"
"""This check makes a call of its own, which costs nothing, to DeepSeek itself."""

GROUP_OF = {
    **dict.fromkeys(LOCAL_CHECKS, "settings"),
    **dict.fromkeys(("versions", "proxies", "trusted certificates"), "this computer"),
    **dict.fromkeys(("name resolution", "TCP connection", "TLS certificate", "clock"), "connection"),
    **dict.fromkeys(("gateway", "gateway authentication", "cache status"), "gateway"),
    **dict.fromkeys(
        ("DeepSeek reached", "DeepSeek key", "DeepSeek balance", "model accepted", "streaming"), "DeepSeek"
    ),
    FALLBACK_CHECK: "DeepSeek",
}


def diagnose(case: Case) -> dict[str, Judgement]:
    """Make the checks, and skip those that cannot be made."""
    no_settings = "valid settings are needed" if case.findings.problems else ""
    results: dict[str, Judgement] = {}
    for name, judge in LOCAL_CHECKS.items():
        skipped = no_settings and name in _NEED_SETTINGS
        results[name] = Judgement("skip", no_settings) if skipped else judge(case)
    broken = next((f"{name} failed" for name, result in results.items() if result.verdict == "fail"), "")
    unable = obstacle = no_settings or broken or ("--offline was given" if case.offline else "")
    for name, check in NETWORK_CHECKS.items():
        if obstacle:
            results[name] = Judgement("skip", obstacle)
        elif GROUP_OF[name] == "gateway" and case.config.route == "direct":
            results[name] = Judgement("skip", "the direct route has no gateway")
        elif case.probe.failure and case.probe.failure.check == name:
            results[name] = Judgement("fail", case.probe.failure.found, case.probe.failure.remedy)
            obstacle = f"{name} failed"
        else:
            results[name] = (
                Judgement("pass", check.format(probe=case.probe)) if isinstance(check, str) else check(case.probe)
            )
    if not unable and not (case.config.fallback and case.config.api_key and case.config.route != "direct"):
        unable = "no fallback is in use"
    results[FALLBACK_CHECK] = Judgement("skip", unable) if unable else _fallback_reached(case.probe)
    return results
