"""The one place that speaks to the MLflow registry: registers, resolves, promotes, traces and moves model versions.

A version is a pyfunc model that stands alone: `pipelines/served/motion.py` (or `style.py`) and its ONNX file. The
checkpoint that it was made of lies among its run's files, so that a training can start from any version and a consumer
does not download it. Its tags are its lineage.

A store in sqlite records absolute paths of this machine. A server may show such a file (`pipelines/ui.py` does), but
its clients would look for those paths. `pipelines/moving.py` copies the versions to a server instead.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import TrackingError, must
from models.families import Family
from pipelines.carried import CARRIED, FAMILY_TAG
from pipelines.params import Params
from pipelines.promotion import Decision, judge
from pipelines.stage import Paths
from training.tracking.mlflow import DEFAULT_EXPERIMENT, open_experiment, public, speaking_to

log = logging.getLogger(__name__)

CANDIDATE, CHAMPION = "candidate", "champion"
CHECKPOINT_TAG = "checkpoint.path"
"""Where a version's checkpoint lies among its run's files."""
SERVED_TAG = "served.sha256"
"""Of the code that a version carries, and of how its graph was made."""
STYLES_TAG = "styles.sha256"
"""Of the style codes that a version carries."""
IDENTITY_TAGS = ("weights.sha256", "imported.settings", STYLES_TAG, SERVED_TAG)
"""Two versions with equal ones are the same model."""
REQUIREMENTS = ["onnxruntime>=1.20", "numpy>=2.0", "pillow>=11"]
MAX_TAG_LENGTH = 5000
MAX_DESCRIPTION_LENGTH = 5000
_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A tracking store and registry."""

    uri: str
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A model version."""

    name: str
    version: int
    run_id: str | None
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    description: str

    @property
    def uri(self) -> str:
        """How to load it."""
        return f"models:/{self.name}/{self.version}"


def default_uri(params: Params | None, paths: Paths) -> str:
    """Of the store: params, else the environment, else sqlite beside the project."""
    configured = params.tracking.uri if params is not None else None
    return configured or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{paths.database.resolve()}"


def store_of(params: Params | None, paths: Paths) -> Store:
    """The store that the settings name."""
    timeout_s = params.tracking.timeout_s if params is not None else 5.0
    return Store(uri=default_uri(params, paths), timeout_s=max(timeout_s, 30.0))  # files are bigger than metrics


def find(uri: str, store: Store) -> Version:
    """The version that a ``models:/`` URI means; ``models:/NAME`` is the champion, else the newest.

    Raises:
        TrackingError: no such name, alias or version; the message lists what exists.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        fix = "Write models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME"
        raise TrackingError(must("a model", "be named by a models:/ URI", uri, fix))
    versions = versions_of(parts["name"], store)
    if not versions:
        known = ", ".join(names(store)) or "nothing is registered yet"
        raise TrackingError(must(uri, "name a registered model", parts["name"], f"Known: {known}"))
    for version in versions:
        if parts["version"] and version.version == int(parts["version"]):
            return version
        if parts["alias"] and parts["alias"] in version.aliases:
            return version
    if parts["version"] or parts["alias"]:
        known = ", ".join(f"{v.version}{' @' + ' @'.join(v.aliases) if v.aliases else ''}" for v in versions)
        raise TrackingError(must(uri, "name a version or alias that exists", uri, f"Known versions: {known}"))
    champions = [version for version in versions if CHAMPION in version.aliases]
    return champions[0] if champions else versions[-1]


def names(store: Store) -> list[str]:
    """Of all registered models."""
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client:
        return sorted(model.name for model in _pages(client.search_registered_models))


def versions_of(name: str, store: Store) -> list[Version]:
    """All versions of a model, oldest first; none when there is no such model."""
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client:
        found = _pages(client.search_model_versions, filter_string=f"name = '{name.replace(chr(39), '')}'")
        aliases = _aliases(client, name) if found else {}
    return sorted((_version(raw, aliases) for raw in found), key=lambda version: version.version)


def resolve(uri: str, store: Store, *, target: Path | None = None) -> Path:
    """A local folder with a version's files.

    Args:
        uri: of the model version.
        store: where it is registered.
        target: where to put the files; None: a temporary folder, or the store's own where it is local.
    """
    return _download(find(uri, store).uri, store, target)


def onnx_of(folder: Path, variant: str = "") -> Path:
    """The graph in a version's folder, or a variant of it (``fp16``, ``int8``).

    Raises:
        TrackingError: the version is not one of inkmotion's.
    """
    suffix = f"-{variant}" if variant else ""
    names = {f"{carried.artifact}{suffix}" for carried in CARRIED.values()}
    found = sorted(folder.rglob("*.onnx"))
    chosen = [path for path in found if path.stem in names]
    if len(chosen) != 1:
        rule = f"hold one graph {' or '.join(f'{name}.onnx' for name in sorted(names))}"
        got = ", ".join(path.name for path in found) or "none"
        raise TrackingError(must(str(folder), rule, got, "Use a version made by inkmotion"))
    return chosen[0]


def checkpoint_of(uri: str, store: Store, *, target: Path | None = None) -> Path:
    """The checkpoint that a version was made of, to start a training from; a copy unless the store is local.

    Raises:
        TrackingError: the version has none.
    """
    version = find(uri, store)
    if version.run_id is None or CHECKPOINT_TAG not in version.tags:
        raise TrackingError(must(uri, "have its checkpoint", "none", "Name a checkpoint's folder instead"))
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client:
        files = client.get_run(version.run_id).info.artifact_uri
    return _download(f"{files}/{version.tags[CHECKPOINT_TAG]}", store, target)


def _download(artifact_uri: str, store: Store, target: Path | None) -> Path:
    with speaking_to(store.uri, timeout_s=store.timeout_s), pointing_at(store):
        import mlflow.artifacts

        place = mlflow.artifacts.download_artifacts(
            artifact_uri=artifact_uri,
            dst_path=str(target) if target else None,
            tracking_uri=store.uri,
            registry_uri=store.uri,
        )
    return Path(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What a new version is made of."""

    name: str
    run_id: str | None
    """The training's run; None: a run of its own is made."""
    onnx: Path
    checkpoint: Path
    card: str
    """Markdown."""
    tags: Mapping[str, str]
    size_px: int
    family: Family = "motion"
    variants: Mapping[str, Path] = field(default_factory=dict)
    """Reduced graphs that go along, by name: ``fp16``, ``int8``."""
    extras: Mapping[str, Path] = field(default_factory=dict)
    """Further files that the family's code opens, by name."""


def register(parcel: Parcel, store: Store) -> Version:
    """Log a model, register it as a version and give it the alias ``candidate``.

    The same checkpoint (tag ``weights.sha256``; of an imported one also its settings), served by the same code, is
    registered once: a second time its version is found again.
    """
    for known in versions_of(parcel.name, store):
        if all(known.tags.get(tag) == parcel.tags.get(tag) for tag in IDENTITY_TAGS):
            _renew(known, parcel, store)
            return find(known.uri, store)
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client, pointing_at(store):
        run_id = parcel.run_id or _own_run(client, parcel.name, store)
        place = _log_checkpoint(client, parcel, run_id)
        model_id = _log(client, parcel, run_id)
        _known_model(client, parcel.name)
        made = client.create_model_version(
            parcel.name,
            source=f"models:/{model_id}",
            run_id=run_id,
            model_id=model_id,
            tags={**_shortened(parcel.tags), FAMILY_TAG: parcel.family, CHECKPOINT_TAG: place},
            description=parcel.card[:MAX_DESCRIPTION_LENGTH],
        )
        client.set_registered_model_alias(parcel.name, CANDIDATE, made.version)
        if parcel.run_id is None:
            client.set_terminated(run_id)
    return find(f"models:/{parcel.name}/{made.version}", store)


def served_as(opset: int, family: Family = "motion") -> str:
    """What `SERVED_TAG` says of a version that is exported now."""
    return CARRIED[family].sha256(opset)


def promote(name: str, params: Params | None, paths: Paths) -> Decision:
    """Let ``champion`` follow ``candidate`` when its metric is better on the same data.

    Raises:
        TrackingError: there is no such model or no candidate.
    """
    store = store_of(params, paths)
    candidate = find(f"models:/{name}@{CANDIDATE}", store)
    champions = [version for version in versions_of(name, store) if CHAMPION in version.aliases]
    champion = champions[0] if champions else None
    promoted, sentence = judge(candidate, champion)
    if promoted:
        _set_alias(candidate, CHAMPION, store)
    after = candidate.version if promoted else champion.version if champion else None
    return Decision(name=name, promoted=promoted, champion=after, sentence=sentence)


def lineage(uri: str, params: Params | None, paths: Paths) -> dict[str, Any]:
    """What made a version: code, data, settings, metrics, checksums, licences."""
    store = store_of(params, paths)
    version = find(uri, store)
    facts = {key: _plain(value) for key, value in sorted(version.tags.items())}
    return {
        "model": version.uri,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "store": public(store.uri),
        **facts,
    }


def param(key: str, value: str) -> Any:
    """A parameter of a run, as clients take it."""
    from mlflow.entities import Param

    return Param(key, value)


def _plain(value: str) -> Any:
    if value.startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _log_checkpoint(client: Any, parcel: Parcel, run_id: str) -> str:
    place = f"checkpoint-{parcel.tags['weights.sha256'][:16]}"
    client.log_artifacts(run_id, str(parcel.checkpoint), place)
    return place


def _log(client: Any, parcel: Parcel, run_id: str) -> str:
    """Log the pyfunc model beside a run, which itself stays as it is; the model's id."""
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    carried, experiment = CARRIED[parcel.family], client.get_run(run_id).info.experiment_id
    variants = {name: str(path) for name, path in {**parcel.variants, **parcel.extras}.items()}
    model = client.create_logged_model(experiment, name=parcel.name, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as scratch:
        card, folder = Path(scratch) / "model_card.md", Path(scratch) / "model"
        card.write_text(parcel.card, encoding="utf-8")
        pyfunc.save_model(
            str(folder),
            python_model=str(carried.code),
            artifacts={carried.artifact: str(parcel.onnx), "model_card": str(card), **variants},
            pip_requirements=REQUIREMENTS,
            signature=carried.signature(),
            input_example=carried.example(),
            metadata={"size_px": parcel.size_px},
            mlflow_model=Model(
                artifact_path=model.artifact_location, run_id=run_id, model_uuid=model.model_id, model_id=model.model_id
            ),
        )
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, int(parcel.tags.get("training.step", 0)))])
    return str(model.model_id)


def _own_run(client: Any, name: str, store: Store) -> str:
    experiment = open_experiment(client, store.uri, DEFAULT_EXPERIMENT)
    return str(
        client.create_run(experiment, run_name=f"register-{name}", start_time=int(time.time() * 1000)).info.run_id
    )


def _known_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        client.create_registered_model(name)


def _set_alias(version: Version, alias: str, store: Store) -> None:
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client:
        client.set_registered_model_alias(version.name, alias, str(version.version))


def _renew(version: Version, parcel: Parcel, store: Store) -> None:
    """Give a version that is registered already what has changed around it: tags, card, the alias ``candidate``."""
    with speaking_to(store.uri, timeout_s=store.timeout_s) as client:
        tags = _shortened(parcel.tags)
        if version.run_id is not None and CHECKPOINT_TAG not in version.tags:
            tags[CHECKPOINT_TAG] = _log_checkpoint(client, parcel, version.run_id)
        for key, value in tags.items():
            if version.tags.get(key) != value:
                client.set_model_version_tag(version.name, str(version.version), key, value)
        card = parcel.card[:MAX_DESCRIPTION_LENGTH]
        if version.description != card:
            client.update_model_version(version.name, str(version.version), description=card)
        client.set_registered_model_alias(version.name, CANDIDATE, str(version.version))


def _shortened(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: value[:MAX_TAG_LENGTH] for key, value in tags.items()}


@contextlib.contextmanager
def pointing_at(store: Store) -> Iterator[None]:
    """Point MLflow's global functions, which its clients call behind the scenes, at a store for a block's length.

    They write environment variables too, by which `default_uri` would mean that store from then on.
    """
    import mlflow

    flow: Any = mlflow  # its annotations know neither None nor is_tracking_uri_set
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ[name] for name in names if name in os.environ}
    chosen = flow.get_tracking_uri() if flow.is_tracking_uri_set() else None
    flow.set_tracking_uri(store.uri)
    flow.set_registry_uri(store.uri)
    try:
        yield
    finally:
        flow.set_tracking_uri(chosen)
        flow.set_registry_uri(before.get(names[1]))
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def _aliases(client: Any, name: str) -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for alias, version in client.get_registered_model(name).aliases.items():
        found.setdefault(int(version), []).append(alias)
    return {version: tuple(sorted(aliases)) for version, aliases in found.items()}


def _version(raw: Any, aliases: Mapping[int, tuple[str, ...]]) -> Version:
    number = int(raw.version)
    return Version(
        name=raw.name,
        version=number,
        run_id=raw.run_id,
        tags=dict(raw.tags),
        aliases=aliases.get(number, ()),
        description=raw.description or "",
    )


def _pages(search: Any, **arguments: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = search(**arguments, **({"page_token": token} if token else {}))
        found += page
        token = page.token
        if not token:
            return found
