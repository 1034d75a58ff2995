"""Published files of faces as checkpoints to train on from, as model versions, and by the command line."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from face_files_kit import (
    published_discriminator,
    published_dualstyle,
    published_encoder,
    published_generator,
    scrambled,
    write,
)
from published_kit import published
from typer.testing import CliRunner

from models.errors import CheckpointError, ParamsError
from models.motion.networks import build as build_motion
from models.motion.networks import debug_config as motion_config
from models.style.dualstylegan import DualStyleGenerator
from models.style.face_config import FaceConfig
from models.style.psp import Encoder
from models.style.stylegan2.discriminator import Discriminator
from models.style.stylegan2.generator import Generator
from pipelines import importing_faces, model_commands
from pipelines.command_line import Commands
from pipelines.importing_dualstyle import PublishedFaces, read_styles
from pipelines.importing_faces import Beside, FaceImportReport
from pipelines.stage import Paths
from training.ada import Augmentation
from training.checkpoint import load_networks, read_info
from training.parts import take_in
from training.recipes import dualstyle, face_gan

CONFIG = FaceConfig(
    size_px=32,
    style_dim=16,
    mapping_layers=2,
    max_channels=8,
    structure_layers=5,
    encoder_px=32,
    encoder_width=4,
    encoder_units=(1, 1, 2, 1),
)
MEAN = torch.arange(16.0)
SHAPE = (CONFIG.num_styles, CONFIG.style_dim)


def gan_file(folder: Path, config: FaceConfig = CONFIG, **more: Any) -> Path:
    return write(folder / "gan.pt", {"g_ema": published_generator(scrambled(Generator(config))), **more})


def encoder_file(folder: Path, config: FaceConfig = CONFIG, *, decoder: bool = True, name: str = "encoder.pt") -> Path:
    inside = scrambled(Generator(config), 1) if decoder else None
    return write(folder / name, published_encoder(scrambled(Encoder(config), 2), inside))


def dualstyle_file(folder: Path) -> Path:
    network = scrambled(DualStyleGenerator(CONFIG), 3)
    assert isinstance(network, DualStyleGenerator)
    return write(folder / "generator.pt", {"g_ema": published_dualstyle(network)})


def codes_file(path: Path, *names: str, shape: tuple[int, int] = SHAPE, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    codes = {name: rng.standard_normal((1, *shape), dtype=np.float32) for name in names}
    np.save(path, codes, allow_pickle=True)  # type: ignore[arg-type]
    return path


def take(file: Path, kind: Any, folder: Path, **beside: Path) -> FaceImportReport:
    return importing_faces.run(file, kind, None, Paths(folder / "project"), beside=Beside(**beside), name="taken")


@pytest.fixture
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No ONNX, no store."""
    monkeypatch.setattr(importing_faces, "register_version", lambda name, *_: (f"models:/{name}/1", 0.0))


# ---- checkpoints


def test_a_stylegan2_is_a_checkpoint_that_trainings_take(tmp_path: Path) -> None:
    critic = scrambled(Discriminator(CONFIG), 4)
    report = take(gan_file(tmp_path, latent_avg=MEAN, d=published_discriminator(critic)), "stylegan2", tmp_path)
    networks, info = load_networks(Path(report.folder))
    assert (info.preset, info.step, info.experiment) == ("stylegan2", 0, "taken")
    assert set(networks) == set(face_gan.build_networks(CONFIG))
    wanted = scrambled(Generator(CONFIG)).state_dict() | {"mean_style": MEAN}
    for key, value in networks["generator"].state_dict().items():
        assert torch.equal(value, wanted[key]), key
    for key, value in networks["discriminator"].state_dict().items():
        assert torch.equal(value, critic.state_dict()[key]), key
    assert isinstance(networks["augmentation"], Augmentation)
    assert report.notes == ()
    whole = dualstyle.build_networks(CONFIG)
    take_in(whole, {"gan": report.folder}, "dualstylegan")
    assert torch.equal(whole["generator"].generator.mean_style, MEAN)  # type: ignore[union-attr]


def test_what_a_stylegan2_lacks_is_made_here_and_said(tmp_path: Path) -> None:
    file = gan_file(tmp_path)
    first = take(file, "stylegan2", tmp_path)
    assert any("no discriminator" in note for note in first.notes)
    assert any("mean style is that of 10000 codes" in note for note in first.notes)
    generator = load_networks(Path(first.folder))[0]["generator"]
    assert isinstance(generator, Generator)
    drawn = generator.mapping(torch.randn(4000, 16, generator=torch.Generator().manual_seed(9))).mean(0)
    torch.testing.assert_close(generator.mean_style, drawn, rtol=0.05, atol=0.05)
    torch.randn(3)
    assert take(file, "stylegan2", tmp_path).weights_sha256 == first.weights_sha256  # whatever was drawn before


def test_the_configuration_that_fits_is_told(tmp_path: Path) -> None:
    lines = take(gan_file(tmp_path), "stylegan2", tmp_path).lines()
    entry = yaml.safe_load("\n".join(lines[lines.index(next(line for line in lines if "train on" in line)) + 1 :]))
    told = entry["NAME"]["model"]
    assert not {"encoder_px", "structure_layers"} & set(told)
    assert all(asdict(CONFIG)[key] == value for key, value in told.items())
    assert entry["NAME"]["gan"] == {"init_from": str(tmp_path / "project" / "data" / "imported" / "taken")}
    encoded = take(encoder_file(tmp_path), "psp", tmp_path)
    assert FaceConfig(**{**encoded.model, "encoder_units": tuple(encoded.model["encoder_units"])}) == replace(
        CONFIG, structure_layers=FaceConfig().structure_layers
    )


def test_a_psp_has_the_generator_of_its_file_or_another(tmp_path: Path) -> None:
    own = take(encoder_file(tmp_path), "psp", tmp_path)
    networks, info = load_networks(Path(own.folder))
    assert info.preset == "psp"
    assert torch.equal(networks["encoder"].latlayer1.weight, scrambled(Encoder(CONFIG), 2).latlayer1.weight)
    assert torch.equal(networks["generator"].input.input, scrambled(Generator(CONFIG), 1).input.input)
    assert networks["generator"].mean_style.any()
    gan = importing_faces.run(gan_file(tmp_path, latent_avg=MEAN), "stylegan2", None, Paths(tmp_path), name="gan")
    alone = encoder_file(tmp_path, decoder=False, name="alone.pt")
    other = take(alone, "psp", tmp_path, generator=Path(gan.folder))
    generator = load_networks(Path(other.folder))[0]["generator"]
    assert torch.equal(generator.mean_style, MEAN)
    assert torch.equal(generator.input.input, scrambled(Generator(CONFIG)).input.input)
    whole = dualstyle.build_networks(CONFIG)
    take_in(whole, {"encoder": other.folder}, "dualstylegan")
    assert torch.equal(whole["encoder"].latlayer1.weight, networks["encoder"].latlayer1.weight)


@pytest.mark.usefixtures("unregistered")
def test_a_dualstyle_is_a_checkpoint_with_its_encoder(tmp_path: Path) -> None:
    styles = codes_file(tmp_path / "ex.npy", "a.jpg", "b.png")
    report = take(dualstyle_file(tmp_path), "dualstyle", tmp_path, encoder=encoder_file(tmp_path), styles=styles)
    networks, info = load_networks(Path(report.folder))
    assert info.preset == "dualstylegan"
    assert info.model == CONFIG
    assert set(networks) == set(dualstyle.build_networks(CONFIG))
    wanted = scrambled(DualStyleGenerator(CONFIG), 3).state_dict()
    for key, value in networks["generator"].state_dict().items():
        expected = torch.zeros(16) if key == "generator.mean_style" else wanted[key]
        assert torch.equal(value, expected), key  # faces are pulled towards 0, as published
    assert (report.uri, report.num_styles) == ("models:/taken/1", 2)
    assert "2 of 2 styles have no intrinsic code: the mean face shows them" in report.notes
    text = "\n".join(report.lines())
    for part in ("generator.pt (DualStyleGAN)", "encoder.pt (pSp)", "registered as models:/taken/1", "target:"):
        assert part in text
    written = json.loads((tmp_path / "project" / "reports" / "import" / "taken.json").read_text())
    assert written["weights_sha256"] == report.weights_sha256


# ---- styles


def test_styles_go_by_their_pictures_names(tmp_path: Path) -> None:
    outer = codes_file(tmp_path / "ex.npy", "b.jpg", "a.jpg", "c.jpg")
    found = read_styles(outer, codes_file(tmp_path / "in.npy", "a.jpg", "z.jpg", seed=1), CONFIG)
    assert found.names == ("a", "b", "c")
    assert list(found.intrinsic) == ["a"]
    assert found.notes == ("2 of 3 styles have no intrinsic code: the mean face shows them",)
    assert [name for name, _ in found.files] == ["ex.npy", "in.npy"]
    alike = read_styles(codes_file(tmp_path / "x.npy", "a.jpg", "a.png"), None, CONFIG)
    assert alike.names == ("a.jpg", "a.png")
    again = read_styles(codes_file(tmp_path / "y.npy", "a.jpg", "a.png"), None, CONFIG)
    other = read_styles(codes_file(tmp_path / "y.npy", "a.jpg", "a.png", seed=1), None, CONFIG)
    assert alike.digest() == again.digest() != other.digest()


def test_thumbnails_show_a_style_by_its_own_face_or_the_mean(tmp_path: Path) -> None:
    network, encoder = scrambled(DualStyleGenerator(CONFIG), 3), scrambled(Encoder(CONFIG), 2)
    assert isinstance(network, DualStyleGenerator)
    assert isinstance(encoder, Encoder)
    network.generator.mean_style.copy_(MEAN / 16)
    outer, inner = (codes_file(tmp_path / f"{n}.npy", "a", *more, seed=n) for n, more in ((0, ("b",)), (1, ())))
    styles = read_styles(outer, inner, CONFIG)
    faces = PublishedFaces(network, encoder, CONFIG, styles)
    weights = torch.ones(CONFIG.num_styles)
    for name, intrinsic, space in (("a", styles.intrinsic["a"], "z+"), ("b", (MEAN / 16).expand(SHAPE), "w+")):
        with torch.no_grad():
            made = network(intrinsic[None], styles.extrinsic[name][None], weights, intrinsic_space=space)
        wanted = np.rint(made[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255)
        assert faces.thumbnail(name).shape == (32, 32, 3)
        np.testing.assert_allclose(faces.thumbnail(name), wanted, atol=1)


# ---- refused


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each, and some that do not fit."""
    folder = tmp_path_factory.mktemp("files")
    gan_file(folder)
    dualstyle_file(folder)
    encoder_file(folder)
    encoder_file(folder, decoder=False, name="alone.pt")
    encoder_file(folder, replace(CONFIG, size_px=64, encoder_px=64), name="other.pt")
    codes_file(folder / "ex.npy", "a.jpg")
    codes_file(folder / "in.npy", "z.jpg")
    codes_file(folder / "longer.npy", "a.jpg", shape=(18, 16))
    codes_file(folder / "none.npy")
    np.save(folder / "nan.npy", {"a": np.full((1, *SHAPE), np.nan, np.float32)}, allow_pickle=True)  # type: ignore[arg-type]
    write(folder / "motion.pt", published(build_motion(motion_config())))
    (folder / "page.pt").write_bytes(b"<html>")
    (folder / "cut.pt").write_bytes((folder / "gan.pt").read_bytes()[:2000])
    return folder


WHOLE = {"encoder": "encoder.pt", "styles": "ex.npy"}


@pytest.mark.parametrize(
    ("file", "kind", "beside", "words"),
    [
        ("nowhere.pt", "stylegan2", {}, "nowhere.pt must be a file; got no such"),
        ("page.pt", "stylegan2", {}, "a web page"),
        ("cut.pt", "psp", {}, "cut.pt must"),
        ("motion.pt", "stylegan2", {}, "got a checkpoint of First Order Motion Model. It is a file for --kind fomm."),
        ("generator.pt", "stylegan2", {}, "got a checkpoint of DualStyleGAN. It is a file for --kind dualstyle."),
        ("gan.pt", "psp", {}, "must be a checkpoint of pSp; got a checkpoint of StyleGAN2. It is a file for --kind st"),
        ("encoder.pt", "stylegan2", {}, "got a checkpoint of pSp. It is a file for --kind psp."),
        ("gan.pt", "dualstyle", WHOLE, "It is a file for --kind stylegan2."),
        ("motion.pt", "dualstyle", WHOLE, "It is a file for --kind fomm."),
        ("alone.pt", "psp", {}, "must hold its generator; got an encoder alone. Import its StyleGAN2 first"),
        ("alone.pt", "psp", {"generator": "nowhere"}, "manifest.json must be readable"),
        ("generator.pt", "dualstyle", {**WHOLE, "encoder": "generator.pt"}, "must be a checkpoint of pSp; got a che"),
        ("generator.pt", "dualstyle", {**WHOLE, "encoder": "nowhere.pt"}, "nowhere.pt must be a file; got no such"),
        (
            "generator.pt",
            "dualstyle",
            {**WHOLE, "encoder": "other.pt"},
            "must find 8 codes of 16 numbers, as .*generat",
        ),
        ("generator.pt", "dualstyle", {**WHOLE, "styles": "nowhere.npy"}, "nowhere.npy must be readable"),
        ("generator.pt", "dualstyle", {**WHOLE, "styles": "gan.pt"}, "must be a NumPy file of a dict"),
        (
            *("generator.pt", "dualstyle", {**WHOLE, "styles": "longer.npy"}),
            "longer.npy must hold 8 codes of 16 numbers a picture; got 18 x 16 for a.jpg. Give the codes of this gener",
        ),
        ("generator.pt", "dualstyle", {**WHOLE, "styles": "none.npy"}, "must hold the codes of one picture or more"),
        ("generator.pt", "dualstyle", {**WHOLE, "styles": "nan.npy"}, "must hold finite numbers; got others for a"),
        ("generator.pt", "dualstyle", {**WHOLE, "instyle": "in.npy"}, "must name pictures that ex.npy names; got none"),
    ],
)
def test_what_is_refused_leaves_nothing(
    files: Path, tmp_path: Path, file: str, kind: str, beside: dict[str, str], words: str
) -> None:
    with pytest.raises(CheckpointError, match=words) as raised:
        take(files / file, kind, tmp_path, **{name: files / path for name, path in beside.items()})
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "project").exists()


@pytest.mark.parametrize(
    ("kind", "beside", "words"),
    [
        ("dualstyle", {}, "--encoder must name the published encoder.pt.*\n.*--styles must name"),
        ("dualstyle", {"styles": "ex.npy"}, "^--encoder must name the published encoder.pt; got None.$"),
        ("dualstyle", {**WHOLE, "generator": "x"}, "--generator must be left out with --kind dualstyle; got .*x"),
        ("stylegan2", {"encoder": "encoder.pt"}, "--encoder must be left out with --kind stylegan2"),
    ],
)
def test_files_that_must_or_must_not_be_named(
    files: Path, tmp_path: Path, kind: str, beside: dict[str, str], words: str
) -> None:
    with pytest.raises(ParamsError, match=words):
        take(files / "generator.pt", kind, tmp_path, **{name: files / path for name, path in beside.items()})
    assert not (tmp_path / "project").exists()


def test_a_refused_file_leaves_an_earlier_import_alone(files: Path, tmp_path: Path) -> None:
    first = take(files / "gan.pt", "stylegan2", tmp_path)
    with pytest.raises(CheckpointError):
        take(files / "cut.pt", "stylegan2", tmp_path)
    assert read_info(Path(first.folder)).sha256 == first.weights_sha256
    motion = Path(first.folder)
    with pytest.raises(CheckpointError, match="fit|hold a StyleGAN2|find 8 codes"):
        take(files / "other.pt", "psp", tmp_path / "again", generator=motion)
    assert not (tmp_path / "again").exists()


# ---- the command line


def run_command(*words: str) -> str:
    app = typer.Typer(cls=Commands)
    app.command("import")(model_commands.import_model)
    app.command("promote")(model_commands.promote)
    done = CliRunner().invoke(app, ["import", *words])
    return f"{done.exit_code} {' '.join(done.output.split())}"


def test_the_command_for_stylegan2_and_psp(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run_command("--kind", "stylegan2", str(files / "gan.pt"))
    assert printed.startswith("0 gan.pt (StyleGAN2)"), printed
    assert "checkpoint in data/imported/stylegan2-gan (preset stylegan2)" in printed
    words = ["--kind", "psp", str(files / "alone.pt"), "--generator", "data/imported/stylegan2-gan", "--name", "found"]
    printed = run_command(*words)
    assert printed.startswith("0 alone.pt (pSp)"), printed
    assert "note: the generator is that of data/imported/stylegan2-gan" in printed
    assert "init_from: data/imported/found" in printed
    assert read_info(Path("data/imported/found")).preset == "psp"
    printed = run_command("--kind", "dualstyle", str(files / "generator.pt"), "--styles", str(files / "ex.npy"))
    assert printed == "1 Error: --encoder must name the published encoder.pt; got None."
    assert run_command("--kind", "psp", str(files / "encoder.pt"), "--size-px", "64").startswith("2 ")
    assert run_command("--kind", "fomm", str(files / "motion.pt"), "--styles", "x.npy").startswith("2 ")


@pytest.mark.slow
def test_the_command_for_dualstyle_makes_a_stylist(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import registry
    from pipelines.studio_choices import STYLISTS
    from pipelines.stylist import OUTPUTS, open_stylist

    monkeypatch.chdir(tmp_path)
    styles = codes_file(tmp_path / "refined.npy", "Cartoons_1.jpg", "Cartoons_2.jpg")
    inner = codes_file(tmp_path / "instyle.npy", "Cartoons_1.jpg", seed=1)
    words = ["--kind", "dualstyle", str(files / "generator.pt"), "--encoder", str(files / "encoder.pt")]
    printed = run_command(*words, "--styles", str(styles), "--instyle", str(inner), "--name", "cartoon")
    assert printed.startswith("0 generator.pt (DualStyleGAN)"), printed
    assert "registered as models:/cartoon/1 (candidate), 2 styles" in printed
    store = registry.store_of(None, Paths())
    version = registry.find("models:/cartoon@candidate", store)
    assert version.tags["family"] in STYLISTS
    assert version.tags["imported.from"] == "generator.pt, encoder.pt, refined.npy, instyle.npy"
    assert not any(tag.startswith("metric.") for tag in version.tags)
    assert "models:/cartoon@candidate" in version.description
    assert "None were measured here" in version.description
    stylist = open_stylist(None, Paths(), model="models:/cartoon", checkpoint=None, device="cpu")
    assert stylist.styles == ("Cartoons_1", "Cartoons_2")
    made = stylist.stylise(np.full((48, 48, 3), 90, np.uint8), "Cartoons_2", structure=0.75, colour=1.0)
    assert set(made) == set(OUTPUTS)
    assert all(stylist.thumbnail(style) is not None for style in stylist.styles)

    again = [*words, "--name", "cartoon", "--styles"]
    assert "models:/cartoon/1 " in run_command(*again, str(styles), "--instyle", str(inner))
    assert "models:/cartoon/2 " in run_command(*again, str(files / "ex.npy"))  # the same networks, other styles
    checkpoint = registry.checkpoint_of("models:/cartoon/2", store)
    assert read_info(checkpoint).model == CONFIG
