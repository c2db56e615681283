"""The checks and the matrix: `nox` runs them all, `nox -s lint` one of them."""

import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "package", "tests"]

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
    session.run("pyright", "--verifytypes", "deepseek_gateway", "--ignoreexternal")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, look at what is in them, and run the tests against the installed wheel."""
    session.install("-q", "build>=1.2,<2", "hatchling>=1.27,<2", "twine>=6,<7")
    made = Path(session.create_tmp()).resolve()
    shutil.rmtree(made)
    session.run("python", "-m", "build", "-q", "--no-isolation", "--outdir", str(made), silent=True)
    (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist), silent=True)
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in tracked if name.startswith("deepseek_gateway/")}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    if held != ours:
        session.error(f"the wheel should not differ from the package: {sorted(held ^ ours)}")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    if held != {name for name in tracked if not name.startswith((".ci/", ".github/", ".pre-commit"))}:
        session.error(f"the sdist should hold what is tracked, but for CI's files: {sorted(held ^ set(tracked))}")
    # What is beside the package, without the package: so it is the wheel that is tried.
    with tarfile.open(sdist) as archive:
        archive.extractall(made, filter="data")
    (beside,) = (path for path in made.iterdir() if path.is_dir())
    shutil.rmtree(beside / "deepseek_gateway")
    session.install("-q", f"{wheel}[test]", "pytest-xdist")
    session.chdir(beside)
    session.run("pytest", "-q", "-n2", env={"PYTHONPATH": "."})


def matrix() -> list[nox.param]:
    """Every openai on the oldest Python that is here, the two ends on the newest, the newest on those between."""
    there = [python for python in SUPPORTED if runs(python)]
    wanted = {python: {"newest"} for python in there}
    wanted[there[-1]] |= {"floor"}
    wanted[there[0]] |= OPENAI.keys()
    return [
        nox.param(python, version, id=f"{python}, {name}")
        for python in there
        for name, version in OPENAI.items()
        if name in wanted[python]
    ]


@nox.session
@nox.parametrize(("python", "openai"), matrix())
def tests(session: nox.Session, openai: str) -> None:
    # The tests of the emulator's page do not depend on openai; one version is enough for them.
    extras = "test,browser" if openai == OPENAI["newest"] else "test"
    session.install("-q", "-e", f".[{extras}]", "pytest-xdist", f"openai{openai}")
    session.run("pytest", "-q", "-n2", *session.posargs)


@nox.session
@nox.parametrize(
    "library", re.findall(r"(?m)^\| ([\w\[\]-]+ [\d.]+) \| `.+` \|$", Path("README.md").read_text("utf-8"))
)
def integrations(session: nox.Session, library: str) -> None:
    """README's table of other libraries; each has an environment, as they disagree about openai."""
    name, version = library.split()
    session.install("-q", "-e", ".[test]", f"{name}=={version}")
    # What they warn of, and leave open in event loops of their own, is not ours to mend.
    tried = f"tests/integrations.py::test_a_library_asks_through_the_gateway[{name}]"
    session.run("pytest", "-q", "-W", "ignore", tried)
