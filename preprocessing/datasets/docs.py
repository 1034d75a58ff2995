"""docs/datasets.md, written from the data sets' own files: ``python -m preprocessing.datasets.docs`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from preprocessing.datasets.catalog import DATASETS
from preprocessing.datasets.spec import Count, DatasetSpec, Remote

PAGE = Path(__file__).resolve().parents[2] / "docs" / "datasets.md"

_HEAD = """\
# Data sets

The data of the papers, from their real sources. This page is written from `preprocessing/datasets/` by
`python -m preprocessing.datasets.docs`; a test sees that it is current. No address was tried when it was written:
what is known of each, and since when, stands beside it.

**Before you fetch**: read the licence and the terms, which also `inkmotion datasets show NAME` prints. Nothing is
fetched until they are accepted (`--accept-terms`, or `accept_terms: true`). Faces are of real people; several sets
allow research alone; none may be passed on unless its licence says so.
"""

_COMMANDS = """\
## How

| what | command |
| --- | --- |
| what there is | `inkmotion datasets list` |
| everything about one | `inkmotion datasets show voxceleb1` |
| take it into `params.yaml` under a name of yours | `inkmotion datasets add vox --preset voxceleb1` |
| the same with a copy that you have | `inkmotion datasets add vox --preset voxceleb1 --path /data/vox` |
| look a folder over first | `inkmotion datasets check voxceleb1 --path /data/vox` |
| fetch it (stop and start it at will) | `inkmotion download vox --accept-terms` |
| what came, what did not, and why | `inkmotion ledger vox` |
| try again what failed for a reason | `inkmotion ledger vox --retry network` |
| cut it | `inkmotion cut vox` |
| a data set of your own | `inkmotion datasets add mine --path ~/videos --kind faces` |

A **local copy** in the layout shown below is named in `datasets.NAME.source`: a folder, `file://...`, or any address
that fsspec opens (`s3://bucket/vox`). Nothing is fetched then: what is not there is in the ledger as `missing`. An
archive that was unpacked into one more folder is found too. A **mirror** (`--mirror URL`) stands in for the hosts
below; for videos by id set `video_url` to an address with `{id}`. Any key of a data set's settings can be set
otherwise in `params.yaml`.
"""

_TROUBLES: tuple[tuple[str, str, str], ...] = (
    ("`removed`, `private`", "the video is gone", "nothing; ask somebody who has a copy, and set `source`"),
    (
        "`geo-blocked`, `age-restricted`",
        "not for this place, or not without an account",
        "`fetching.proxy`; `fetching.cookies` of an account that may see it",
    ),
    (
        "`bot-check`",
        "the host takes this machine for a robot (common in data centres)",
        "`fetching.cookies`, `fetching.pause_s`, another connection; `--retry bot-check`",
    ),
    (
        "`rate-limited`, `server-error`, `network`",
        "these pass",
        "`--retry rate-limited`, fewer `fetching.connections_per_host`",
    ),
    ("`quota`", "Google Drive's daily limit of a file", "`--retry quota` on the next day, or a copy from elsewhere"),
    (
        "`not-media`",
        "a page came in place of the file: a login, a notice",
        "open the address in a browser; use a mirror",
    ),
    ("`wrong-length`, `wrong-checksum`", "another file than the published one", "fetch again; look at the mirror"),
    ("`needs-form`", "a person must ask for it", "the form below, then `source`"),
    ("`missing`", "your copy lacks it", "put it there, or leave `source` null to fetch it"),
    ("`unsupported`", "no video or picture, or a folder of frames", "join the frames to an mp4, or take the videos"),
    ("`bad-row`, `duplicate-row`", "a line of a list that can't be used, with its number", "mend the list"),
    (
        "`no-subject`, `too-short`, `outside-frame`",
        "the cut found no face or person, or not for long enough",
        "lower `min_frames` or `min_side_px`; `outside: pad`",
    ),
)


def page(specs: Mapping[str, DatasetSpec] = DATASETS) -> str:
    """The whole page, in Markdown."""
    sections = [section(spec) for spec in specs.values()]
    return "\n".join([_HEAD, _overview(specs.values()), _counts(specs.values()), _COMMANDS, _troubles(), *sections])


def section(spec: DatasetSpec) -> str:
    """One data set's part of the page."""
    parts = [
        f"## {spec.title} (`{spec.name}`)",
        f"Kind `{spec.kind}`. Used by " + "; ".join(f"**{_paper(paper)}" for paper in spec.papers) + ".",
        "### Where from",
        _sources(spec),
        spec.how_to_get,
        "### Licence and terms",
        f"**[{spec.licence.name}]({spec.licence.url})** {spec.licence.allows}",
        "\n".join(f"> {line}".rstrip() for line in spec.terms.strip().split("\n")),
        "### Layout of a local copy",
        f"```text\n{spec.layout}\n```",
        "### How it is cut and split",
        _settings(spec),
        "\n".join(f"- {note}" for note in spec.notes),
        "### Counts",
        _count_table(spec),
        "### Commands",
        _commands(spec),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _troubles() -> str:
    lead = "The ledger names one reason for each item that is not there."
    end = "A stage fails when less than `yield_floor` of its items is kept, and says what became of the rest."
    table = _table(("reason", "what it means", "what to do"), _TROUBLES)
    return f"## Known troubles\n\n{lead}\n\n{table}\n\n{end}\n"


def _paper(paper: str) -> str:
    name, _, what = paper.partition(": ")
    return f"{name}** ({what})"


def _overview(specs: Iterable[DatasetSpec]) -> str:
    rows = [
        (
            f"[{spec.title}](#{anchor(spec)})",
            f"`{spec.name}`",
            spec.kind,
            spec.expected.unit if spec.expected else "-",
            _number(spec.expected),
            f"{spec.num_gb:g} GB" if spec.num_gb else "not published",
            how(spec),
            spec.licence.name,
        )
        for spec in specs
    ]
    head = ("data set", "name", "kind", "unit", "expected", "size", "how to get it", "licence")
    return f"## Overview\n\n{_table(head, rows)}\n"


def _counts(specs: Iterable[DatasetSpec]) -> str:
    rows = [(f"`{spec.name}`", *_count_row(count)) for spec in specs for count in spec.counts]
    text = '"Expected" is what the full data set is held against (`require_counts: true` makes it a rule).'
    head = ("data set", "who says so", "train", "test", "all", "unit", "expected")
    return f"## Counts\n\n{text}\n\n{_table(head, rows)}\n"


def _count_table(spec: DatasetSpec) -> str:
    head = ("who says so", "train", "test", "all", "unit", "expected")
    return _table(head, [_count_row(count) for count in spec.counts])


def _count_row(count: Count) -> tuple[str, ...]:
    numbers = [f"{count.of[side]:,}" if side in count.of else "" for side in ("train", "test")]
    whole = f"{sum(count.of.values()):,}" if "all" in count.of or len(count.of) > 1 else ""
    return count.who, *numbers, whole, count.unit, "yes" if count.is_expected else ""


def _number(count: Count | None) -> str:
    if count is None:
        return "-"
    return " / ".join(f"{number:,} {side}" if side != "all" else f"{number:,}" for side, number in count.of.items())


def how(spec: DatasetSpec) -> str:
    """How a data set is had, in a few words."""
    if spec.kind == "film":
        return "a film file of yours"
    if not spec.remotes:
        return "by form" if spec.name == "celeb-df-v2" else "by hand, in a browser"
    hosts = "YouTube, by id" if spec.video_url else "addresses in its lists"
    return "one archive" if any(remote.is_archive for remote in spec.remotes) else hosts


def _sources(spec: DatasetSpec) -> str:
    rows = [_remote(remote) for remote in spec.remotes]
    if spec.video_url:
        rows.append(f"- **videos**, each by its id: `{spec.video_url}`")
    if spec.form:
        rows.append(f"- **by hand**: <{spec.form.url}>. {spec.form.what.rstrip('.')}.")
    return "\n".join([f"- Page: <{spec.homepage}>", *rows])


def _remote(remote: Remote) -> str:
    facts = [f"{remote.num_bytes:,} bytes" if remote.num_bytes else "", f"md5 `{remote.md5}`" if remote.md5 else ""]
    facts.append(f"sha256 `{remote.sha256}`" if remote.sha256 else "")
    shown = ", ".join(fact for fact in facts if fact)
    urls = ", else ".join(f"<{url}>" for url in remote.urls)
    kind = " (an archive, unpacked)" if remote.is_archive else ""
    return f"- **{remote.name}**{kind}: {urls}{f' ({shown})' if shown else ''}. Status: {remote.status}"


def _settings(spec: DatasetSpec) -> str:
    """The settings that the data set brings along."""
    rows = [(f"`{key}`", f"`{_yaml(value)}`") for key, value in spec.settings.items()]
    return _table(("setting", "value"), rows)


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _commands(spec: DatasetSpec) -> str:
    short = spec.name.replace("-", "_") if spec.kind != "film" else "film"
    path = f" --path /data/{spec.name}" if not spec.remotes else ""
    lines = [
        f"inkmotion datasets show {spec.name}",
        f"inkmotion datasets add {short} --preset {spec.name}{path}",
        f"inkmotion download {short} --accept-terms",
        f"inkmotion ledger {short}",
        f"inkmotion cut {short}",
    ]
    return "```bash\n" + "\n".join(lines) + "\n```"


def anchor(spec: DatasetSpec) -> str:
    """The heading's anchor, as GitHub makes it."""
    heading = f"{spec.title} ({spec.name})".lower()
    return "".join(char for char in heading if char.isalnum() or char in " -_").replace(" ", "-")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
