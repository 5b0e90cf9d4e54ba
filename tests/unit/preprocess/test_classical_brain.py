"""Gabor and morphology on a drawn head; BET and HD-BET through stand-ins for their programs."""

import os
import sys
import textwrap

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from msnode.domain.imaging import Grid, Volume
from msnode.errors import ConfigurationError, NotAVolume, ProcessDied
from msnode.preprocess import classical_brain as classical
from msnode.preprocess import steps
from msnode.train.cases import read_nifti
from support.environment import shared_data


def head(scalp=900.0, size=1.0):
    """Scalp, dark bone, brain of 400 with dark ventricles and a bright lesion, a nerve through the bone.

    Returns:
        the volume (18 slices of 7 mm, 1.5 mm pixels) and its brain mask.
    """
    shape, spacing = (18, 140, 120), (7.0, 1.5, 1.5)
    where = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*where, indexing="ij")

    def ellipsoid(less):
        axes = [size * length - less for length in (75, 92, 78)]
        return (z / axes[0]) ** 2 + (y / axes[1]) ** 2 + (x / axes[2]) ** 2 < 1

    whole, skull, brain, ventricles = (ellipsoid(less) for less in (0, 6, 14, 55))
    values = np.select([ventricles, brain, skull, whole], [60, 400, 40, scalp], 0).astype(float)
    values[skull & (abs(z) < 5) & (y < -60) & (abs(x) < 3)] = 400
    values[brain & ((z - 20) ** 2 + (y - 20) ** 2 + (x - 35) ** 2 < 64)] = 750
    values += np.random.default_rng(1).normal(0, 12, shape)
    affine = np.diag([*spacing, 1.0])[[2, 1, 0, 3]]
    return Volume(values.astype(np.float32), Grid(shape, affine)), brain


def dice(found, truth):
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def test_the_kernel_is_the_papers():
    kernel = classical.gabor_kernel()
    assert kernel.shape == (7, 7)
    assert kernel[3, 3] == pytest.approx(np.cos(-0.5))
    along = 2 / np.sqrt(2)  # one row and one column further, in the direction of theta = 45 degrees
    expected = np.exp(-(along**2) / 2) * np.cos(2 * np.pi * along / (5 * np.pi / 4) - 0.5)
    assert kernel[4, 4] == pytest.approx(expected)
    assert kernel[4, 2] == pytest.approx(np.exp(-1) * np.cos(-0.5))


def drawn(volume, where, value):
    """The volume with `value` where the mask says."""
    return Volume(np.where(where, np.float32(value), volume.data), volume.grid)


@pytest.mark.parametrize("scalp", [900.0, 400.0, 150.0])  # 400: as bright as brain, which a nerve joins to it
def test_gabor_finds_the_brain_of_a_drawn_head(scalp):
    volume, brain = head(scalp)
    found = classical.gabor_brain(volume)
    assert found.data.dtype == np.uint8
    assert set(np.unique(found.data)) == {0, 1}
    assert found.grid is volume.grid
    assert dice(found.data > 0, brain) > 0.95


def test_gabor_fills_a_fissure_and_leaves_fat_that_touches_the_brain():
    volume, brain = head()
    _, rows, columns = np.indices(brain.shape)
    middle = (abs(rows - 70) < 12) & brain.any(axis=(1, 2), keepdims=True)
    fissure = brain & (rows > 100) & (abs(columns - 60) < 2)
    fat = ~brain & (columns > 60) & middle & (volume.data > 20)
    found = classical.gabor_brain(drawn(drawn(volume, fissure, 40), fat, 1200)).data > 0
    assert fissure.sum() > 300
    assert found[fissure].mean() > 0.8
    assert fat.sum() > 1000
    assert found[fat].mean() < 0.2


def test_gabor_does_not_care_for_scale():
    volume, _ = head()
    scaled = Volume(volume.data / 4096, volume.grid)
    assert dice(classical.gabor_brain(scaled).data > 0, classical.gabor_brain(volume).data > 0) > 0.999


@pytest.mark.parametrize("value", [0.0, 812.0])
def test_gabor_finds_nothing_in_a_constant_image(value):
    volume, _ = head()
    constant = Volume(np.full(volume.data.shape, value, np.float32), volume.grid)
    assert not classical.gabor_brain(constant).data.any()


def test_gabor_reads_a_single_slice():
    volume, brain = head()
    one = steps.crop(volume, (slice(9, 10), slice(0, 140), slice(0, 120)))
    assert dice(classical.gabor_brain(one).data > 0, brain[9:10]) > 0.95


def test_gabor_refuses_values_that_are_no_numbers():
    volume, _ = head()
    data = volume.data.copy()
    data[3, 4, 5] = np.nan
    with pytest.raises(NotAVolume, match="not finite"):
        classical.gabor_brain(Volume(data, volume.grid))


@pytest.mark.data
def test_gabor_on_a_real_scan():
    scan, mask = (
        steps.to_axial(read_nifti(shared_data(f"ms3seg/case11/{name}.nii.gz")))
        for name in ("FLAIR", "brain_mask")
    )
    assert dice(classical.gabor_brain(scan).data > 0, mask.data > 0) > 0.92


def test_none_takes_everything():
    volume, _ = head()
    found = classical.whole_image(volume)
    assert found.data.dtype == np.uint8
    assert found.data.all()


def test_every_method_is_registered_under_its_name():
    assert set(classical.BRAIN_METHODS) == {"gabor", "bet", "hd-bet", "none"}
    assert classical.BRAIN_METHODS["none"] is classical.whole_image


STAND_IN = """
import sys
import SimpleITK as sitk
def read(path):
    image = sitk.ReadImage(path)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1), image.GetDirection()
    assert abs(image.GetSpacing()[2] - 7) < 1e-4, image.GetSpacing()
    return image
"""


@pytest.fixture
def bet(tmp_path, monkeypatch):
    """Puts a program `bet` with this body on PATH."""

    def install(body):
        program = tmp_path / "bin" / "bet"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\n{body}")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    return install


def test_bet_is_asked_for_a_mask_alone(bet):
    body = """
        import os
        assert sys.argv[3:] == ["-R", "-m", "-n"], sys.argv
        assert os.environ["FSLOUTPUTTYPE"] == "NIFTI_GZ"
        sitk.WriteImage(sitk.Cast(read(sys.argv[1]) > 350, sitk.sitkUInt8), sys.argv[2] + "_mask.nii.gz")
    """
    bet(STAND_IN + textwrap.dedent(body))
    volume, _ = head()
    found = classical.bet_brain(volume)
    assert found.grid is volume.grid
    assert found.data.dtype == np.uint8
    assert_array_equal(found.data, volume.data > 350)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise SystemExit(3)", "ended with status 3"),
        ("pass", "without a mask"),
        (
            STAND_IN + "sitk.WriteImage(sitk.Image(4, 4, 4, 1), sys.argv[2] + '_mask.nii.gz')",
            r"mask of \(4, 4, 4\)",
        ),
    ],
)
def test_a_bet_that_fails_is_a_process_that_died(bet, body, message):
    bet(body)
    with pytest.raises(ProcessDied, match=message):
        classical.bet_brain(head()[0])


def test_a_bet_that_does_not_end_is_stopped(bet, monkeypatch):
    bet("import time; time.sleep(60)")
    monkeypatch.setattr(classical, "_BET_LIMIT_S", 0.5)
    with pytest.raises(ProcessDied, match="did not end within"):
        classical.bet_brain(head()[0])


def test_without_bet_it_is_a_matter_of_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="needs FSL's program bet on PATH"):
        classical.bet_brain(head()[0])


@pytest.fixture
def hd_bet(tmp_path, monkeypatch):
    """A package HD_BET whose program takes what is over 350 for brain; gives the folder of its weights."""
    package, weights = tmp_path / "site" / "HD_BET", tmp_path / "weights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "paths.py").write_text(f"folder_with_parameter_files = {str(weights)!r}\n")
    body = """
        given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
        assert sys.argv[5:] == ["-device", "cpu", "--disable_tta", "--save_bet_mask", "--no_bet_image"]
        image = read(given["-i"])
        target = given["-o"].removesuffix(".nii.gz") + "_bet.nii.gz"
        sitk.WriteImage(sitk.Cast(image > 350, sitk.sitkUInt8), target)
    """
    (package / "entry_point.py").write_text(STAND_IN + textwrap.dedent(body))
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    for name in ("HD_BET", "HD_BET.paths"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield weights
    for name in ("HD_BET", "HD_BET.paths"):
        sys.modules.pop(name, None)


def test_hd_bet_runs_in_a_process_of_its_own(hd_bet):
    (hd_bet / "fold_all").mkdir(parents=True)
    (hd_bet / "fold_all" / "checkpoint_final.pth").touch()
    volume, _ = head()
    found = classical.hd_bet_brain(volume)
    assert_array_equal(found.data, volume.data > 350)
    assert "HD_BET.entry_point" not in sys.modules


def test_hd_bet_never_fetches_its_weights(hd_bet, monkeypatch):
    monkeypatch.setattr(classical.subprocess, "run", lambda *_, **__: pytest.fail("it was started"))
    with pytest.raises(ConfigurationError, match="needs its weights on disk"):
        classical.hd_bet_brain(head()[0])


def test_without_hd_bet_it_is_a_matter_of_configuration(monkeypatch):
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="needs the package hd-bet"):
        classical.hd_bet_brain(head()[0])
