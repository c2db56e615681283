"""The command line as a whole: help, usage errors, versions, missing extras and the options of every command."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import openai
import pytest
from commands import call, run

from deepseek_gateway.cli.installation import extra_command

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("missing", "arguments", "extra"),
    [
        ("typer", [], "cli"),
        ("uvicorn", ["demo"], "emulator"),
        ("uvicorn", ["run", "--endpoint", "http://127.0.0.1:9", "--", "true"], "cli"),
        ("starlette", ["ask", "--emulator", "Why?"], "emulator"),
    ],
)
def test_command_without_its_extra_names_the_command_that_installs_it(
    missing: str, arguments: list[str], extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "key")
    code = f"import sys; sys.modules[{missing!r}] = None; from deepseek_gateway.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        f"This command needs the extra `{extra}`: {extra_command(extra)}\n",
    )


PIP, FROM_PYPI = f"{sys.executable} -m pip install", "deepseek-gateway[cli]"
GIT = {"url": "https://example.com/it.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}
WHEEL = {"url": "https://example.com/it.whl", "archive_info": {}}


def checkout(*, editable: bool) -> dict[str, Any]:
    return {"url": "file:///src/my%20checkout", "dir_info": {"editable": editable}}


@pytest.mark.parametrize(
    ("installer", "origin", "beside", "command"),
    [
        ("pip", {}, "", f'{PIP} "{FROM_PYPI}"'),
        (None, {}, "", f'{PIP} "{FROM_PYPI}"'),
        ("conda", {}, "", f'{PIP} "{FROM_PYPI}"'),
        ("pip", checkout(editable=True), "", f'{PIP} --editable "/src/my checkout[cli]"'),
        ("pip", checkout(editable=False), "", f'{PIP} "/src/my checkout[cli]"'),
        ("pip", GIT, "", f'{PIP} "{FROM_PYPI} @ git+https://example.com/it.git@abc"'),
        ("pip", WHEEL, "", f'{PIP} "{FROM_PYPI} @ https://example.com/it.whl"'),
        ("pip", {}, "env/pipx_metadata.json", f'pipx install --force "{FROM_PYPI}"'),
        ("pip", WHEEL, "env/pipx_metadata.json", f'pipx install --force "{FROM_PYPI} @ https://example.com/it.whl"'),
        ("uv", {}, "env/uv-receipt.toml", f'uv tool install --force "{FROM_PYPI}"'),
        ("uv", {}, "uv.lock", f'uv add "{FROM_PYPI}"'),
        ("uv", {}, "", f'uv pip install "{FROM_PYPI}"'),
        ("poetry 2.2.1", {}, "", f'poetry add "{FROM_PYPI}"'),
        ("pdm", {}, "", f'pdm add "{FROM_PYPI}"'),
    ],
)  # fmt: skip
def test_extra_is_installed_as_the_package_was(
    installer: str | None, origin: Any, beside: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found := tmp_path / "site" / "deepseek_gateway-1.0.dist-info").mkdir(parents=True)
    (found / "METADATA").write_text("Name: deepseek-gateway\nVersion: 1.0\n")
    if installer:
        (found / "INSTALLER").write_text(f"{installer}\n")
    if origin:
        (found / "direct_url.json").write_text(json.dumps(origin))
    (tmp_path / "env").mkdir()
    if beside:
        (tmp_path / beside).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setenv("PATH", "")
    assert extra_command("cli") == command


def test_extra_of_a_copy_of_the_source_is_named_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    assert extra_command("cli").endswith(' -m pip install "deepseek-gateway[cli]"')


def test_python_is_named_in_short_if_its_environment_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "executable", shutil.which("python"))
    assert extra_command("cli") == 'python -m pip install "deepseek-gateway[cli]"'


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["ask", "--help"], 0),
        (["demo", "--help"], 0),
        (["serve", "-h"], 0),
        (["run", "--help"], 0),
        (["no-such-command"], 2),
    ],
)
def test_help_fits_80_columns_and_unknown_command_exits_with_status_2(
    arguments: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    got, out, err = call(*arguments)
    assert got == status
    assert all(len(line) <= 80 for line in (out + err).splitlines())
    assert "..." not in re.sub(r"\[ARGS\]\.\.\.|\{?PROGRAM\}?\.\.\.|log_id \.\.\.", "", out), "a sentence was cut off"


def test_version_names_openai_and_python() -> None:
    status, out, _ = call("--version")
    assert status == 0
    assert re.fullmatch(rf"deepseek-gateway .+, openai {openai.__version__}, Python 3\.\d+\.\d+\n", out)


@pytest.mark.parametrize("command", [[], ["ask"], ["serve"], ["run"], ["doctor"], ["demo"], ["emulator"]])
def test_help_names_the_exit_statuses(command: list[str]) -> None:
    short, full = call(*command, "-h"), call(*command, "--help")
    assert short == full
    assert re.search(r"(?i)exit\s+status", short[1])


def test_help_option_of_a_program_is_left_to_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDFLARE_ACCOUNT_ID", "acct")
    monkeypatch.setenv("DEEPSEEK_API_KEY", "key")
    status, out, _ = run("run", sys.executable, "-h")
    assert status == 0
    assert out.startswith("usage: ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "completed", "other"),
    [("deepseek-gateway doc", "doctor", "demo"), ("deepseek-gateway ask --route p", "provider", "compat")],
)
def test_shell_completes_commands_and_routes(shell: str, typed: str, completed: str, other: str) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_TYPER_COMPLETE_ARGS": typed}
    words |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_DEEPSEEK_GATEWAY_COMPLETE": f"complete_{shell}"}
    _, out, _ = run(env=os.environ | words)
    assert completed in out
    assert other not in out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_install_completion_makes_bash_complete(tmp_path: Path) -> None:
    environ = os.environ | {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    status, _, err = run("--install-completion", "bash", env=environ)
    assert (status, err) == (0, "")
    assert "deepseek-gateway.sh" in (tmp_path / ".bashrc").read_text()
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_DEEPSEEK_GATEWAY_COMPLETE=complete_bash" in script.read_text()


@pytest.mark.parametrize("command", ["ask", "serve", "run", "demo"])
def test_every_command_has_the_options_for_settings(command: str) -> None:
    help_text = call(command, "--help")[1]
    assert all(option in help_text for option in ("--route", "--env-file", "--endpoint", "--debug"))
