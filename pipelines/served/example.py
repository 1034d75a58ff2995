"""What goes into a registered model and comes out: its signature, and an input that shows the shapes."""

from __future__ import annotations

from typing import Any

import numpy as np


def motion_signature() -> Any:
    """Input, output and options of a served motion model."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import DataType

    frames = (-1, -1, -1, 3)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), frames, name) for name in ("source", "driving")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), frames)]),
        params=ParamSchema(
            [
                ParamSpec("mode", DataType.string, "relative"),
                ParamSpec("relative", DataType.boolean, True),
                ParamSpec("adapt_scale", DataType.boolean, False),
                ParamSpec("find_best_frame", DataType.boolean, False),
                ParamSpec("smoothing", DataType.double, 0.0),
            ]
        ),
    )


def style_signature() -> Any:
    """Input, output and options of a served stylising model."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import DataType

    pictures = (-1, -1, -1, 3)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), pictures, "photo")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), pictures)]),
        params=ParamSchema([ParamSpec("strength", DataType.double, 1.0), ParamSpec("tile_px", DataType.long, 0)]),
    )


def dualstyle_signature() -> Any:
    """Input, output and options of a served DualStyleGAN."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import DataType

    pictures = (-1, -1, -1, 3)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), pictures, "photo")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), pictures)]),
        params=ParamSchema(
            [
                ParamSpec("style", DataType.string, ""),
                ParamSpec("structure", DataType.double, 0.75),
                ParamSpec("colour", DataType.double, 1.0),
                ParamSpec("output", DataType.string, "style"),
                ParamSpec("psi", DataType.double, 1.0),
            ]
        ),
    )


def system_signature() -> Any:
    """Input, output and options of a served system: those of both its models."""
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, Schema, TensorSpec

    frames, style, motion = (-1, -1, -1, 3), dualstyle_signature(), motion_signature()
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), frames, name) for name in ("photo", "driving")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), frames)]),
        params=ParamSchema([*style.params.params, *motion.params.params]),
    )


def motion_example() -> dict[str, Any]:
    """A picture and a video of two frames, of the smallest size that shows the shapes."""
    ramp = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)
    return {"source": ramp[:1], "driving": ramp}


def style_example() -> dict[str, Any]:
    """Two photos of the smallest size that shows the shapes."""
    return {"photo": np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)}


def dualstyle_example() -> dict[str, Any]:
    """Two faces of the smallest size that shows the shapes."""
    return style_example()


def system_example() -> dict[str, Any]:
    """A face and a video of two frames, of the smallest size that shows the shapes."""
    moved = motion_example()
    return {"photo": moved["source"], "driving": moved["driving"]}
