"""How this package was installed, and so how to add an extra to it. Needs no extra itself."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_NAME = "deepseek-gateway"


def extra_command(extra: str) -> str:
    """Give the command that installs an extra: with the same tool and from the same place as the package.

    PEP 610 records the place and PEP 376 the tool. All shells understand double quotes.
    """
    try:
        found = Distribution.from_name(_NAME)
    except PackageNotFoundError:  # a copy of the source that was never installed
        return f'{_pip()} "{_NAME}[{extra}]"'
    place, editable = _place(json.loads(found.read_text("direct_url.json") or "{}"), extra)
    wanted = f'{"--editable " if editable else ""}"{place}"'
    prefix, (tool, *_) = Path(sys.prefix), (found.read_text("INSTALLER") or "pip").split()
    if (prefix / "pipx_metadata.json").exists():
        return f"pipx install --force {wanted}"
    if (prefix / "uv-receipt.toml").exists():
        return f"uv tool install --force {wanted}"
    if tool == "uv":  # a project's lock file lies beside its environment
        return f"uv add {wanted}" if (prefix.parent / "uv.lock").exists() else f"uv pip install {wanted}"
    return f"{tool} add {wanted}" if tool in {"pdm", "poetry"} else f"{_pip()} {wanted}"


def _place(origin: dict[str, dict[str, object]], extra: str) -> tuple[str, bool]:
    """Give the requirement for an extra, and whether it is an editable checkout."""
    url = str(origin.get("url", ""))
    if "dir_info" in origin:
        return f"{url2pathname(urlsplit(url).path)}[{extra}]", origin["dir_info"].get("editable") is True
    if version_control := origin.get("vcs_info"):
        url = f"{version_control['vcs']}+{url}@{version_control['commit_id']}"
    return f"{_NAME}[{extra}]{f' @ {url}' if url else ''}", False


def _pip() -> str:
    """Give the command for pip in the environment of this process, which need not be the active one."""
    python = "python" if shutil.which("python") == sys.executable else sys.executable
    return f"{python} -m pip install"
