"""Archives that nobody vouches for: unpacked whole, or refused with nothing written."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing import fetch_archive
from preprocessing.fetch_archive import ArchiveLimits, is_archive_name, unpack
from preprocessing.video_types import MediaError

Members = list[tuple[str, bytes]]
PACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, 1),
    "tar.bz2": lambda data: bz2.compress(data, 1),
    "tar.xz": lambda data: lzma.compress(data, preset=0),
}
FORMS = ["zip", *PACK]
PLAIN: Members = [("a/one.txt", b"one" * 1000), ("a/b/two.bin", os.urandom(3 << 20)), ("three", b"")]


def tar_bytes(members: Members, change: Callable[[tarfile.TarInfo], None] = lambda info: None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o6777
            change(info)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zip_bytes(members: Members, change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in members:
            info = zipfile.ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | 0o6777) << 16
            change(info)
            opened.writestr(info, data)
    return buffer.getvalue()


def made(folder: Path, form: str, members: Members) -> Path:
    archive = folder / f"archive.{form}"
    archive.write_bytes(zip_bytes(members) if form == "zip" else PACK[form](tar_bytes(members)))
    return archive


def refused(archive: Path, reason: str, *words: str, limits: ArchiveLimits | None = None) -> None:
    target = archive.parent / "target"
    before = sorted(archive.parent.iterdir())
    with pytest.raises(MediaError) as caught:
        unpack(archive, target, limits or fetch_archive.DEFAULT_ARCHIVE_LIMITS)
    assert caught.value.reason == reason, str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(archive.parent.iterdir()) == before  # neither the folder nor a scratch folder


@pytest.mark.parametrize("form", FORMS)
def test_members_arrive_with_plain_modes(tmp_path: Path, form: str) -> None:
    archive, target = made(tmp_path, form, PLAIN), tmp_path / "target"
    old = os.umask(0o077)
    try:
        files = unpack(archive, target)
    finally:
        os.umask(old)
    assert files == [target / "a/b/two.bin", target / "a/one.txt", target / "three"]
    assert {file.relative_to(target).as_posix(): file.read_bytes() for file in files} == dict(PLAIN)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (target, target / "a", target / "a/b")} == {0o755}
    assert sorted(tmp_path.iterdir()) == [archive, target]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "absolute"),
        ("../out", "leads out"),
        ("a/../../out", "leads out"),
        ("a/..", "leads out"),
        ("C:/windows", "drive letter"),
        ("c:x", "drive letter"),
        ("a\\..\\out", "backslash"),
        ("a\nb", "control"),
        ("a\x1b[31m", "control"),
        ("a\x7fb", "control"),
        ("a\u2028b", "control"),
        ("pic\u202egpj.exe", "direction"),
        ("n" * 256, "too long"),
        ("/".join(["p" * 200] * 6), "too long"),
        ("/".join("p" * 40), "deeper"),
        (".", "no name"),
    ],
)
def test_a_name_that_could_do_harm_is_refused_by_name(tmp_path: Path, form: str, name: str, words: str) -> None:
    archive = made(tmp_path, form, [("good.txt", b"good"), (name, b"bad")])
    refused(archive, "unsafe-archive", words, ascii(name[:120])[1:20])


def test_a_nul_in_a_zip_s_name_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "nul.zip"
    archive.write_bytes(zip_bytes([("good.txtQevil.sh", b"x")]).replace(b"txtQ", b"txt\0"))
    refused(archive, "unsafe-archive", "control character", r"\x00")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/x", "a/x"),
        ("a/x", "a/X"),
        ("a/x", "A/y"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00e9", "e\u0301"),
        ("a", "a/x"),
        ("a/x", "a"),
        ("a/x", "./a//x"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_names_that_collide_are_refused(tmp_path: Path, form: str, one: str, other: str) -> None:
    refused(made(tmp_path, form, [(one, b"1"), (other, b"2")]), "unsafe-archive", "each name once")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "pipe"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (tarfile.CONTTYPE, "unknown"),
        (b"Z", "unknown"),
    ],
)
def test_what_is_no_plain_file_in_a_tar_is_refused(tmp_path: Path, kind: bytes, words: str) -> None:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "odd":
            info.type, info.linkname = kind, "/etc/passwd"

    archive = tmp_path / "links.tar"
    archive.write_bytes(tar_bytes([("good", b"1"), ("odd", b"")], change))
    refused(archive, "unsafe-archive", "'odd'", words)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_what_is_no_plain_file_in_a_zip_is_refused(tmp_path: Path, kind: int) -> None:
    archive = tmp_path / "links.zip"
    archive.write_bytes(
        zip_bytes([("odd", b"/etc/passwd")], lambda info: setattr(info, "external_attr", (kind | 0o777) << 16))
    )
    refused(archive, "unsafe-archive", "'odd'", "plain files")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_a_hundred_thousand_files_are_refused(tmp_path: Path, form: str) -> None:
    archive = tmp_path / f"many.{form}"
    if form == "zip":
        with zipfile.ZipFile(archive, "w") as opened:
            for number in range(100_000):
                opened.writestr(zipfile.ZipInfo(f"{number}"), b"")
    else:
        folder = tarfile.TarInfo("folder")  # one and the same: each of 10^5 new ones would take a while to write
        folder.type = tarfile.DIRTYPE
        archive.write_bytes(folder.tobuf() * 100_000 + bytes(1024))
    refused(archive, "unsafe-archive", "99,999")


@pytest.mark.parametrize("form", FORMS)
def test_folders_that_only_paths_name_count_too(tmp_path: Path, form: str) -> None:
    archive = made(tmp_path, form, [("/".join(f"{n}{m}" for m in range(8)), b"") for n in range(10)])
    refused(archive, "unsafe-archive", "at most 79", limits=ArchiveLimits(max_members=79))
    assert len(unpack(archive, tmp_path / "target", ArchiveLimits(max_members=80))) == 10


@pytest.mark.parametrize("form", FORMS[:1] + FORMS[2:])
def test_a_bomb_is_refused(tmp_path: Path, form: str) -> None:
    archive = made(tmp_path, form, [("zeros", bytes(40 << 20))])
    refused(archive, "unsafe-archive", "times when it is unpacked")


@pytest.mark.parametrize("form", FORMS)
def test_too_many_bytes_are_refused_whatever_their_ratio(tmp_path: Path, form: str) -> None:
    archive = made(tmp_path, form, PLAIN)
    refused(archive, "unsafe-archive", "unpack to at most", limits=ArchiveLimits(max_bytes=3 << 20))


def test_a_zip_whose_headers_lie_about_a_bomb_gives_no_more_than_they_say(tmp_path: Path) -> None:
    data = bytearray(zip_bytes([("zeros", bytes(40 << 20))]))
    size = struct.pack("<L", 40 << 20)
    assert data.count(size) == 2
    archive = tmp_path / "liar.zip"
    archive.write_bytes(data.replace(size, struct.pack("<L", 1000)))
    refused(archive, "unreadable")


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    data = bytearray(zip_bytes([("a", os.urandom(5000)), ("b", b"y")]))
    place = data.rindex(b"PK\x01\x02")
    data[place + 42 : place + 46] = struct.pack("<L", 100)  # of the second member's header
    archive = tmp_path / "overlap.zip"
    archive.write_bytes(data)
    refused(archive, "unsafe-archive", "one after the other")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    data = zip_bytes([("secret.mp4", b"x")])
    place = data.rindex(b"PK\x01\x02")
    archive = tmp_path / "secret.zip"
    archive.write_bytes(data[: place + 8] + b"\x01" + data[place + 9 :])
    refused(archive, "unsafe-archive", "'secret.mp4'", "encrypted")


def test_a_zip_s_method_that_is_not_bounded_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "lzma.zip"
    archive.write_bytes(zip_bytes([("a", b"x" * 999)], lambda info: setattr(info, "compress_type", zipfile.ZIP_LZMA)))
    refused(archive, "unsupported", "method 14")


def test_headers_of_a_tar_are_not_read_into_memory_whole(tmp_path: Path) -> None:
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 20
    archive = tmp_path / "long.tar"
    archive.write_bytes(long.tobuf(tarfile.GNU_FORMAT) + b"n" * (1 << 20) + bytes(1024))
    refused(archive, "unsafe-archive", "bytes of headers")


def test_a_header_that_makes_a_pattern_run_for_hours_is_refused(tmp_path: Path) -> None:
    extended = tarfile.TarInfo("pax")
    extended.type, extended.size = tarfile.XHDTYPE, 60 << 10
    archive = tmp_path / "digits.tar"
    archive.write_bytes(extended.tobuf(tarfile.USTAR_FORMAT) + b"1" * (60 << 10) + bytes(1024))
    refused(archive, "unsafe-archive", "32 digits")


def test_a_size_below_nothing_is_refused(tmp_path: Path) -> None:
    block = bytearray(tarfile.TarInfo("a").tobuf())
    block[124:136] = b"\xff" * 11 + b"\x00"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    archive = tmp_path / "negative.tar"
    archive.write_bytes(bytes(block) * 3 + bytes(1024))
    refused(archive, "unsafe-archive", "-256 bytes")


def test_an_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = lzma.compress(tar_bytes(PLAIN[:1]), lzma.FORMAT_XZ, filters=filters)
    head = bytearray(data[12:24])  # the first block's header: size, flags, filter, length of its settings, dictionary
    assert head[2:4] == b"\x21\x01"
    head[4] = 38  # 2 GiB
    head[8:] = struct.pack("<L", __import__("zlib").crc32(bytes(head[:8])))
    archive = tmp_path / "memory.tar.xz"
    archive.write_bytes(data[:12] + head + data[24:])
    refused(archive, "unsafe-archive", "256 MiB")


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_cut_at_any_place_is_never_taken(tmp_path: Path, form: str) -> None:
    whole = made(tmp_path, form, [("a", os.urandom(2000)), ("b", b"x" * 3000), ("c", b"")]).read_bytes()
    archive = tmp_path / f"archive.{form}"
    padding = len(whole) - len(whole.rstrip(b"\0")) if form == "tar" else 0
    for end in [*range(600, len(whole) - padding, 97), len(whole) - padding - 1]:
        archive.write_bytes(whole[:end])
        refused(archive, "truncated")


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=30, deadline=None)
@given(place=st.integers(0, 4000), flip=st.integers(1, 255))
def test_a_flipped_byte_gives_an_error_in_words_or_whole_files(form: str, place: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = made(folder, form, [("a", bytes(range(256)) * 6), ("b/c", b"x" * 900)])
        data = bytearray(archive.read_bytes())
        data[place % len(data)] ^= flip
        archive.write_bytes(data)
        try:
            files = unpack(archive, folder / "target")
        except MediaError:
            assert list(folder.iterdir()) == [archive]
        else:
            assert all(file.is_file() and not file.is_symlink() for file in files)


def test_a_tar_without_its_end_is_truncated(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes([("a", b"x" * 512)])[:1024])  # cut exactly after the member
    refused(archive, "truncated", "ends early")


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", "empty", "empty file"),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "not-media", "web page"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "unsupported", "Zstandard"),
        (b"Rar!\x1a\x07\x01\x00", "unsupported", "RAR"),
        (b"\x80\x02}q\x00.", "unsupported", "PyTorch checkpoint"),
        (
            zip_bytes([("archive/data.pkl", b"\x80\x02}."), ("archive/data/0", b"w")]),
            "unsupported",
            "PyTorch checkpoint",
        ),
        (gzip.compress(b"a,b\n" * 999, mtime=0), "unsupported", "tar inside"),
        (b"words " * 200, "unsupported", "something else"),
        (zip_bytes([]), "empty", "hold files"),
        (bytes(10240), "empty", "hold files"),
    ],
)
def test_what_is_no_archive_is_told_so_in_words(tmp_path: Path, data: bytes, reason: str, words: str) -> None:
    archive = tmp_path / "vox-adv-cpk.pth.tar"
    archive.write_bytes(data)
    refused(archive, reason, words, archive.name)


def test_names_of_archives() -> None:
    assert is_archive_name("Hayao.tar.gz")
    assert is_archive_name("dataset.ZIP")
    assert not is_archive_name("vox-adv-cpk.pth.tar")
    assert not is_archive_name("film.mp4")


def test_no_archive_at_all(tmp_path: Path) -> None:
    refused(tmp_path / "nothing.zip", "missing")
    refused(tmp_path, "unreadable")


def test_a_second_archive_joins_the_first(tmp_path: Path) -> None:
    target = tmp_path / "target"
    archive = made(tmp_path, "zip", [("a/1", b"1"), ("b/2", b"2")])
    unpack(archive, target)
    (target / "a/1").chmod(0o600)
    assert unpack(archive, target) == [target / "a/1", target / "b/2"]  # again: the same
    other = made(tmp_path, "tar", [("a/3", b"3"), ("c/4", b"4")])
    unpack(other, target)
    assert sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()) == [
        "a/1",
        "a/3",
        "b/2",
        "c/4",
    ]


def test_a_file_of_other_content_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (target / "a").mkdir(parents=True)
    (target / "a/1").write_bytes(b"mine")
    archive = made(tmp_path, "zip", [("a/0", b"0"), ("a/1", b"1"), ("z", b"z")])
    with pytest.raises(MediaError, match="replace nothing"):
        unpack(archive, target)
    assert [p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()] == ["a/1"]
    assert (target / "a/1").read_bytes() == b"mine"


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "a").symlink_to(outside)
    with pytest.raises(MediaError, match="replace nothing"):
        unpack(made(tmp_path, "zip", [("a/1", b"1")]), target)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
def test_a_kill_at_any_moment_leaves_nothing_half(tmp_path: Path, form: str) -> None:
    archive, target = made(tmp_path, form, PLAIN), tmp_path / "target"
    code = (
        "import os, sys, itertools\n"
        "from pathlib import Path\n"
        "from preprocessing import fetch_archive, fetch_archive_types\n"
        "left = itertools.count(int(sys.argv[3]), -1)\n"
        "def hook(event, args):\n"
        "    if event in ('open', 'os.mkdir', 'os.rename', 'os.chmod') and next(left) <= 0: os._exit(9)\n"
        "archive, target = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "sys.addaudithook(hook)\n"
        "fetch_archive.unpack(archive, target)\n"
    )
    killed = 0
    for moment in range(1, 40):
        done = subprocess.run([sys.executable, "-c", code, archive, target, str(moment)], check=False)
        if done.returncode == 0:
            break
        assert done.returncode == 9
        killed += 1
        assert not target.exists()
    assert killed >= 8
    assert {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()} == dict(PLAIN)
    assert sorted(tmp_path.iterdir()) == [archive, target]


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(
        st.text(alphabet=st.sampled_from("aAb./\\:é\u0301\n\u202e\x00~ -"), min_size=1, max_size=9),
        min_size=1,
        max_size=4,
    ),
    form=st.sampled_from(["zip", "tar"]),
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_whatever_the_names_nothing_lands_outside(names: list[str], form: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "inner"
        folder.mkdir()
        archive = made(folder, form, [(text, text.encode()) for text in names])
        try:
            files = unpack(archive, folder / "target")
        except MediaError:
            assert list(folder.iterdir()) == [archive]
        else:
            below = [p for p in (folder / "target").rglob("*") if p.is_file()]
            assert sorted(files) == sorted(below)
            folded = [unicodedata.normalize("NFC", str(p)).casefold() for p in below]
            assert len(set(folded)) == len(folded)
            assert sorted(folder.iterdir()) == [archive, folder / "target"]
        assert list(Path(name).iterdir()) == [folder]
