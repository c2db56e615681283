"""Virtual environments for libraries that cannot share this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CACHES = {"win32": "~/AppData/Local", "darwin": "~/Library/Caches"}
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or _CACHES.get(sys.platform, "~/.cache")) / "deepseek_gateway-benchmarks"


class NotInstalledError(Exception):
    """An environment could not be made. The message is the last line of the error output."""


def prepared(name: str, requirements: tuple[str, ...], folder: Path) -> str:
    """Make a virtual environment unless it exists already.

    Args:
        name: The name of its folder.
        requirements: The requirements that pip installs.
        folder: The folder of all environments.

    Returns:
        The path of its Python.

    Raises:
        NotInstalledError: `venv` or pip failed.
    """
    place = folder.expanduser() / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    python = str(place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    wanted, installed = "\n".join(requirements), place / "installed.txt"
    if installed.exists() and installed.read_text() == wanted:
        return python
    print(f"making an environment with {', '.join(requirements)}", file=sys.stderr)
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements]
    for command in ([sys.executable, "-m", "venv", "--clear", str(place)], install):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise NotInstalledError((run.stderr.strip() or "no reason given").splitlines()[-1])
    installed.write_text(wanted)
    return python
