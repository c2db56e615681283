"""The example programs of openai-python: each that DeepSeek has an API for runs with another constructor.

These tests are not collected with the rest, because they need the source distribution of openai.
`nox -s examples` fetches that of each supported version, and names its folder of examples in the variable EXAMPLES.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import openai
import pytest

from deepseek_gateway.emulator import Emulator

FOLDER = Path(os.environ["EXAMPLES"])
FOUND = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.py"))

# The columns are: the program, the arguments of the new constructor, and a pattern that its output matches.
RUNS: dict[str, tuple[str, str]] = {
    "async_demo.py": ("", r"You asked: Say this is a test\n$"),
    "demo.py": ("", r"(?s)standard request -.*Say this is a test.*streaming request -.*custom response headers test -"),
    "httpx2_client.py": ("", r"You asked: Say this is a test\n$"),
    "parsing.py": ("", r"answer:  \w+\n$"),
    "parsing_stream.py": ("", r"(?s)answer: \w+\n.*parsed=MathResponse\("),
    "parsing_tools.py": ("", r"Table\.orders\n$"),
    "parsing_tools_stream.py": ("", r"(?s)tool_calls\.function\.arguments\.done.*parsed_arguments=GetWeather\("),
    "streaming.py": ("", r'(?s)got response data.*"finish_reason": "stop".*got response data.*"finish_reason": "stop"'),
    "responses/streaming.py": ("", r"(?s)response\.output_text\.done.*parsed=MathResponse\("),
    "responses/streaming_tools.py": ("", r"(?s)response\.function_call_arguments\.done.*response\.completed"),
    # These two expect the answer in the first item of the output, where DeepSeek's thoughts are.
    "responses/structured_outputs.py": ("thinking=False", r"(?s)MathResponse\(.*answer:  \w+\n$"),
    "responses/structured_outputs_tools.py": ("thinking=False", r"table name: Table\.orders\n$"),
    "x509_workload_identity.py": ("", r"You asked: Hello!\n$"),
    "x509_workload_identity_async.py": ("", r"You asked: Hello!\n$"),
}

DO_NOT_RUN: dict[str, str] = {
    "assistant*.py": "DeepSeek has no assistants",
    "audio.py": "DeepSeek has no audio",
    "speech_to_text.py": "DeepSeek has no audio",
    "text_to_speech.py": "DeepSeek has no audio",
    "image_stream.py": "DeepSeek has no image generation",
    "picture.py": "DeepSeek has no image generation",
    "video.py": "DeepSeek has no video",
    "uploads.py": "DeepSeek has no uploads in parts",
    "responses/background*.py": "DeepSeek stores no responses, so none can be read again",
    "responses/multi_agent_streaming.py": "DeepSeek has no multi-agent responses",
    "responses_input_tokens.py": "DeepSeek does not count the tokens of a prompt",
    "realtime/*": "DeepSeek has no WebSocket",
    "live/audio_transcript.py": "DeepSeek has no WebSocket",
    "*websocket.py": "DeepSeek has no WebSocket",
    "azure*.py": "the program is for Azure",
    "bedrock*.py": "the program is for Amazon Bedrock",
    "mtls_*.py": "the program is for OpenAI's host for client certificates",
    "browser*/*": "the program needs a browser, and a model that finds its way in it",
    "computer-desktop/*": "the program needs a virtual machine, and a model that finds its way in it",
    "module_client.py": "the program makes no client, it uses the one of the module",
    "live/transcript_grouper.py": "the program makes no call",
    "responses/__init__.py": "the file is empty",
}
"""Pattern of paths -> the reason."""


def with_our_constructor(program: str, arguments: str) -> str:
    """Replace `OpenAI()` and `AsyncOpenAI()`, with or without a default HTTP client, and add one import."""
    constructor = re.compile(r"\b(?:openai\.)?(Async)?OpenAI\((?:http_client=Default\w+\(\))?\)")
    program, count = constructor.subn(
        lambda found: f"deepseek_gateway.create_{'async_' if found[1] else ''}client({arguments})", program
    )
    assert count, "the program makes no client"
    return re.sub(r"(?m)^(?=(?:from|import) (?!__future__))", "import deepseek_gateway\n", program, count=1)


@pytest.mark.parametrize("name", [name for name in RUNS if name in FOUND])
def test_example_runs_when_only_its_constructor_is_changed(name: str, tmp_path: Path) -> None:
    arguments, expected = RUNS[name]
    original = (FOLDER / name).read_text("utf-8")
    if "client.completions." in original:
        pytest.skip("the program of this old release uses completions, which DeepSeek has under /beta only")
    if name.startswith("responses/streaming") and openai.__version__.startswith("1."):
        pytest.skip("with any client, openai 1 fails at thoughts and at effort `none` in a stream of responses")
    program = tmp_path / "program.py"
    program.write_text(with_our_constructor(original, arguments), "utf-8")
    with Emulator() as emulator:
        environment = os.environ | emulator.environ | {"DEEPSEEK_MODEL": "deepseek-flash"}
        done = subprocess.run(
            [sys.executable, program], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        sent = [request.upstream for request in emulator.requests]
    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout), done.stdout
    assert {request.json["model"] for request in sent if request} == {"deepseek-flash"}
    assert None not in sent
    assert "Traceback" not in done.stderr


def test_every_example_is_in_exactly_one_of_the_two_tables() -> None:
    listed = {name: (name in RUNS, any(fnmatch(name, pattern) for pattern in DO_NOT_RUN)) for name in FOUND}
    assert len(listed) > 15
    assert [name for name, tables in listed.items() if sum(tables) != 1] == [], "run a new example, or say why not"
