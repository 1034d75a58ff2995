"""A DualStyleGAN from its parts to a served version: what it takes in, what it makes, what the measures say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dualstyle_kit import SMALL, exported

from models.errors import CheckpointError, ParamsError
from models.export_face import export_faces
from models.style.face_networks import build_encoder
from pipelines.cartoon_stylist import CartoonStylist
from pipelines.dualstyle_steps import STEPS, experiment_name
from pipelines.evaluate_dualstyle import colour_change, edge_change
from pipelines.face_engines import TorchFaces, from_checkpoint
from pipelines.params import load
from pipelines.register import TOLERANCE
from pipelines.register_dualstyle import compare, write_styles
from pipelines.served.dualstyle import FaceSession, resized
from pipelines.stylist import OUTPUTS
from training.codes import Codes, code_table, write_codes
from training.parts import take_in
from training.recipes import dualstyle, face_gan


def seeded(seed: int) -> None:
    torch.manual_seed(seed)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> TorchFaces:
    """A whole one with random weights and two styles."""
    root = tmp_path_factory.mktemp("system")
    seeded(0)
    networks = dualstyle.build_networks(SMALL)
    for residual in networks["generator"].residuals:  # as training leaves them: not nearly nothing any more
        for parameter in residual.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    shape = (SMALL.num_styles, SMALL.style_dim)
    codes = {name: Codes(torch.randn(shape), torch.randn(shape)) for name in ("first", "second")}
    write_codes(root / "codes", code_table(codes))
    return from_checkpoint(exported(root / "target", "dualstylegan", networks), root / "codes")[0]


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    ramp = np.linspace(0, 255, 48, dtype=np.float32)
    one = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 128.0), axis=-1)
    return np.stack([one, 255 - one]).astype(np.uint8)


def test_a_training_takes_its_parts_in(tmp_path: Path) -> None:
    seeded(1)
    gan = exported(tmp_path / "gan", "stylegan2", face_gan.build_networks(SMALL))
    encoder = exported(tmp_path / "encoder", "psp", build_encoder(SMALL))
    seeded(2)
    networks = dualstyle.build_networks(SMALL)
    before = {name: value.clone() for name, value in networks["generator"].residuals.state_dict().items()}
    take_in(networks, {"gan": str(gan), "encoder": str(encoder), "codes": "elsewhere"}, "dualstylegan")
    seeded(1)
    wanted, found = (
        face_gan.build_networks(SMALL)["generator"].state_dict(),
        networks["generator"].generator.state_dict(),
    )
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    after = networks["generator"].residuals.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_part_of_another_size_is_refused(tmp_path: Path) -> None:
    gan = exported(tmp_path / "gan", "stylegan2", face_gan.build_networks(SMALL))
    networks = dualstyle.build_networks(replace(SMALL, max_channels=12))
    with pytest.raises(CheckpointError, match="fit the network"):
        take_in(networks, {"gan": str(gan)}, "dualstylegan")


def test_weights_and_outputs_mean_what_they_say(system: TorchFaces, faces: np.ndarray) -> None:
    plain = system.stylise(faces, "first", output="reconstruction")
    assert plain.shape == (2, 32, 32, 3)
    np.testing.assert_allclose(plain, system.stylise(faces, "first", structure=0.0, colour=0.0), atol=1e-6)
    np.testing.assert_allclose(plain, system.stylise(faces, "second", structure=0.0, colour=0.0), atol=1e-6)
    whole = system.stylise(faces, "first", structure=0.75, colour=1.0)
    assert np.abs(whole - plain).mean() > 1e-3
    assert np.abs(whole - system.stylise(faces, "second", structure=0.75, colour=1.0)).mean() > 1e-3
    off = system.stylise(faces, "first", structure=0.75, output="structure-off")
    np.testing.assert_allclose(off, system.stylise(faces, "first", structure=0.75, colour=0.0), atol=1e-6)


def test_styles_are_not_called_by_the_ids_of_their_stills(system: TorchFaces, faces: np.ndarray) -> None:
    stored = [Codes(*each) for each in zip(system.codes.extrinsic, system.codes.intrinsic, strict=True)]
    table = code_table(dict(zip(("micah-1-000000", "micah-2-000000"), stored, strict=True)))
    named = TorchFaces(system.generator, system.encoder, SMALL, table)
    assert named.styles == ("micah-1", "micah-2")
    for place, style in enumerate(system.styles):
        np.testing.assert_array_equal(named.thumbnail(f"micah-{place + 1}"), system.thumbnail(style))
        made = named.stylise(faces, f"micah-{place + 1}")
        np.testing.assert_array_equal(made, system.stylise(faces, style))
        np.testing.assert_array_equal(made, named.stylise(faces, table.names[place]))
    with pytest.raises(CheckpointError, match="none of micah-3"):
        named.stylise(faces, "micah-3")


def test_a_face_is_the_same_alone_and_among_many(system: TorchFaces, faces: np.ndarray) -> None:
    many = np.concatenate([faces] * 6)
    for output in OUTPUTS:  # more than go through the networks together
        made = system.stylise(many, "second", output=output)
        np.testing.assert_allclose(made[-2:], system.stylise(faces, "second", output=output), atol=1e-5)


@pytest.mark.slow
def test_the_served_files_make_the_same_pictures(system: TorchFaces, faces: np.ndarray, tmp_path: Path) -> None:
    encoder, generator = export_faces({"generator": system.generator, "encoder": system.encoder}, tmp_path)
    session = FaceSession(generator, encoder, write_styles(system, tmp_path / "styles.npz"))
    assert compare(system, session, faces) < TOLERANCE
    assert session.styles == ("first", "second")
    assert (session.size_px, session.structure_layers) == (32, 5)
    stylist = CartoonStylist("models:/x/1", session)
    made = stylist.stylise(faces[0], "second", structure=0.5, colour=0.5)
    assert set(made) == set(OUTPUTS)
    assert {picture.shape for picture in made.values()} == {(32, 32, 3)}
    assert stylist.thumbnail("first") is not None
    with pytest.raises(ParamsError, match="first, second"):
        stylist.stylise(faces[0], "third", structure=0.5, colour=0.5)
    for wrong in ({"style": "third"}, {"output": "all"}, {"structure": 1.5}, {"psi": -1.0}):
        with pytest.raises(ValueError, match="must"):
            session.stylise(faces, **{"style": "first", **wrong})
    with pytest.raises(ValueError, match="square"):
        session.encode(np.zeros((1, 8, 9, 3), np.uint8))


def test_pictures_are_resized_by_areas() -> None:
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 255
    picture = np.repeat(checks[None, :, :, None], 3, axis=3).astype(np.float32)
    np.testing.assert_allclose(resized(picture, 4), 127.5)
    flat = np.full((1, 6, 6, 3), 77, np.uint8)
    assert (resized(flat, 15) == 77).all()
    assert (resized(flat, 4) == 77).all()


def test_the_measures_tell_structure_from_colour() -> None:
    rng = np.random.default_rng(0)
    before = rng.random((2, 32, 32, 3)).astype(np.float32)
    assert edge_change(before, before) == colour_change(before, before) == 0
    moved = np.roll(before, 5, axis=2)  # other edges, the same colours
    assert edge_change(before, moved) > 0.3
    assert colour_change(before, moved) == 0
    tinted = before * 0.5 + 0.5 * np.array([1.0, 0.0, 0.0])  # edges at half their size, other colours
    assert colour_change(before, tinted) > 0.5


def test_the_systems_of_params_are_five_trainings_each(root: Path) -> None:
    params = load(root / "params.yaml")
    for name in params.dualstyles:
        made = {step: params.experiment(experiment_name(name, step)) for step in STEPS}
        assert made["target"].parts == {"codes": name}
        assert made["encoder"].parts == {"gan": f"{name}-gan"}
        assert made["tuned"].train.init_from == f"data/trained/{name}-gan"
        assert {one.model for one in made.values()} == {made["gan"].model}  # so that each fits into the next
        source = made["source"].train
        assert source.max_steps == sum(source.transfer.layer_steps)
