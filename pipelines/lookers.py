"""The networks that look at frames for AKD, MKR and AED: faces and bodies, their points and their identities.

A frame of any size is scaled to `FRAME_PX` first (area average down, bicubic up), because figures are in pixels of such
frames; so a small frame is enlarged, and its points are as exact as its pixels allow.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from models.errors import EnvironmentProblem, must
from preprocessing.boxes import Box
from training.metrics.akd_mkr import FRAME_PX

_VISIBLE = 0.5
"""A joint of BlazePose counts as found at this visibility."""
_COCO_OF_BLAZEPOSE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""Nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left first."""
_SURE_PERSON, _SURE_JOINT = 0.9, 2.0
"""Of Keypoint R-CNN, as the public script that cut TaiChiHD takes them."""
_CHIP_PADDING = 0.25
_IMAGENET = (np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32))


class Subject(NamedTuple):
    """Who was found in a frame."""

    points: np.ndarray
    """(K, 2) in pixels, NaN where a point was not found."""
    box: Box


class Seen(NamedTuple):
    """What was found in N frames."""

    points: np.ndarray
    """(N, K, 2) in pixels at `FRAME_PX`, NaN where not found."""
    identity: np.ndarray | None
    """(N, D), NaN where nobody was found; None: no network of identities."""


class Find(Protocol):
    """Finds the subject of a frame, uint8 RGB (FRAME_PX, FRAME_PX, 3)."""

    num_points: int

    def __call__(self, frame: np.ndarray) -> Subject | None:
        """None: nobody is there."""


class Embed(Protocol):
    """Gives a subject's identity."""

    num_dims: int

    def __call__(self, frame: np.ndarray, subject: Subject) -> np.ndarray:
        """(D,)."""


class Looker:
    """Looks at frames, one by one.

    Args:
        find: of points.
        embed: of identities; None: they are not asked for.
    """

    def __init__(self, find: Find, embed: Embed | None) -> None:
        self._find, self._embed = find, embed

    def look(self, frames: np.ndarray) -> Seen:
        """Points and identities in frames, uint8 RGB (N, H, W, 3) of any size."""
        points = np.full((len(frames), self._find.num_points, 2), np.nan)
        identity = None if self._embed is None else np.full((len(frames), self._embed.num_dims), np.nan)
        for place, frame in enumerate(fitted(frames)):
            subject = self._find(frame)
            if subject is None:
                continue
            points[place] = subject.points
            if identity is not None and self._embed is not None:
                identity[place] = self._embed(frame, subject)
        return Seen(points, identity)


def fitted(frames: np.ndarray) -> np.ndarray:
    """Frames scaled to `FRAME_PX`, uint8."""
    if frames.shape[1:3] == (FRAME_PX, FRAME_PX):
        return frames
    kernel = cv2.INTER_AREA if frames.shape[1] > FRAME_PX else cv2.INTER_CUBIC
    scaled = np.empty((len(frames), FRAME_PX, FRAME_PX, 3), np.uint8)
    for place, frame in enumerate(frames):
        scaled[place] = cv2.resize(frame, (FRAME_PX, FRAME_PX), interpolation=kernel)
    return scaled


class DlibPoints:
    """The largest face that dlib's HOG detector finds, and its 68 points."""

    num_points = 68

    def __call__(self, frame: np.ndarray) -> Subject | None:
        """See `Find`."""
        from preprocessing.detect import faces
        from preprocessing.landmarks import landmarks68

        found = faces(frame)
        return Subject(landmarks68(frame, found[0]), found[0]) if found else None


def dlib_points(_landmarks: Path) -> Find:
    """`preprocessing.landmarks` loads the file by itself."""
    return DlibPoints()


class DlibIdentity:
    """dlib's ResNet for faces, without jitter."""

    num_dims = 128

    def __init__(self, weights: Path) -> None:
        import dlib

        self._network = dlib.face_recognition_model_v1(str(weights))

    def __call__(self, frame: np.ndarray, subject: Subject) -> np.ndarray:
        """See `Embed`."""
        return np.array(self._network.compute_face_descriptor(frame, _parts(subject)))


def dlib_identity(weights: Path) -> Embed:
    """128 numbers; the network turns and scales the face by its points."""
    return DlibIdentity(weights)


class PosePoints:
    """The largest person that BlazePose finds, as COCO's 17 joints."""

    num_points = len(_COCO_OF_BLAZEPOSE)

    def __init__(self, folder: Path) -> None:
        from preprocessing.pose import PoseDetector

        self._detector = PoseDetector(folder)

    def __call__(self, frame: np.ndarray) -> Subject | None:
        """See `Find`."""
        persons = self._detector.keypoints(frame)
        if not persons:
            return None
        joints = persons[0].keypoints[list(_COCO_OF_BLAZEPOSE)]
        points = np.where(joints[:, 2:] >= _VISIBLE, joints[:, :2], np.nan)
        return Subject(points, persons[0].box) if not np.isnan(points).all() else None


def pose_points(detection: Path, _landmarks: Path) -> Find:
    """Both files lie in one folder."""
    return PosePoints(detection.parent.parent)


class FanPoints:
    """face-alignment: the surest face that S3FD finds, and the 68 points that a 2D FAN-4 sees on it."""

    num_points = 68

    def __init__(self, detector: Path, landmarks: Path) -> None:
        import torch

        with _hub(landmarks.parent.parent):  # it looks for the file there, and would download it otherwise
            package = importlib.import_module("face_alignment")
            self._network = package.FaceAlignment(
                package.LandmarksType.TWO_D,
                device="cuda" if torch.cuda.is_available() else "cpu",
                face_detector_kwargs={"path_to_detector": str(detector)},
                compile=False,
            )

    def __call__(self, frame: np.ndarray) -> Subject | None:
        """See `Find`."""
        boxes = self._network.face_detector.detect_from_image(frame.copy())
        if len(boxes) == 0:
            return None
        surest = max(boxes, key=lambda box: float(box[-1]))
        points = self._network.get_landmarks_from_image(frame, detected_faces=[np.asarray(surest)])
        return Subject(np.asarray(points[0], np.float64)[:, :2], Box(*(float(side) for side in surest[:4])))


def fan_points(detector: Path, landmarks: Path) -> Find:
    """On a GPU where there is one.

    Raises:
        EnvironmentProblem: a file holds other weights.
    """
    try:
        return FanPoints(detector, landmarks)
    except Exception as error:  # what is no archive of tensors raises many kinds
        raise _no_network(detector.parent, error) from error


class RcnnPoints:
    """torchvision's Keypoint R-CNN: the surest person's 17 joints."""

    num_points = 17

    def __init__(self, weights: Path) -> None:
        import torch

        from pipelines.torchvision_here import torchvision

        models = torchvision().models.detection
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = models.keypointrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, box_score_thresh=_SURE_PERSON, box_detections_per_img=8
        )
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self._network = network.eval().to(self._device)

    def __call__(self, frame: np.ndarray) -> Subject | None:
        """See `Find`."""
        import torch

        with torch.inference_mode():
            picture = torch.from_numpy(frame.transpose(2, 0, 1).copy()).to(self._device).float() / 255
            found = {name: values.cpu().numpy() for name, values in self._network([picture])[0].items()}
        if not len(found["scores"]):
            return None
        sure = found["keypoints_scores"][0] >= _SURE_JOINT
        points = np.where(sure[:, None], found["keypoints"][0, :, :2].astype(np.float64), np.nan)
        return Subject(points, Box(*map(float, found["boxes"][0]))) if sure.any() else None


def rcnn_points(weights: Path) -> Find:
    """On a GPU where there is one; seconds a frame without.

    Raises:
        EnvironmentProblem: the file holds other weights.
    """
    try:
        return RcnnPoints(weights)
    except Exception as error:  # what is no archive of tensors raises many kinds
        raise _no_network(weights, error) from error


class OnnxNetwork:
    """A user's network: one picture in, (1, 3, H, W) float32; its first output is the embedding."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            entry = self._session.get_inputs()[0]
            self._name, shape = entry.name, entry.shape
            self.height_px, self.width_px = int(shape[2]), int(shape[3])
            self.num_dims = len(self.run(np.zeros((self.height_px, self.width_px, 3), np.float32)))
        except Exception as error:  # ONNX Runtime's errors share no class of their own
            raise _no_network(
                path, error, "take (1, 3, H, W) float32 pictures of a fixed size and give one embedding"
            ) from error

    def run(self, picture: np.ndarray) -> np.ndarray:
        """The embedding, (D,), of a picture (H, W, 3), float32."""
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
        return np.asarray(self._session.run(None, {self._name: planes})[0], np.float64).reshape(-1)


class OnnxFaceIdentity:
    """The face, turned upright and cut out as dlib does it, at the network's size."""

    def __init__(self, path: Path) -> None:
        self._network = OnnxNetwork(path)
        self.num_dims = self._network.num_dims

    def __call__(self, frame: np.ndarray, subject: Subject) -> np.ndarray:
        """See `Embed`."""
        import dlib

        side = max(self._network.height_px, self._network.width_px)
        chip = dlib.get_face_chip(frame, _parts(subject), size=side, padding=_CHIP_PADDING)
        picture = cv2.resize(chip, (self._network.width_px, self._network.height_px), interpolation=cv2.INTER_AREA)
        return self._network.run(picture.astype(np.float32) / 255)


def onnx_face_identity(path: Path) -> Embed:
    """Raises `EnvironmentProblem` where the file is no such network."""
    return OnnxFaceIdentity(path)


class OnnxBodyIdentity:
    """A person's box, scaled to the network's size, normalised by ImageNet's mean and deviation."""

    def __init__(self, path: Path) -> None:
        self._network = OnnxNetwork(path)
        self.num_dims = self._network.num_dims

    def __call__(self, frame: np.ndarray, subject: Subject) -> np.ndarray:
        """See `Embed`."""
        left, top, right, bottom = subject.box.within((frame.shape[1], frame.shape[0]))
        rows = slice(int(top), max(int(np.ceil(bottom)), int(top) + 1))
        columns = slice(int(left), max(int(np.ceil(right)), int(left) + 1))
        size = (self._network.width_px, self._network.height_px)
        picture = cv2.resize(frame[rows, columns], size, interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        return self._network.run((picture - _IMAGENET[0]) / _IMAGENET[1])


def onnx_body_identity(path: Path) -> Embed:
    """Raises `EnvironmentProblem` where the file is no such network."""
    return OnnxBodyIdentity(path)


def _parts(subject: Subject) -> Any:
    """A face's 68 points as dlib wants them."""
    import dlib

    left, top, right, bottom = (round(side) for side in subject.box)
    points = [dlib.point(round(float(x)), round(float(y))) for x, y in subject.points]
    return dlib.full_object_detection(dlib.rectangle(left, top, right - 1, bottom - 1), points)


@contextmanager
def _hub(folder: Path) -> Iterator[None]:
    """torch.hub's folder, for the length of the block."""
    import torch

    before = torch.hub.get_dir()
    torch.hub.set_dir(str(folder))
    try:
        yield
    finally:
        torch.hub.set_dir(before)


def _no_network(path: Path, error: Exception, rule: str = "hold the network's weights") -> EnvironmentProblem:
    got = " ".join(str(error).split()).split(". ")[0][:200] or type(error).__name__
    return EnvironmentProblem(must(str(path), rule, got, "Import the right file"))
