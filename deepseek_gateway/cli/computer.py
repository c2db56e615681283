"""The checks of `doctor` that look at this computer: versions, proxies and trusted certificates."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPENAI_FLOOR, _OPENAI_CEILING, _HTTPX2_SINCE = (1, 66), (4,), (3,)
_INSTALL_OPENAI = "pip install --force-reinstall 'openai>=1.66,<4'"


class Judgement(NamedTuple):
    """The outcome of a check."""

    verdict: Literal["pass", "warn", "fail", "skip"]
    found: str
    remedy: str = ""


def masked(url: str) -> str:
    """Hide user, password and query of a URL."""
    return re.sub(r"[?#].*", "?***", re.sub(r"^(\w[\w.+-]*://)?.*@", r"\1***@", url))


def installed() -> dict[str, str]:
    """Give the installed versions of the packages that matter, without importing them."""
    found: dict[str, str] = {}
    for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2", "deepseek-gateway"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def judge_versions(numbers: Mapping[str, str]) -> Judgement:
    """Look for an openai that is supported, with all that it needs."""
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


def judge_proxies(base_url: str) -> Judgement:
    """Look for proxies that cannot be used, or should not be."""
    proxies = {scheme: proxy for scheme, proxy in getproxies().items() if scheme in {"http", "https", "all"}}
    for scheme, proxy in proxies.items():
        variable, kind = f"{scheme.upper()}_PROXY", _proxy_kind(proxy)
        found = f"{variable} is {masked(proxy)}"
        if kind not in {"http", "https", "socks5", "socks5h"}:
            return Judgement("fail", found, f"write {variable} like http://proxy.example.com:3128, or unset it")
        if kind.startswith("socks") and not find_spec("socksio"):
            return Judgement("fail", f"{found}, and SOCKS needs socksio", f"pip install socksio, or unset {variable}")
    url = urlsplit(base_url)
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


def judge_trusted_certificates() -> Judgement:
    """Look at the certificates that replace the usual ones, if there are any."""
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
