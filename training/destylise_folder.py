"""Destylisation of a whole set of pictures into a folder of codes, which goes on where it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from models.errors import CheckpointError, must
from training.codes import MANIFEST, Codes, CodeTable, code_table, read_codes, write_codes
from training.destylise import Destylised, Destyliser, Tell, destylise
from training.destylise_config import DestyliseConfig

MADE_BY, LOSSES = "made_by", "losses"
"""Keys of what a table says about itself: settings and networks, by which codes are known again; what came of each."""
WRITE_EVERY = 8

Done = Callable[[Destylised], None]
"""Hears of each picture that is done."""


def destylise_into(
    folder: Path,
    names: Sequence[str],
    load: Callable[[str], Tensor],
    networks: Destyliser,
    config: DestyliseConfig,
    *,
    made_of: Mapping[str, Any],
    done: Done | None = None,
    tell: Tell | None = None,
) -> CodeTable:
    """Destylise pictures that the folder holds no codes of yet.

    A run that was killed goes on behind the last codes written, with the same result to the bit (with a batch of 1).
    Codes of other settings or networks are replaced; those of pictures that are not asked for are dropped.

    Args:
        folder: of the codes; see `training.codes`.
        names: of the pictures, each once.
        load: gives a picture by its name, in [0, 1], (3, H, W).
        networks: what does the work.
        config: weights and steps.
        made_of: plain values by which the networks are known again, such as their files' checksums.
        done: hears of each picture as it is done.
        tell: hears of each step.

    Returns:
        The codes of all ``names``, which the folder holds too.

    Raises:
        CheckpointError: the codes that are there are damaged, or there is no picture.
        TrainingError: a picture's optimisation has left the numbers; those before it are kept.
    """
    made_by = _plain({"config": asdict(config), "networks": dict(made_of)})
    codes, losses = _before(folder, names, made_by)

    def keep() -> None:
        if codes:
            write_codes(folder, code_table(codes, {MADE_BY: made_by, LOSSES: losses}))

    waiting: Iterator[tuple[str, Tensor]] = ((name, load(name)) for name in names if name not in codes)
    try:
        for place, found in enumerate(destylise(waiting, networks, config, tell=tell), start=1):
            codes[found.name] = found.codes
            losses[found.name] = {"begin": dict(found.begin), "end": dict(found.end)}
            if done is not None:
                done(found)
            if place % WRITE_EVERY == 0:
                keep()
    finally:
        keep()
    return code_table(codes, {MADE_BY: made_by, LOSSES: losses})


def _before(folder: Path, names: Sequence[str], made_by: Any) -> tuple[dict[str, Codes], dict[str, Any]]:
    """What an earlier run has left of these pictures."""
    if not (folder / MANIFEST).exists():
        return {}, {}
    table = read_codes(folder)
    if table.about.get(MADE_BY) != made_by:
        return {}, {}
    kept = [name for name in names if name in table.names]
    found = table.about.get(LOSSES)
    losses = found if isinstance(found, dict) else {}
    return {name: table[name] for name in kept}, {name: losses[name] for name in kept if name in losses}


def _plain(value: Any) -> Any:
    """As it would come back out of JSON.

    Raises:
        CheckpointError: it would not.
    """
    try:
        return json.loads(json.dumps(value))
    except TypeError as error:
        raise CheckpointError(must("made_of", "hold plain values", str(error))) from None
