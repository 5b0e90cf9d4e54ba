"""A bundle is refused unless every byte is what its manifest says."""

import hashlib
import json
import shutil

import pytest
from pydantic import ValidationError

from msnode.errors import BundleCorrupt, BundleMissing, RecipeMismatch
from msnode.preprocess import recipes
from msnode.segment.bundle import IntensityHistogram, builtin_folder, find_bundle, list_bundles, load_bundle


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)


@pytest.fixture
def stripping_copy(stripping_bundle, tmp_path):
    return shutil.copytree(stripping_bundle, tmp_path / stripping_bundle.name)


def edit(bundle, **changes):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


def files_of(bundle):
    return json.loads((bundle / "manifest.json").read_text())["files"]


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_bundle_loads_and_is_known_by_the_digest_of_its_manifest(tiny_bundle):
    bundle = load_bundle(tiny_bundle, recipes.names())
    digest = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (bundle.identity.name, bundle.identity.version) == ("tiny", "0.1.0")
    assert bundle.identity.sha256 == digest
    assert bundle.manifest.patch == (32, 32)
    assert set(bundle.manifest.files) == {
        "dataset.json",
        "fold_0.safetensors",
        "fold_1.safetensors",
        "model_card.md",
        "plans.json",
    }


def test_one_flipped_bit_in_any_file_is_found(stripping_bundle, tmp_path):
    names = load_bundle(stripping_bundle, recipes.names()).manifest.files
    assert "brain/fold_0.safetensors" in names
    for name in names:
        damaged = shutil.copytree(stripping_bundle, tmp_path / name.replace("/", "-"))
        flip_a_bit(damaged / name)
        with pytest.raises(BundleCorrupt, match=f"{name} does not have the digest"):
            load_bundle(damaged, recipes.names())


def test_a_missing_file_is_named(copy):
    (copy / "fold_1.safetensors").unlink()
    with pytest.raises(BundleCorrupt, match=r"fold_1\.safetensors is missing"):
        load_bundle(copy, recipes.names())


def test_the_brain_bundle_is_checked_as_one(stripping_copy):
    brain = stripping_copy / "brain"
    edit(brain, recipe="brain2d-v9")
    digest = hashlib.sha256((brain / "manifest.json").read_bytes()).hexdigest()
    edit(stripping_copy, files=files_of(stripping_copy) | {"brain/manifest.json": digest})
    with pytest.raises(RecipeMismatch, match="brain2d-v9"):
        load_bundle(stripping_copy, recipes.names())


def test_a_bundle_that_strips_the_skull_needs_its_brain_network(copy):
    edit(copy, strips_skull=True)
    with pytest.raises(BundleCorrupt, match=r"does not name brain/manifest\.json"):
        load_bundle(copy, recipes.names())


def test_a_brain_network_within_a_brain_network_is_refused(stripping_copy):
    inner = stripping_copy / "brain"
    shutil.copytree(inner, inner / "brain")
    edit(
        inner,
        strips_skull=True,
        files=files_of(inner)
        | {
            f"brain/{name}": hashlib.sha256((inner / "brain" / name).read_bytes()).hexdigest()
            for name in ("manifest.json", *files_of(inner))
        },
    )
    digest = hashlib.sha256((inner / "manifest.json").read_bytes()).hexdigest()
    edit(stripping_copy, files=files_of(stripping_copy) | {"brain/manifest.json": digest})
    with pytest.raises(BundleCorrupt, match="asks for a brain network itself"):
        load_bundle(stripping_copy, recipes.names())


@pytest.mark.parametrize(
    "name", ["fold_0.pth", "fold_0/checkpoint_final.pth", "model.pkl", "setup.py", "code"]
)
def test_a_file_that_could_hold_code_is_refused(copy, name):
    file = copy / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"x")
    edit(copy, files=files_of(copy) | {name: hashlib.sha256(b"x").hexdigest()})
    with pytest.raises(BundleCorrupt, match="could hold code"):
        load_bundle(copy, recipes.names())


def test_no_bundle_there(tmp_path):
    with pytest.raises(BundleMissing, match="no bundle at"):
        load_bundle(tmp_path / "nothing", recipes.names())


@pytest.mark.parametrize(
    ("declared", "remedy"), [(3, "update msnode"), (1, "train or promote it again"), ("x", "update msnode")]
)
def test_another_format_is_refused_in_one_line_that_says_what_to_do(copy, declared, remedy):
    edit(copy, format=declared, something_new={"a": 1})
    with pytest.raises(BundleCorrupt, match="this version reads format 2: ") as caught:
        load_bundle(copy, recipes.names())
    assert f"has format {declared!r}" in str(caught.value)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}"])
def test_a_manifest_that_is_none(copy, text):
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleCorrupt, match="manifest is not JSON"):
        load_bundle(copy, recipes.names())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"patch": [32]}, "patch"),
        ({"threshold": 2}, "threshold"),
        ({"extra": 1}, "extra"),
        ({"name": "../x"}, "name"),
        ({"calibration": {"intercept": 1}}, "calibration.logit_mean_probability"),
    ],
)
def test_a_wrong_key_is_named_in_one_line(copy, change, key):
    edit(copy, **change)
    with pytest.raises(BundleCorrupt, match=f"manifest: {key}") as caught:
        load_bundle(copy, recipes.names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "fold_0/../../secret"])
def test_a_file_outside_the_bundle_is_not_read(copy, name):
    edit(copy, files=files_of(copy) | {name: "0" * 64})
    with pytest.raises(BundleCorrupt, match="outside the bundle"):
        load_bundle(copy, recipes.names())


def test_a_network_that_the_manifest_does_not_name_is_refused(copy):
    edit(copy, files={k: v for k, v in files_of(copy).items() if k != "fold_1.safetensors"})
    with pytest.raises(BundleCorrupt, match=r"does not name fold_1\.safetensors"):
        load_bundle(copy, recipes.names())


def test_an_unknown_recipe_is_a_mismatch(copy):
    edit(copy, recipe="flair2d-head-v9")
    with pytest.raises(RecipeMismatch, match="flair2d-head-v9"):
        load_bundle(copy, recipes.names())


def test_bundles_are_found_by_name_version_and_path(tiny_bundle, tmp_path):
    older = shutil.copytree(tiny_bundle, tmp_path / "older")
    newer = shutil.copytree(tiny_bundle, tmp_path / "newer")
    edit(older, version="0.9.0")
    edit(newer, version="0.10.0")
    assert find_bundle("tiny", [tmp_path]) == newer
    assert find_bundle("tiny@0.9.0", [tmp_path]) == older
    assert find_bundle(str(older), []) == older
    assert {m.version for _, m in list_bundles([tmp_path])} == {"0.9.0", "0.10.0"}
    with pytest.raises(BundleMissing, match=r"tiny@0\.10\.0"):
        find_bundle("other", [tmp_path])
    with pytest.raises(BundleMissing, match="there is"):
        find_bundle("tiny@1.0.0", [tmp_path])


def test_a_brain_network_within_a_bundle_is_not_listed(stripping_bundle):
    found = [manifest.name for _, manifest in list_bundles([stripping_bundle.parent, stripping_bundle])]
    assert found == ["tiny"]


def test_a_histogram_has_one_edge_more_than_bins():
    with pytest.raises(ValidationError, match="2 edges do not bound 2 bins"):
        IntensityHistogram(edges=(0, 1), density=(1, 1), largest_distance=0.1, refuse_distance=0.2)


def test_the_built_in_bundle_is_whole():
    path = find_bundle("msnode-flair2d", [builtin_folder()])
    bundle = load_bundle(path, recipes.names())
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert size < 60e6
    assert bundle.manifest.evaluation["mean"]["dice"] > 0.5
    assert "MS3SEG" in (path / "model_card.md").read_text(encoding="utf-8")
