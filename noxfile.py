"""The checks and the test matrix: `nox` runs them all, `nox -s lint` runs one."""

import re
import shutil
import subprocess
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "types", "docs", "package", "tests"]

PROJECT = nox.project.load_toml("pyproject.toml")
OPENAI = {"floor": "==1.66.0", "last 2": ">=2,<3", "3.0": "==3.0.0", "newest": ">=3,<4"}


def group(*names: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PROJECT, *names)


def runs(python: str) -> bool:
    """Return whether this Python is installed. A version manager has shims even for versions that are missing."""
    try:
        return subprocess.run([f"python{python}", "-V"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split()


# A browser loads these files by itself. Links to other sites are fine.
LOADED = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(?:https?:)?//|@import|url\(["']?(?:https?:)?//"""
)


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-q", *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("codespell", *tracked())


@nox.session
def types(session: nox.Session) -> None:
    session.install("-q", "-e", ".[test]", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "deepseek_gateway", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documents in `build/docs`, and check that their pages load nothing from elsewhere."""
    session.install("-q", "-e", ".[emulator,testing]", *group("docs"))
    built = Path("build/docs")
    shutil.rmtree(built, ignore_errors=True)
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-d", session.create_tmp(), "docs", str(built))
    for file in (*built.rglob("*.html"), *built.rglob("*.css")):
        if found := LOADED.search(file.read_text("utf-8")):
            session.error(f"{file} loads a file from elsewhere: {found.group()}")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and sdist, check their contents, and run the tests against the installed wheel.

    This is also the test of the newest openai on the oldest Python, which runs nox in `.ci/run`.
    """
    session.install("-q", *PROJECT["build-system"]["requires"], *group("package"))
    built = Path(session.create_tmp()).resolve()
    shutil.rmtree(built)
    session.run("python", "-m", "build", "-q", "--no-isolation", "--outdir", str(built), silent=True)
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist), silent=True)
    expected = {name for name in tracked() if name.startswith("deepseek_gateway/")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    if packed != expected:
        session.error(f"the wheel differs from the tracked package in {sorted(packed ^ expected)}")
    expected = {name for name in tracked() if not name.startswith((".ci/", ".github/", ".pre-commit"))}
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    if packed != expected:
        session.error(f"the sdist differs from the tracked files outside CI in {sorted(packed ^ expected)}")
    # Remove the package from the unpacked sdist, so that the tests import the installed wheel.
    with tarfile.open(sdist) as archive:
        archive.extractall(built, filter="data")
    (unpacked,) = (path for path in built.iterdir() if path.is_dir())
    shutil.rmtree(unpacked / "deepseek_gateway")
    session.install("-q", f"{wheel}[test]", *group("benchmarks", "browser", "tracing"))
    session.chdir(unpacked)
    session.run("pytest", "-q", env={"PYTHONPATH": "."})


def matrix() -> list[nox.param]:
    """Test the old versions of openai on the oldest Python, and the newest version on the newest Python.

    `package` tests the newest version on the oldest Python. On a Python between them, the client core is tested with
    logging at INFO. The other cells do not log, so they test the path of a call that nobody observes.
    """
    installed = [python for python in nox.project.python_versions(PROJECT) if runs(python)]
    oldest, newest, between = installed[0], installed[-1], installed[len(installed) // 2]
    cells = [(oldest, name, None) for name in OPENAI if name != "newest"]
    cells += [(newest, "newest", None), (between, "newest", "INFO")]
    return [
        nox.param(python, OPENAI[name], level, id=", ".join(filter(None, (python, name, level))))
        for python, name, level in cells
    ]


@nox.session
@nox.parametrize(("python", "openai", "log_level"), matrix())
def tests(session: nox.Session, openai: str, log_level: str | None) -> None:
    # The emulator, the examples and the documents do not depend on openai. They are tested with the newest only.
    newest = openai == OPENAI["newest"]
    groups = ["benchmarks", "browser", "examples"] if newest else []
    session.install("-q", "-e", ".[test]", *group("tracing", *groups), f"openai{openai}")
    selected = [] if newest else ["tests/core", "tests/cli", "tests/testing"]
    if log_level:
        selected = ["-o", f"log_level={log_level}", "tests/core", "--deselect=tests/core/test_chaos.py"]
    session.run("pytest", "-q", *selected, *session.posargs)


def libraries() -> list[nox.param]:
    """Read the table of libraries: the packages of each row with their versions, and openai's."""
    page = Path("docs/integrations.md").read_text("utf-8")
    rows = re.findall(r"(?m)^\| ([\w\[\]-]+ [\d.]+(?:, [\w\[\]-]+ [\d.]+)*) \| ([\d.]+) \| `", page)
    return [nox.param(f"{packages}, openai {openai}", id=packages.split()[0]) for packages, openai in rows]


@nox.session
@nox.parametrize("packages", libraries())
def integrations(session: nox.Session, packages: str) -> None:
    """Test the table of libraries, each in its own environment, because they need different versions of openai."""
    session.install("-q", "-e", ".[test]", *(each.replace(" ", "==") for each in packages.split(", ")))
    library = packages.split(maxsplit=1)[0]
    # Two processes, because some libraries read variables when they are imported.
    for selected in (f"({library} or catches) and trap", f"{library} and not trap"):
        # Warnings are ignored: these libraries emit their own and leave event loops open.
        session.run("pytest", "-q", "-n0", "-W", "ignore", "tests/integrations/libraries.py", "-k", selected)


@nox.session
def ray(session: nox.Session) -> None:
    """Test the batch on Ray, which takes minutes, and is large to install."""
    session.install("-q", "-e", ".[test]", *group("ray"))
    session.run("pytest", "-q", "-n0", "tests/examples/test_batch_ray.py")


# Tracing library -> its version, and the packages that it needs besides. openai-v2 needs httpx but does not declare it,
# and it imports a module that later versions of opentelemetry-util-genai lack.
TRACERS = {
    "opentelemetry-instrumentation-openai-v2": ["2.4b0", "opentelemetry-util-genai==0.4b0", "httpx"],
    "opentelemetry-instrumentation-genai-openai": ["1.3b0"],
    "openinference-instrumentation-openai": ["0.1.66"],
    "logfire": ["5.4.0"],
    "langfuse": ["5.0.4"],
    "opentelemetry-instrumentation-httpx": ["0.66b2"],
}


@nox.session
@nox.parametrize("library", [nox.param(library, id=library) for library in TRACERS])
def tracing(session: nox.Session, library: str) -> None:
    """Test each tracing library in its own environment, with nothing sent but to loopback."""
    version, *more = TRACERS[library]
    session.install("-q", "-e", ".[test]", *group("tracing"), f"{library}=={version}", *more, "openai==3.57.0")
    session.run("pytest", "-q", "-n0", "-W", "ignore", "tests/integrations/tracing.py", "-k", library)


# Tool -> the fixture that it offers, and the versions of openai that use the HTTP library it mocks.
MOCKS = {
    "pytest-httpx": ("httpx_mock", ["floor", "last 2"]),
    "respx": ("respx_mock", ["floor", "last 2"]),
    "pytest-httpx2": ("httpx2_mock", ["3.0", "newest"]),
}


@nox.session
@nox.parametrize(
    ("tool", "openai"),
    [nox.param(tool, OPENAI[name], id=f"{tool}, {name}") for tool, (_, names) in MOCKS.items() for name in names],
)
def mocking(session: nox.Session, tool: str, openai: str) -> None:
    """Test each tool that mocks the HTTP library, with the versions of openai that it works with."""
    session.install("-q", "-e", ".[test]", tool, f"openai{openai}")
    fixture, _ = MOCKS[tool]
    session.run("pytest", "-q", "-n0", "tests/testing/mocking.py", "-k", fixture)


@nox.session
@nox.parametrize("openai", [nox.param(version, id=name) for name, version in OPENAI.items()])
def examples(session: nox.Session, openai: str) -> None:
    """Run the examples of openai-python, which are only in its source distribution, with another constructor."""
    session.install("-q", "-e", ".[test]", f"openai{openai}")
    version = str(session.run("python", "-c", "import openai; print(openai.__version__)", silent=True)).strip()
    folder = Path(session.create_tmp()).resolve()
    source = f"openai=={version}"
    session.run("python", "-m", "pip", "download", "-q", "--no-deps", "--no-binary=openai", f"--dest={folder}", source)
    with tarfile.open(folder / f"openai-{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    session.run("pytest", "-q", "tests/openai_examples.py", env={"EXAMPLES": f"{folder}/openai-{version}/examples"})


# mutmut keeps the caller of each function in a context variable, and fails when a generator is closed in another
# context. The callers would only save time in a second run, and this session always begins anew.
MUTMUT = """
from mutmut.core import MutmutCallStack
MutmutCallStack.set = MutmutCallStack.reset = lambda *_: None
from mutmut.__main__ import cli
cli()
"""


@nox.session
def mutants(session: nox.Session) -> None:
    """Change one thing at a time in a copy of the client core, and show the changes that no test in tests/core notices.

    The arguments are modules: `nox -s mutants -- _response _stream`. Without arguments, all of them take hours.
    """
    session.install("-q", "-e", ".[test]", *group("mutants", "tracing"))
    copy = Path(session.create_tmp()).resolve() / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    for name in tracked():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, copy / name)
    (copy / "mutants").mkdir()  # mutmut fills it; Python ignores an entry of PYTHONPATH that does not exist
    session.chdir(copy)
    mutmut = partial(session.run, "python", "-c", MUTMUT, env={"PYTHONPATH": f"{copy}/mutants"})
    mutmut("run", *(f"deepseek_gateway.{module}.*" for module in session.posargs))
    left = re.findall(r"(\S+): (?:survived|no tests|timeout|suspicious)", str(mutmut("results", silent=True)))
    for name in left:
        mutmut("show", name)
    session.log(f"{len(left)} mutants are left. CONTRIBUTING.md lists those that no test can kill")


# shell-gpt imports click without asking for it. open-interpreter needs pkg_resources, which new setuptools lack.
UNDECLARED = {"shell-gpt": ["click"], "open-interpreter": ["setuptools<81"]}


@nox.session(python=nox.project.python_versions(PROJECT)[0])  # aider needs a Python before 3.13
@nox.parametrize(
    ("program", "registry"),
    re.findall(r"(?m)^\| ([\w-]+ [\d.]+) \| (PyPI|npm) \|", Path("docs/command-line.md").read_text("utf-8")),
)
def programs(session: nox.Session, program: str, registry: str) -> None:
    """Test the table of programs, each in an environment of its own, which is removed afterwards."""
    name, version = program.split()
    session.install("-q", "-e", ".[test]")
    folder = Path(session.create_tmp()).resolve() / registry
    shutil.rmtree(folder, ignore_errors=True)
    if registry == "npm":
        session.run("npm", "install", "--silent", "--prefix", str(folder), f"{name}@{version}", external=True)
        path = folder / "node_modules" / ".bin"
    else:
        session.run("python", "-m", "venv", str(folder))
        path = folder / "bin"
        distributions = [f"{name}=={version}", *UNDECLARED.get(name, [])]
        session.run(str(path / "python"), "-m", "pip", "install", "-q", *distributions, external=True)
    test = f"tests/programs.py::test_program_asks_through_run_with_a_stored_key[{registry}-{name}]"
    environment = {"PROGRAM_PATH": str(path), "NODE_PATH": str(folder / "node_modules")}
    try:
        session.run("pytest", "-q", "-n0", test, env=environment)
    finally:
        shutil.rmtree(folder)
