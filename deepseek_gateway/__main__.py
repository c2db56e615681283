"""The command `deepseek-gateway`, also `python -m deepseek_gateway`."""

import sys


def main() -> None:
    """Run the command line, or say which extra is missing and exit with status 2."""
    try:
        from .cli.app import app  # noqa: PLC0415  # it needs the extra

        app(prog_name="deepseek-gateway")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if "pip install" in str(error):  # the emulator says so itself
            sys.stderr.write(f"{error}\n")
        elif missing in {"typer", "rich", "click", "uvicorn", "h11"}:
            sys.stderr.write("The command line is an extra of its own: pip install 'deepseek-gateway[cli]'\n")
        else:
            raise
        sys.exit(2)
    except KeyboardInterrupt:  # before a command could begin
        sys.exit(130)


if __name__ == "__main__":
    main()
