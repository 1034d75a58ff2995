"""What the studio offers, and that a model is opened once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from models.errors import TrackingError
from pipelines import registry
from pipelines.registry import Store, Version
from pipelines.studio_choices import Kept, choices, sample_media

STORE = Store(uri="sqlite:///nowhere.db")


def version(name: str, number: int, family: str | None, *aliases: str) -> Version:
    tags = {} if family is None else {"family": family}
    return Version(name=name, version=number, run_id=None, tags=tags, aliases=aliases, description="")


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Version]:
    known: list[Version] = []
    monkeypatch.setattr(registry, "names", lambda store: sorted({each.name for each in known}))
    monkeypatch.setattr(registry, "versions_of", lambda name, store: [each for each in known if each.name == name])
    return known


def test_versions_are_sorted_by_what_they_do_with_the_champions_first(registered: list[Version]) -> None:
    registered += [
        version("aardvark", 1, "style"),
        version("ink", 1, "style", "champion"),
        version("ink", 2, "style"),
        version("ink", 3, "style", "candidate"),
        version("toon", 1, "dualstyle", "champion", "candidate"),
        version("faces", 1, None, "champion"),
        version("other", 1, "something-else"),
    ]
    found = choices(STORE)
    assert [each.uri for each in found.stylists] == [
        "models:/ink/1",
        "models:/toon/1",
        "models:/ink/3",
        "models:/aardvark/1",
        "models:/ink/2",
    ]
    assert [each.label for each in found.stylists[:3]] == ["ink 1 (champion)", "toon 1 (champion)", "ink 3 (candidate)"]
    assert [each.uri for each in found.movers] == ["models:/faces/1"]


@pytest.mark.parametrize(("family", "missing"), [("style", "a motion model"), (None, "a style model")])
def test_a_kind_that_is_missing_is_named(registered: list[Version], family: str | None, missing: str) -> None:
    registered.append(version("lone", 1, family, "champion"))
    with pytest.raises(TrackingError, match=f"hold {missing} .*inkmotion run"):
        choices(STORE)


def test_samples_are_those_of_the_kind(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in sample_media(tmp_path, (".jpg",))] == ["a.JPG", "b.jpg"]
    assert sample_media(tmp_path / "absent", (".jpg",)) == ()


def test_two_who_ask_at_once_share_one_model() -> None:
    opened: list[str] = []

    def open_slowly(uri: str) -> object:
        opened.append(uri)
        time.sleep(0.05)
        return object()

    kept, got = Kept(open_slowly), list[object]()
    threads = [threading.Thread(target=lambda: got.append(kept.get("one"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["one"]
    assert len(set(map(id, got))) == 1


def test_the_model_used_longest_ago_makes_room() -> None:
    opened: list[str] = []
    kept = Kept(lambda uri: opened.append(uri) or uri, at_most=2)
    for uri in ("a", "b", "a", "c", "a", "b"):
        assert kept.get(uri) == uri
    assert opened == ["a", "b", "c", "b"]


def test_a_model_that_could_not_be_opened_is_tried_again() -> None:
    answers = iter([TrackingError("away"), None])

    def open_late(uri: str) -> str:
        if error := next(answers):
            raise error
        return uri

    kept = Kept(open_late)
    with pytest.raises(TrackingError):
        kept.get("a")
    assert kept.get("a") == "a"
