"""A web server on loopback that fails as asked: for each path a list of faults, one a request, then good answers.

In one process with the test (`FaultServer`), or in its own (`FaultProcess`, or ``python tests/fault_server.py
--folder DIR --seed 1``), so that a killed client does not take it along. Faults come from a list or a seed; the same
seed gives the same faults. All requests are noted; ``GET /.log`` gives them as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from fault_answers import Handler
from fault_kinds import PASSING, Fault, Kind, Page, Reply, Seen, changed, etag

__all__ = [
    "PASSING",
    "Fault",
    "FaultProcess",
    "FaultServer",
    "Kind",
    "Page",
    "Reply",
    "Seen",
    "changed",
    "etag",
    "seeded",
]


def seeded(
    seed: int, path: str, length: int, *, kinds: Sequence[Kind] = PASSING, most: int = 4, retry_after_s: int = 0
) -> list[Fault]:
    """Up to so many faults for one path, always the same for a seed."""
    draw = random.Random(f"{seed}:{path}")
    found = []
    for _ in range(draw.randint(0, most)):
        kind = draw.choice(list(kinds))
        status = draw.choice([429, 500, 502, 503, 504])
        after = str(retry_after_s) if status in (429, 503) and draw.random() < 0.5 else None
        cut = draw.randint(1, max(1, length - 1))
        found.append(Fault(kind=kind, num_bytes=cut, status=status, retry_after=after))
    return found


class FaultServer:
    """Serves until closed.

    Args:
        files: path -> content, or where it lies.
        faults: path -> faults of its first requests.
        seed: draw faults for paths that `faults` does not name; null: none.
        kinds: what to draw.
        most: faults of one path that are drawn.
        pages: path -> what to answer, for all that is no file.
        hold_for: every request waits until so many were there at once (or 10 s).
    """

    def __init__(
        self,
        files: Mapping[str, bytes | Path],
        faults: Mapping[str, Sequence[Fault]] | None = None,
        *,
        seed: int | None = None,
        kinds: Sequence[Kind] = PASSING,
        most: int = 4,
        pages: Mapping[str, Page] | None = None,
        hold_for: int = 0,
        port: int = 0,
    ) -> None:
        self.files = {_path(path): data for path, data in files.items()}
        self.pages = {_path(path): page for path, page in (pages or {}).items()}
        self._faults = {_path(path): list(row) for path, row in (faults or {}).items()}
        self._seed, self._kinds, self._most, self._hold_for = seed, kinds, most, hold_for
        self._lock, self._counts = threading.Lock(), dict[str, int]()
        self.requests: list[Seen] = []
        self.peak, self._busy = 0, 0
        self.closing, self._peaked = threading.Event(), threading.Event()
        self._sockets: set[socket.socket] = set()
        self._http = _Server(("127.0.0.1", port), type("_Bound", (Handler,), {"owner": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> FaultServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def of(self, path: str) -> str:
        """The address of a file."""
        return self.url + quote(_path(path))

    def seen(self, path: str) -> list[Seen]:
        """The requests for a file, in their order."""
        with self._lock:
            return [seen for seen in self.requests if urlsplit(seen.path).path == _path(path)]

    def close(self) -> None:
        self.closing.set()
        self._peaked.set()
        self._http.shutdown()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._http.server_close()
        self._thread.join(10)

    # What the handlers use.

    def content(self, path: str) -> bytes | None:
        data = self.files.get(path)
        return data.read_bytes() if isinstance(data, Path) else data

    def next_fault(self, path: str, length: int) -> Fault | None:
        with self._lock:
            if path not in self._faults and self._seed is not None:
                self._faults[path] = seeded(self._seed, path, length, kinds=self._kinds, most=self._most)
            row = self._faults.get(path, [])
            index = self._counts[path] = self._counts.get(path, -1) + 1
        if row and row[-1].is_forever:
            index = min(index, len(row) - 1)
        return row[index] if index < len(row) else None

    def enter(self) -> None:
        with self._lock:
            self._busy += 1
            self.peak = max(self.peak, self._busy)
            if self.peak >= self._hold_for:
                self._peaked.set()
        if self._hold_for:
            self._peaked.wait(10)
            self.closing.wait(0.05)  # for any that should not be here

    def leave(self) -> None:
        with self._lock:
            self._busy -= 1

    def note(self, seen: Seen) -> int:
        with self._lock:
            self.requests.append(seen)
            return len(self.requests) - 1

    def amend(self, index: int, *, status: int, sent: int) -> None:
        with self._lock:
            self.requests[index] = replace(self.requests[index], status=status, sent=sent)

    def keep(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    def drop(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)


class FaultProcess:
    """The same in a process of its own, over the files of a folder.

    Args:
        folder: its files are served by their paths below it.
        seed: of the faults; null: none.
        faults: path -> faults, as for `FaultServer`.
        kinds: what to draw.
        most: faults of one path that are drawn.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int | None = None,
        faults: Mapping[str, Sequence[Fault]] | None = None,
        kinds: Sequence[Kind] = PASSING,
        most: int = 4,
    ) -> None:
        known = {path: [asdict(fault) for fault in row] for path, row in (faults or {}).items()}
        command = [sys.executable, str(Path(__file__)), "--folder", str(folder), "--most", str(most)]
        command += ["--kinds", ",".join(kinds), "--faults", json.dumps(known)]
        command += [] if seed is None else ["--seed", str(seed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url, "the fault server did not start"

    def __enter__(self) -> FaultProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, path: str) -> str:
        return self.url + quote(_path(path))

    def requests(self) -> list[Seen]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/.log", timeout=30) as answer:
            return [Seen(**row) for row in json.loads(answer.read())]

    def seen(self, path: str) -> list[Seen]:
        return [seen for seen in self.requests() if urlsplit(seen.path).path == _path(path)]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def _path(path: str) -> str:
    return "/" + path.lstrip("/")


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder on loopback, with faults.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--most", type=int, default=4, help="faults of one path")
    parser.add_argument("--kinds", default=",".join(PASSING))
    parser.add_argument("--faults", default="{}", help="JSON: path -> [fault, ...]")
    args = parser.parse_args()
    faults = {path: [Fault(**fault) for fault in row] for path, row in json.loads(args.faults).items()}
    server = FaultServer(
        dict(_below(args.folder)), faults, seed=args.seed, kinds=args.kinds.split(","), most=args.most, port=args.port
    )
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
