"""Rows shared among Ray's workers, each of which builds what it needs once."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MAX_BLOCKS = 2000
_RETRIES = 2
"""Of a row whose process, or node, died."""


def by_workers(
    rows: Sequence[Mapping[str, Any]],
    worker: type,
    job: Any,
    *,
    num_workers: int | None,
    num_threads: int,
    on_gpu: bool,
) -> Iterator[dict[str, Any]]:
    """Call a worker on each row; results come as they are done, and who dies takes no others along.

    Args:
        rows: plain values, which Arrow has types for.
        worker: a class, built with ``job`` in each process, whose instances are called on a row and give one.
        job: what it is built with.
        num_workers: processes; None: as many as the cluster has room for.
        num_threads: CPUs of each.
        on_gpu: give each a GPU where there are any.
    """
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the stage tells its progress itself
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # Ray's context warns of itself, too
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        before, context.max_errored_blocks = context.max_errored_blocks, -1
        size: dict[str, Any] = {"size": num_workers}
        if num_workers is None:
            size = {"min_size": 1, "max_size": len(rows)}
        have: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        try:
            blocks = ray.data.from_items([dict(row) for row in rows], override_num_blocks=min(len(rows), _MAX_BLOCKS))
            done = blocks.map(
                worker,  # Ray builds it on each worker
                fn_constructor_args=(job,),
                compute=ray.data.ActorPoolStrategy(**size),
                num_cpus=num_threads,
                num_gpus=min(1, int(have.get("GPU", 0))) if on_gpu else 0,
                max_restarts=-1,
                max_task_retries=_RETRIES,
            )
            yield from done.iter_rows()
        finally:
            context.max_errored_blocks = before
