"""Where the media of a data set come from: a folder, an address, or a preset's own addresses.

Whatever it is becomes one listing. Lists and archives that a preset needs first are fetched into a scratch folder
beside the output, which outlives a kill.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from models.errors import ParamsError, Problem, SourceError, must
from pipelines.lineage import licence_note
from preprocessing.config import DatasetConfig
from preprocessing.datasets.catalog import dataset_spec
from preprocessing.datasets.listing import chosen, metadata_listing
from preprocessing.datasets.local import LocalFolder, safe_names
from preprocessing.datasets.spec import DatasetSpec, Item, Listing, Remote
from preprocessing.fetch import Fetcher, Wanted, mirrored
from preprocessing.fetch_archive import unpack
from preprocessing.video import SUFFIXES

logger = logging.getLogger(__name__)

METADATA_NAME, BOXES_NAME = "metadata.csv", "boxes.csv"


def local_folder(root: Path, config: DatasetConfig) -> Path | None:
    """The folder on this machine that holds the media; None: they are elsewhere."""
    if config.source is None:
        return None
    parts = urlsplit(config.source)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if "://" in config.source else root / config.source


def shown_source(config: DatasetConfig) -> str:
    """The source in a word, for reports."""
    return config.source or f"preset {config.preset}"


def licences(config: DatasetConfig, root: Path) -> str:
    """Under which licence a data set's media are: the preset's, or what the README beside a folder says."""
    if config.preset is not None:
        licence = dataset_spec(config.preset).licence
        return f"{licence.name} ({licence.url}): {licence.allows}"
    folder = local_folder(root, config)
    return licence_note(folder) if folder is not None else "not stated"


def check_terms(name: str, config: DatasetConfig) -> None:
    """Show a preset's licence and terms, and see that they are accepted.

    Raises:
        ParamsError: they are not.
    """
    if config.preset is None:
        return
    spec = dataset_spec(config.preset)
    logger.info("%s - licence: %s (%s)\n%s", spec.title, spec.licence.name, spec.licence.url, spec.terms.strip())
    if not config.accept_terms:
        rule = "be true before anything is fetched: read the terms above, then set it or give --accept-terms"
        raise ParamsError([Problem(f"datasets.{name}.accept_terms", False, rule)])


def listing(name: str, root: Path, config: DatasetConfig, fetcher: Fetcher, scratch: Path) -> Listing:
    """Everything that a data set's source offers.

    Args:
        name: of the data set.
        root: of the project; a relative source lies below it.
        config: of the data set.
        fetcher: for lists, archives and listings of remote folders.
        scratch: folder for what is fetched first; kept until the stage is through.

    Raises:
        SourceError: the source can't be had or holds nothing.
        ParamsError: the preset's terms are not accepted.
    """
    folder = local_folder(root, config)
    if folder is None:
        found = _remote(name, config, fetcher, scratch)
    elif config.preset is not None and folder.is_dir():
        found = dataset_spec(config.preset).listing(folder, config)
        found = replace(found, items=tuple(_here(item) for item in found.items))
    else:
        found = _own(name, folder, config)
    items = chosen(found.items, config)
    if found.items and not items:
        offered = f"{len(found.items)} files in {shown_source(config)} (as {found.items[0].origin})"
        got = f"{config.only!r}, and none of {offered} does"
        raise SourceError(must(f"datasets.{name}.only", "match a file's name", got, "Mend the pattern, or set null"))
    if not items:
        fix = "Put the media there, or name their folder in datasets." + name + ".source"
        raise SourceError(must(f"data set {name}", "offer something", f"nothing in {shown_source(config)}", fix))
    return replace(found, items=items)


def _own(name: str, folder: Path, config: DatasetConfig) -> Listing:
    metadata = folder / (config.metadata or METADATA_NAME) if config.cut_rule == "metadata" else None
    if metadata is not None and folder.is_dir():
        return metadata_listing(folder, metadata)
    if config.boxes and folder.is_dir() and not (folder / config.boxes).is_file():
        raise SourceError(must(f"datasets.{name}.boxes", "name a file in the source", f"{config.boxes} (no such file)"))
    lists = [config.boxes] if config.boxes else []
    items = LocalFolder(folder, dataset=name, without=lists).items()
    return Listing(items=tuple(items), boxes=folder / config.boxes if config.boxes else None)


def _here(item: Item) -> Item:
    """A local copy is a promise: what lies elsewhere is not fetched."""
    from preprocessing.video_types import MediaError

    if item.path is not None or item.problem is not None:
        return item
    fix = "Put it there, or leave source null to fetch it"
    return replace(
        item, problem=MediaError(must(item.origin, "lie in the source folder", "no such file", fix), "missing")
    )


def _remote(name: str, config: DatasetConfig, fetcher: Fetcher, scratch: Path) -> Listing:
    if config.preset is None:
        return _remote_folder(name, str(config.source))
    spec = dataset_spec(config.preset)
    check_terms(name, config)
    if not spec.remotes and not config.mirror:
        what = spec.form.what if spec.form else "There is no address to fetch it from."
        where = f" ({spec.form.url})" if spec.form else ""
        fix = f"{what.rstrip('.')}{where}; then name its folder in datasets.{name}.source"
        raise SourceError(must(f"data set {name}", "be had by hand", "no local copy", fix))
    base = config.source or config.mirror  # a copy of the whole at an address is a mirror
    for remote in spec.remotes:
        _have(remote, fetcher, scratch, base)
    found = spec.listing(scratch, config)
    return replace(found, items=tuple(_elsewhere(item, base) for item in found.items))


def _have(remote: Remote, fetcher: Fetcher, scratch: Path, base: str | None) -> None:
    """Fetch a list, or an archive with all that is in it, unless a killed run has already."""
    done = scratch / f".{remote.name.replace('/', '_')}.done"
    if done.exists():
        return
    target = scratch / remote.name
    target.parent.mkdir(parents=True, exist_ok=True)
    urls = mirrored(remote.urls, base, remote.name)
    logger.info("fetching %s", remote.name)
    known = {"num_bytes": remote.num_bytes, "sha256": remote.sha256, "md5": remote.md5}
    fetcher.file(Wanted(urls=urls, **known, may_be_text=not remote.is_archive), target)  # type: ignore[arg-type]
    if remote.is_archive:
        unpack(target, scratch)
        target.unlink()
    done.touch()


def _elsewhere(item: Item, base: str | None) -> Item:
    if item.path is not None or item.problem is not None or item.video_id is not None:
        return item
    outside = tuple(
        url for url in item.urls if url.startswith(("http://", "https://"))
    )  # a list may name any file here
    return replace(item, urls=mirrored(outside, base, item.origin))


def _remote_folder(name: str, address: str) -> Listing:
    """All media below an address that fsspec knows."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(address)
        files = sorted(system.find(path))
    except (ImportError, ValueError) as error:
        raise SourceError(
            must(f"datasets.{name}.source", "be an address that fsspec opens", str(error)[:300])
        ) from None
    except OSError as error:
        raise SourceError(must(f"datasets.{name}.source", "be readable", f"{address} ({error})"[:300])) from None
    origins = {
        file.removeprefix(path).lstrip("/"): system.unstrip_protocol(file)
        for file in files
        if Path(file).suffix.lower() in SUFFIXES
    }
    names = safe_names(list(origins))
    return Listing(items=tuple(Item(name=names[place], origin=place, urls=(url,)) for place, url in origins.items()))


def spec_of(config: DatasetConfig) -> DatasetSpec | None:
    """The preset's facts; None for media of the user's own."""
    return dataset_spec(config.preset) if config.preset else None
