"""Makes films out of the sample pictures, and knows of every frame what it is.

Shots move over photos and paintings (pan and zoom); they follow each other by cuts, dissolves and fades, with black
stretches, title cards, a flash, shots that come again, a blurred stretch, a dark shot, and rolling credits at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from preprocessing.boxes import Box, between, iou
from preprocessing.video import read_picture, write_video

FPS = 24
What = Literal["scene", "black", "flat", "title", "credits", "transition", "flash", "blurred"]
NAMES = ("Ada Byron", "Émile Cohl", "Lotte Reiniger", "Xu Jingda", "Te Wei", "Qian Jiajun", "Winsor McCay", "J. Stuart")
WORK = ("Written by", "Directed by", "Pictures", "Camera", "Music", "Sound", "Editor", "Thanks to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """One frame."""

    what: What
    shot: int = -1
    """Number of the shot, of scenes only."""
    picture: str = ""
    view: Box = Box(0, 0, 0, 0)
    """Part of the picture that the largest square inside the bars shows."""


@dataclass(slots=True, kw_only=True)
class Film:
    """A made film, in memory, with the truth."""

    size: tuple[int, int]
    inner: Box
    """What is not a bar."""
    seed: int
    truths: list[Truth] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    """First frames behind hard cuts."""
    blends: list[tuple[int, int]] = field(default_factory=list)
    """First frame, and first frame behind, of dissolves and fades."""
    _shots: int = 0

    @property
    def num_shots(self) -> int:
        """Numbers of shots go from 0 to this."""
        return self._shots

    def add(self, frames: list[np.ndarray], truths: list[Truth], *, dissolve: int = 0, cut: bool = True) -> None:
        """Append a stretch, by a cut or over so many frames of what was last."""
        start = len(self.frames)
        if dissolve:
            shares = (np.arange(dissolve) + 1) / (dissolve + 1)
            for share, old, new in zip(shares, range(start - dissolve, start), range(dissolve), strict=True):
                mixed = (1 - share) * self.frames[old] + share * frames[new]
                self.frames[old], self.truths[old] = mixed.astype(np.uint8), Truth(what="transition")
            self.blends.append((start - dissolve, start))
        elif start and cut:
            self.cuts.append(start)
        self.frames += frames[dissolve:]
        self.truths += truths[dissolve:]

    def shot(self, picture: Path, length: int, *, dissolve: int = 0, again: bool = False, light: float = 1.0) -> None:
        """A move over a picture. ``again``: exactly as it was shown before, but for the light and the grain."""
        rng = np.random.default_rng([self.seed, *picture.name.encode()])
        grain = np.random.default_rng([self.seed, len(self.frames)])
        image = _loaded(picture)
        aspect = self.inner.width / self.inner.height
        ways = _way(rng, image.shape[1], image.shape[0], aspect)
        image = cv2.GaussianBlur(image, (0, 0), max(0.3, 0.4 * ways[0].width / self.inner.width))
        frames, truths = [], []
        for share in np.linspace(0, 1, length):
            view = between(*ways, share)
            frames.append(self._framed(_seen(image, view, self.inner), light, grain))
            side, middle = min(view.width, view.height), ((view.left + view.right) / 2, (view.top + view.bottom) / 2)
            square = Box(*(part - side / 2 for part in middle), *(part + side / 2 for part in middle))
            truths.append(Truth(what="scene", shot=self._shots, picture=picture.name, view=square))
        self._shots += 1
        self.add(frames, truths, dissolve=dissolve)

    def plain(self, length: int, value: int, what: What, *, dissolve: int = 0) -> None:
        """One colour; dissolving into black is a fade."""
        grain = np.random.default_rng([self.seed, len(self.frames)])
        shape = (round(self.inner.height), round(self.inner.width), 3)
        frames = [self._framed(np.full(shape, value, np.float32), 1.0, grain) for _ in range(length)]
        self.add(frames, [Truth(what=what)] * length, dissolve=dissolve)

    def title(self, lines: tuple[str, ...], length: int, *, ground: tuple[int, ...], ink: tuple[int, ...]) -> None:
        """A still card."""
        grain = np.random.default_rng([self.seed, len(self.frames)])
        card = Image.new("RGB", (round(self.inner.width), round(self.inner.height)), ground)
        tall = round(self.inner.height / 8)
        for number, line in enumerate(lines):
            top = card.height / 2 + (number - len(lines) / 2) * 1.6 * tall
            ImageDraw.Draw(card).text((card.width / 2, top), line, fill=ink, font=_font(tall), anchor="ma")
        frames = [self._framed(np.asarray(card, np.float32), 1.0, grain) for _ in range(length)]
        self.add(frames, [Truth(what="title")] * length)

    def credits(self, length: int, *, pixels: float) -> None:
        """Text that rolls up on black, so many pixels a frame."""
        grain = np.random.default_rng([self.seed, len(self.frames)])
        width, height = round(self.inner.width), round(self.inner.height)
        tall = max(9, round(height / 13))
        roll = Image.new("RGB", (width, round(2 * height + length * pixels)), (0, 0, 0))
        for number, top in enumerate(range(height, roll.height - height, 2 * tall)):
            draw = ImageDraw.Draw(roll)
            draw.text((width * 0.47, top), WORK[number % 8], fill=(190, 190, 190), font=_font(tall), anchor="ra")
            draw.text((width * 0.53, top), NAMES[number % 8], fill=(255, 255, 255), font=_font(tall), anchor="la")
        whole = np.asarray(roll, np.float32)
        tops = [round(number * pixels) for number in range(length)]
        frames = [self._framed(whole[top : top + height], 1.0, grain) for top in tops]
        truths = [Truth(what="credits" if whole[top : top + height].max() > 0 else "black") for top in tops]
        self.add(frames, truths, cut=False)

    def flash(self, before_last: int, length: int) -> None:
        """Make some frames of the last shot nearly white."""
        for number in range(len(self.frames) - before_last, len(self.frames) - before_last + length):
            top, bottom = round(self.inner.top), round(self.inner.bottom)
            white = self.frames[number].astype(np.float32)
            white[top:bottom] = 235 + white[top:bottom] * 0.07
            self.frames[number], self.truths[number] = white.astype(np.uint8), Truth(what="flash")

    def blur(self, before_last: int, length: int) -> None:
        """Smear some frames of the last shot, as a fast move of the camera does."""
        top, bottom, left, right = (round(side) for side in (*self.inner[1::2], *self.inner[::2]))
        for number in range(len(self.frames) - before_last, len(self.frames) - before_last + length):
            frame = self.frames[number].copy()
            frame[top:bottom, left:right] = cv2.blur(frame[top:bottom, left:right], (self.size[0] // 16, 1))
            self.frames[number], self.truths[number] = frame, Truth(what="blurred")

    def write(self, path: Path) -> Path:
        """As an mp4 with visible compression."""
        write_video(path, self.frames, fps=FPS, crf=24)
        return path

    def _framed(self, picture: np.ndarray, light: float, grain: np.random.Generator) -> np.ndarray:
        """A picture with film grain, between its bars."""
        noise = grain.normal(0, 2.0, picture.shape[:2])[..., None]
        frame = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        top, left = round(self.inner.top), round(self.inner.left)
        lit = np.clip(picture * light + noise, 0, 255).astype(np.uint8)
        frame[top : top + lit.shape[0], left : left + lit.shape[1]] = lit
        return frame


@cache
def _loaded(picture: Path) -> np.ndarray:
    return read_picture(picture)


@cache
def _font(tall: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(tall)


def _way(rng: np.random.Generator, width: int, height: int, aspect: float) -> tuple[Box, Box]:
    """What is seen of a picture first and last, each 70 to 95 % of what fits; one move in four is fast."""
    first, last = (_window(rng, width, height, aspect) for _ in range(2))
    return first, last if rng.random() < 0.25 else between(first, last, 0.3)


def _window(rng: np.random.Generator, width: int, height: int, aspect: float) -> Box:
    wide = min(width, height * aspect) * rng.uniform(0.7, 0.95)
    left, top = rng.uniform(0, width - wide), rng.uniform(0, height - wide / aspect)
    return Box(left, top, left + wide, top + wide / aspect)


def _seen(image: np.ndarray, view: Box, inner: Box) -> np.ndarray:
    scale = view.width / inner.width
    matrix = np.array([[scale, 0, view.left], [0, scale, view.top]], np.float32)
    size = (round(inner.width), round(inner.height))
    return cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
    ).astype(np.float32)


def same_view(one: Truth, other: Truth, least: float = 0.95) -> bool:
    """Whether two frames show nearly the same part of a picture (overlap over union; 0.95: a shift by 2.5 %)."""
    return one.picture == other.picture and iou(one.view, other.view) >= least


def feature(samples: Path, *, seed: int = 0, size: tuple[int, int] = (320, 180), inner: Box | None = None) -> Film:
    """A film of some 700 frames with everything in it.

    Args:
        samples: folder of the sample media.
        seed: of the order of pictures, lengths and moves.
        size: of the frames.
        inner: what is not a bar; the whole frame where None.
    """
    rng = np.random.default_rng(seed)
    pictures = sorted([*(samples / "photos").glob("*.jpg"), *(samples / "paintings").glob("*.jpg")])
    pictures = [pictures[place] for place in rng.permutation(len(pictures))][:26]
    film = Film(size=size, inner=inner or Box(0.0, 0.0, float(size[0]), float(size[1])), seed=seed)

    def length() -> int:
        return int(rng.integers(18, 32))

    film.plain(14, 0, "black")
    film.title(("THE OLD POND", "a film in ink"), 30, ground=(8, 8, 10), ink=(235, 230, 215))
    film.shot(pictures[0], length())
    for picture in pictures[1:5]:
        film.shot(picture, length())
    film.shot(pictures[5], length() + 30, dissolve=12)
    film.shot(pictures[6], length() + 20, dissolve=18)
    film.shot(pictures[7], length())
    film.flash(12, 2)
    film.plain(20, 0, "black", dissolve=10)
    film.shot(pictures[8], length() + 12, dissolve=10)
    film.title(("Part Two",), 26, ground=(225, 218, 200), ink=(30, 20, 20))
    for picture in pictures[9:14]:
        film.shot(picture, length())
    film.shot(pictures[2], 20, again=True, light=0.9)
    film.shot(pictures[14], length() + 8)
    film.blur(16, 8)
    film.shot(pictures[15], length(), light=0.3)
    film.plain(10, 128, "flat")
    for picture in pictures[16:21]:
        film.shot(picture, length())
    film.shot(pictures[7], 20, again=True, light=1.1)
    film.shot(pictures[21], length() + 8, dissolve=8)
    film.plain(8, 0, "black")
    for picture in pictures[22:]:
        film.shot(picture, length())
    film.plain(16, 0, "black", dissolve=12)
    film.credits(70, pixels=1.5)
    return film
