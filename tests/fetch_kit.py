"""What the tests of fetching share."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from fault_server import Fault, FaultServer

from preprocessing.config import FetchConfig
from preprocessing.fetch import Fetched, Fetcher, Wanted
from preprocessing.video_types import MediaError

for _name in ("http_proxy", "https_proxy", "all_proxy"):  # of the machine that runs the tests
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)

DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


class Servers:
    """Starts fault servers that serve ``a.bin``, and closes them."""

    def __init__(self) -> None:
        self._started: list[FaultServer] = []

    def __call__(self, *faults: Fault, data: bytes = DATA, **more: Any) -> FaultServer:
        self._started.append(FaultServer({"a.bin": data}, {"a.bin": list(faults)}, **more))
        return self._started[-1]

    def close(self) -> None:
        for server in self._started:
            server.close()


def fetch(urls: str | tuple[str, ...], target: Path, *, slept: list[float] | None = None, **more: Any) -> Fetched:
    """Fetch one file without ever sleeping; what is over goes to the configuration."""
    urls = (urls,) if isinstance(urls, str) else urls
    wanted = {key: more.pop(key) for key in ("num_bytes", "sha256", "md5", "may_be_text") if key in more}
    on_bytes = more.pop("on_bytes", None)
    waits = slept if slept is not None else []
    with Fetcher(FetchConfig(**more), sleep=waits.append) as fetcher:
        return fetcher.file(Wanted(urls=urls, **wanted), target, on_bytes=on_bytes)


def reason_of(urls: str | tuple[str, ...], target: Path, **more: Any) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(urls, target, **more)
    assert not target.exists()
    return caught.value.reason


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
