"""The command `deepseek-gateway`, also `python -m deepseek_gateway`."""

import sys


def main() -> None:
    """Run the command line, or say which extra is missing and exit with status 2."""
    try:
        from ._cli import app  # noqa: PLC0415  # it needs the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich", "click"}:
            raise
        sys.stderr.write("The command line is an extra of its own: pip install 'deepseek-gateway[cli]'\n")
        sys.exit(2)
    app(prog_name="deepseek-gateway")


if __name__ == "__main__":
    main()
