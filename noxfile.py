"""The checks and the matrix: `nox` runs them all, `nox -s lint` one of them."""

import subprocess

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "tests"]

SUPPORTED = ["3.11", "3.12", "3.13"]
OPENAI = {"floor": "==1.66.0", "last 2": ">=2,<3", "3.0": "==3.0.0", "newest": ">=3,<4"}


def runs(python: str) -> bool:
    """Whether a Python is there and works: a version manager's stand-in for one that is not installed does not."""
    try:
        return subprocess.run([f"python{python}", "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-q", "ruff>=0.15,<0.18")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    session.install("-q", "-e", ".[test]", "mypy>=2.4,<3", "pyright>=1.1.414,<1.2", "types-PyYAML")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=[python for python in SUPPORTED if runs(python)])
@nox.parametrize("openai", [nox.param(version, id=name) for name, version in OPENAI.items()])
def tests(session: nox.Session, openai: str) -> None:
    # The tests of the emulator's page do not depend on openai; one version is enough for them.
    extras = "test,browser" if openai == OPENAI["newest"] else "test"
    session.install("-q", "-e", f".[{extras}]", "pytest-xdist", f"openai{openai}")
    session.run("pytest", "-q", "-n2", *session.posargs)
