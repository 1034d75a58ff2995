"""Writes the tables of a paper: measured figures of all its rows beside the published ones."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pipelines.params import Params
from pipelines.stage import Paths, fresh_folder, only_writer, write_text
from pipelines.table_csv import table_csv
from pipelines.table_drawings import has_drawings, read_drawings, strip
from pipelines.table_figures import Table
from pipelines.table_picture import draw
from pipelines.table_reports import read_tables
from pipelines.table_text import aim, heading, markdown, setting_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TablesReport:
    """What was written."""

    paper: str
    profile: str
    sizes_px: str
    folder: str
    document: str
    num_tables: int
    num_trainings: int


def run(name: str, params: Params, paths: Paths) -> TablesReport:
    """Write ``reports/tables/<name>``: a Markdown document, and for each table a CSV file and a picture.

    A table of models that draw has another picture: the same photos drawn by each row. All names carry the profile and
    the size, as ``table-1-sample-64px.csv``. The same reports give the same bytes.

    Args:
        name: the paper's folder in papers/.
        params: of the project.
        paths: of the project.

    Raises:
        ParamsError: there is no such paper, or its printed figures can't be read.
        CheckpointError: a training's report is missing, or belongs to other settings.
    """
    paper, target = params.paper(name), paths.root / "reports" / "tables" / name
    with only_writer(target):
        tables = read_tables(paper, params, paths)
        setting = setting_of(name, params, tables)
        files = {table.name: f"{table.name}-{setting.stem}" for table in tables}
        document = f"{name}-{setting.stem}.md"
        with fresh_folder(target) as making:
            for table in tables:
                write_text(making / f"{files[table.name]}.csv", table_csv(table, setting))
                (making / f"{files[table.name]}.png").write_bytes(draw(table, setting))
            pictures = {key: f"{file}.png" for key, file in files.items()}
            drawn = {table.name: _strip(table, params, paths) for table in tables}
            strips = {name: f"{files[name]}-drawings.png" for name, content in drawn.items() if content}
            for key, file in strips.items():
                (making / file).write_bytes(drawn[key])
            write_text(making / document, markdown(tables, setting, pictures, strips))
    for table in tables:
        for block in table.blocks:
            if block.config.aim is not None:
                logger.info("%s: %s", heading(block), aim(block))
    return TablesReport(
        paper=name,
        profile=setting.profile,
        sizes_px=" ".join(map(str, setting.sizes_px)),
        folder=str(target),
        document=str(target / document),
        num_tables=len(tables),
        num_trainings=len(
            {n for table in tables for block in table.blocks for line in block.lines for n in line.experiments}
        ),
    )


def _strip(table: Table, params: Params, paths: Paths) -> bytes:
    """The drawings of a table's first block that has some; empty: none has."""
    here = Paths(paths.root, params.report_folders())
    for block in table.blocks:
        if has_drawings(block):
            found = read_drawings(
                {line.label: here.pictures("evaluate", line.experiments[0]) for line in block.measured}
            )
            if found is not None:
                return strip(found)
    return b""
