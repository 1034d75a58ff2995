"""What all commands share: the settings, and how they fail (one line, an exit code). Light: imported at start."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import typer

from models.errors import InkmotionError, must


def explain(error: BaseException) -> str | None:
    """The one line for an error that the user can mend; None for a fault of ours."""
    if isinstance(error, InkmotionError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return must("The disk", "have room", f"'{error.strerror}' at {error.filename}", "Free some: inkmotion clean")
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return must(str(error.filename), "be writable and readable", str(error.strerror), "Check the permissions")
    wrong_place = (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
    if isinstance(error, OSError) and error.errno in wrong_place and error.filename is not None:
        return must(str(error.filename), "be a path that can be used so", str(error.strerror), "Name another")
    return None


class Commands(typer.core.TyperGroup):
    """Turns errors into one line and an exit code: 1 for what went wrong, 2 for usage, 130 for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Stopped. Run the same command again to go on where it was.", err=True)
            raise typer.Exit(130) from None
        except (InkmotionError, OSError) as error:
            line = explain(error)
            if line is None or ctx.params.get("debug"):
                raise
            typer.echo(f"Error: {line}", err=True)
            raise typer.Exit(1) from None


def show(report: Any) -> None:
    """Print a report's plain values, a line each."""
    from pipelines.stage import as_json

    for key, value in as_json(report).items():
        if not isinstance(value, dict | list):
            typer.echo(f"{key}: {value}")


def settings() -> tuple[Any, Any]:
    """The checked params and the project's paths."""
    from pipelines.params import load
    from pipelines.stage import Paths

    params = load(Paths().root / "params.yaml")
    return params, Paths(apart=params.report_folders())


def store() -> tuple[Any, Any]:
    """Params and paths where there are any: model versions can be used outside of a project, too."""
    from pipelines.stage import Paths

    return settings() if Path("params.yaml").is_file() else (None, Paths())
