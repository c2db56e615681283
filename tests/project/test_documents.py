"""README and the documents are true: snippets and commands run, links resolve, and no public name is missing."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from documents import DOCUMENTS, PAGES, README, ROOT, blocks, file_name, prose

from deepseek_gateway.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCKS = [(name, *block) for name, text in DOCUMENTS.items() for block in blocks(text)]
PYTHON = [(name, code) for name, language, code in BLOCKS if language == "python"]
SNIPPETS = [(name, code) for name, code in PYTHON if not file_name(code)]
FILES = {
    document: {file: code for name, code in PYTHON if name == document and (file := file_name(code))}
    for document in DOCUMENTS
}
COMMANDS = [(name, line) for name, language, text in BLOCKS if language == "shell" for line in text.splitlines()]


def named(blocks: list[tuple[str, str]]) -> list[object]:
    """Name the parameters of a test by document and number."""
    return [pytest.param(name, text, id=f"{name}-{number}") for number, (name, text) in enumerate(blocks)]


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run what stands for the live service, with its settings in the environment."""
    with Emulator() as running:
        for variable, value in running.environ.items():
            monkeypatch.setenv(variable, value)
        yield running


@pytest.mark.usefixtures("emulator")
@pytest.mark.parametrize(("document", "code"), named(SNIPPETS))
def test_snippet_runs_unchanged_and_prints_its_comments(
    document: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in re.findall(r"(?m)^from (opentelemetry[\w.]*) import", code):
        pytest.importorskip(module, reason="OpenTelemetry is not installed: see the dependency group `tracing`")
    logger = logging.getLogger("deepseek_gateway")
    level = logger.level
    try:
        exec(compile(code, f"snippet of {document}", "exec"), {"__name__": "__main__"})
    finally:
        logger.setLevel(level)
    printed = capsys.readouterr().out
    for comments in re.findall(r"print\(.*\)(?:  |\n *)(# .+(?:\n *# .+)*)", code):
        for said in re.findall(r"# (.+)", comments):
            assert said in printed
    assert bool(printed.strip()) == ("print(" in code)


@pytest.mark.parametrize("document", [name for name, files in FILES.items() if files])
def test_files_of_a_document_pass_as_tests(
    document: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in FILES[document].items():
        (pytester.path / name).write_text(code)
    count = len(re.findall(r"(?m)^def test_", "".join(FILES[document].values())))
    with Emulator() as live, monkeypatch.context() as environment:
        for variable, value in live.environ.items():
            environment.setenv(variable, value)
        for options in [line.split()[1:] for name, line in COMMANDS if name == document and line.startswith("pytest ")]:
            pytester.runpytest_subprocess("-W", "error", *options).assert_outcomes(passed=count)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=count)


PROGRAM = """
import openai
messages = [{"role": "user", "content": "Hi"}]
print(openai.OpenAI().chat.completions.create(model="deepseek-flash", messages=messages).choices[0].message.content)
"""


@pytest.mark.skipif(shutil.which("bash") is None or shutil.which("git") is None, reason="needs bash and git")
@pytest.mark.parametrize(("document", "command"), named([each for each in COMMANDS if "deepseek-gateway" in each[1]]))
def test_command_runs_unchanged(document: str, command: str, tmp_path: Path, emulator: Emulator) -> None:
    (tmp_path / "my_program.py").write_text(PROGRAM)
    subprocess.run("git init -q . && echo a > a && git add a && echo b > a", shell=True, check=True, cwd=tmp_path)
    for name, arguments in {"deepseek-gateway": " -m deepseek_gateway", "python": ""}.items():
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        shim.chmod(0o755)
    serves = command.split()[1] in {"emulator", "serve"}
    if serves:
        command = f"exec {command} --port 0"
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    printed = ""
    if serves:
        assert process.stdout
        printed = process.stdout.readline()  # the server is running now
        process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    printed += rest
    assert (process.returncode, bool(printed)) == (0, True), errors
    assert "Traceback" not in errors


@pytest.mark.skipif(shutil.which("curl") is None or shutil.which("bash") is None, reason="needs curl and bash")
@pytest.mark.parametrize(("document", "command"), named([each for each in COMMANDS if each[1].startswith("curl ")]))
def test_request_with_curl_controls_the_emulator(document: str, command: str, emulator: Emulator) -> None:
    there = command.replace("http://127.0.0.1:8787", emulator.url)  # other tests may use the default port
    assert there != command
    done = subprocess.run(["bash", "-c", f"{there} --silent"], capture_output=True, text=True, check=False)
    assert '"pending"' in done.stdout, done.stderr


def test_every_block_of_a_document_is_executed_or_a_directive() -> None:
    languages = {language for _, language, _ in BLOCKS}
    assert languages == {"python", "shell", "text", "{include}", "{toctree}", "{eval-rst}"}
    assert [name for name, language, _ in BLOCKS if language == "text"] == ["how-it-works"]  # a diagram
    tested = re.compile(r"(git diff \| )?deepseek-gateway |curl |pytest --record-mode=rewrite$")
    assert [command for _, command in COMMANDS if not tested.match(command)] == []
    assert [name for name, text in PAGES.items() if re.search(r"\n\n {4}\S", prose(text))] == []


def test_no_snippet_and_no_command_stands_twice() -> None:
    texts = [code for _, code in PYTHON] + [command for _, command in COMMANDS]
    assert sorted(set(texts)) == sorted(texts)


def test_every_command_has_an_example() -> None:
    commands = {match for _, line in COMMANDS for match in re.findall(r"deepseek-gateway (\w+)", line)}
    assert commands == {"ask", "doctor", "emulator", "run", "serve"}  # `demo` is one of the set-up commands


def test_command_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "deepseek_gateway", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo" in done.stdout


class TestReadme:
    def test_introduction_has_the_two_set_up_commands(self) -> None:
        assert re.findall(r"(?m)^    (.*)$", prose(README)) == [
            "python3 -m venv .venv && .venv/bin/pip install -q -e '.[all]' && .venv/bin/deepseek-gateway demo",
            "python3 -m venv .venv && .venv/bin/pip install -q -e '.[test]' && .venv/bin/pytest",
        ], ".ci/run runs these two commands"

    def test_readme_has_at_most_150_lines(self) -> None:
        assert len(README.splitlines()) <= 150

    def test_readme_links_to_every_guide(self) -> None:
        guides = PAGES.keys() - {"index", "changelog", "reference"}
        assert {name for name in guides if f"](docs/{name}.md" not in README} == set()


class TestLinks:
    TEXTS = {
        path: path.read_text("utf-8")
        for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[!.]*/README.md"))
    }

    @staticmethod
    def anchors(text: str) -> set[str]:
        """Give the anchors that GitHub and MyST make of the headings."""
        headings = re.findall(r"(?m)^#+ (.+)$", prose(text))
        return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

    @pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
    def test_links_and_anchors_resolve(self, path: Path) -> None:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", self.TEXTS[path]):
            file, _, anchor = target.partition("#")
            found = (path.parent / file).resolve() if file else path
            assert found.exists(), target
            assert not anchor or anchor in self.anchors(found.read_text("utf-8")), target

    def test_every_page_is_in_the_table_of_contents(self) -> None:
        listed = {line for name, language, text in BLOCKS if language == "{toctree}" for line in text.splitlines()}
        assert PAGES.keys() - listed == {"index"}


@pytest.mark.parametrize("module", ["deepseek_gateway", "deepseek_gateway.testing", "deepseek_gateway.emulator"])
def test_reference_has_every_public_name(module: str) -> None:
    described = PAGES["reference"].partition(f".. module:: {module}\n")[2].partition(".. module::")[0]
    names = re.findall(r"\.\. auto\w+:: (\w+)", described)
    assert sorted(names) == sorted(importlib.import_module(module).__all__)
