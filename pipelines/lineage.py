"""Where a training comes from: the commit, what differs from it, and DVC's checksums of its data."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import yaml

GIT_TIMEOUT_S = 20.0


def git_tags(root: Path) -> dict[str, str]:
    """Commit of the checkout and, when files differ from it, the difference's sha256; empty outside git."""
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return {}
    changes = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--", ".", ":!dvc.lock")
    tags = {"git.commit": commit.decode().strip(), "git.dirty": str(bool(changes)).lower()}
    if changes:
        tags["git.diff_sha256"] = hashlib.sha256(changes).hexdigest()
    return tags


def data_tags(root: Path, *folders: Path) -> dict[str, str]:
    """``dvc.<folder>`` -> DVC's checksum, out of dvc.lock, of each folder that a stage has made."""
    try:
        lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    wanted = {folder.relative_to(root).as_posix() for folder in folders}
    tags = {}
    for stage in _mapping(_mapping(lock).get("stages")).values():
        outs: Any = _mapping(stage).get("outs")
        for out in outs if isinstance(outs, list) else []:
            if _mapping(out).get("path") in wanted and "md5" in out:
                tags[f"dvc.{out['path']}"] = str(out["md5"])
    return tags


def licence_note(media: Path) -> str:
    """What the README beside a media folder says of its origin and licence: the last cell of the folder's row there."""
    for readme in (media / "README.md", media.parent / "README.md"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in readme.read_text(encoding="utf-8").splitlines():
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                if len(cells) > 1 and cells[0].strip("`/") == media.name:
                    return cells[-1]
    return f"not stated; a row for {media.name}/ in the table of a README.md beside the folder would say it"


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _git(root: Path, *arguments: str) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
