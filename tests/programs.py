"""Each program of the documents asks a question through `deepseek-gateway run`, with a key stored at Cloudflare.

These tests are not collected with the rest, because each program needs an environment of its own. `nox -s programs`
makes the environments, and says in PROGRAM_PATH where a program is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from documents import PAGES

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = {
    (registry, name): command
    for name, registry, command in re.findall(
        r"(?m)^\| ([\w-]+) [\d.]+ \| (PyPI|npm) \| `(.+)` \|$", PAGES["command-line"]
    )
}
"""Registry and distribution name -> the command in the documents."""

FILES = {
    "my_program.py": """
import openai
messages = [{"role": "user", "content": "What is Cloudflare?"}]
print(openai.OpenAI().chat.completions.create(model="deepseek-flash", messages=messages).choices[0].message.content)
""",
    "my_program.js": """
const OpenAI = require("openai");
const messages = [{ role: "user", content: "What is Cloudflare?" }];
new OpenAI().chat.completions.create({ model: "deepseek-flash", messages }).then((answer) => {
  console.log(answer.choices[0].message.content);
});
""",
    "promptfooconfig.yaml": """
providers: ["openai:chat:deepseek-flash"]
prompts: ["What is {{topic}}?"]
tests: [{vars: {topic: Cloudflare}, assert: [{type: contains, value: emulator}]}]
""",
}
QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "AIDER_ANALYTICS_DISABLE": "true",
    "AIDER_CHECK_UPDATE": "false",
    "ANONYMIZED_TELEMETRY": "false",
}


@pytest.mark.parametrize(("registry", "name"), WRITTEN)
def test_program_asks_through_run_with_a_stored_key(registry: str, name: str, tmp_path: Path) -> None:
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    shim = tmp_path / "bin" / "deepseek-gateway"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m deepseek_gateway "$@"\n')
    shim.chmod(0o755)
    path = os.pathsep.join((str(shim.parent), os.environ["PROGRAM_PATH"], os.environ["PATH"]))
    with Emulator() as emulator:
        environment = (
            os.environ | emulator.environ | QUIET | {"PATH": path, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
        )
        del environment["DEEPSEEK_API_KEY"]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", WRITTEN[registry, name]],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        asked = [request for request in emulator.requests if request.method == "POST"]
    assert done.returncode == 0, done.stderr
    assert "canned answer" in done.stdout
    assert asked
    for request in asked:
        assert "authorization" not in request.headers
        assert request.upstream
        assert request.upstream.headers["authorization"] == f"Bearer {emulator.api_key}"
        assert request.upstream.json["model"] == "deepseek-flash"
