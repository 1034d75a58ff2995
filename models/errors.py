"""The error classes that everyone raises, and the one form of their messages.

Every message reads ``<where> must <rule>; got <value>. <what to do>.`` All classes take plain arguments and survive
pickling, because they cross process borders on Ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


def must(where: str, rule: str, got: object, fix: str = "") -> str:
    """Compose the project's error sentence.

    Args:
        where: the parameter, file or part that is wrong.
        rule: what holds, after the word "must".
        got: the offending value; shown by ``repr`` unless it is a string. Of a sentence, the full stop is left out.
        fix: what the reader can do, a sentence without its full stop.
    """
    value = got if isinstance(got, str) else repr(got)
    if " " in value and not value.endswith(".."):
        value = value.removesuffix(".")
    tail = f" {fix.rstrip('.')}." if fix else ""
    return f"{where} must {rule}; got {value}.{tail}"


class InkmotionError(Exception):
    """Anything that the user can mend; the command line prints it as one line and exits 1."""


class SourceError(InkmotionError):
    """Media that can't be fetched, opened or decoded."""


class ClipError(InkmotionError):
    """A clip, manifest, shard or index that breaks its contract."""


class ShapeError(InkmotionError):
    """Tensors whose shapes do not fit together."""


class CheckpointError(InkmotionError):
    """A checkpoint that is missing, incomplete, foreign or of another schema."""


class TrainingError(InkmotionError):
    """A training that can't go on: a non-finite loss, workers that can't be had."""


class TrackingError(InkmotionError):
    """The tracking server or the registry refuses or can't be reached."""


class EnvironmentProblem(InkmotionError):
    """The machine lacks something: a port, a disk, a permission, a weight file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule of a configuration."""

    key: str
    """Dotted path of the key, relative to its section until the reader prefixes it."""
    value: Any
    """What stands there."""
    rule: str
    """What must hold, after the word "must"."""

    def under(self, prefix: str) -> Problem:
        """The same problem with its key's path prefixed."""
        return Problem(f"{prefix}.{self.key}" if prefix else self.key, self.value, self.rule)

    def __str__(self) -> str:
        return f"{self.key} must {self.rule}; got {self.value!r}"


class ParamsError(InkmotionError):
    """One or more broken rules of a configuration, all reported at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"{self.problems[0]}."
        lines = "\n".join(f"  - {problem}." for problem in self.problems)
        return f"{len(self.problems)} settings are wrong:\n{lines}"


def check(*rules: tuple[bool, str, Any, str]) -> None:
    """Raise one `ParamsError` that holds every rule which does not hold.

    Args:
        rules: (holds, key, value, rule) each.
    """
    problems = [Problem(key, value, rule) for holds, key, value, rule in rules if not holds]
    if problems:
        raise ParamsError(problems)
