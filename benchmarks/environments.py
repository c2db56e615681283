"""Where a library is measured: this interpreter, or a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CACHES = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or _CACHES.get(sys.platform, "~/.cache")) / "deepseek_gateway-benchmarks"


class NotInstalledError(Exception):
    """pip could not make the environment; the message is its last word."""


def prepared(name: str, requirements: tuple[str, ...], folder: Path) -> str:
    """Make a virtual environment unless it is there, and give its interpreter.

    Args:
        name: What it is for.
        requirements: What pip is to install.
        folder: Where all of them are.

    Returns:
        The path of its Python.

    Raises:
        NotInstalledError: pip failed.
    """
    place = folder.expanduser() / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = str(place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    wanted, done = "\n".join(requirements), place / "installed.txt"
    if done.exists() and done.read_text() == wanted:
        return python
    print(f"making an environment with {', '.join(requirements)}", file=sys.stderr)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", str(place)], install):
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise NotInstalledError((made.stderr.strip() or "no reason given").splitlines()[-1])
    done.write_text(wanted)
    return python
