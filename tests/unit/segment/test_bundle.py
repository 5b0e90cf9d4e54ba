"""A bundle is refused unless every byte is what its manifest says."""

import hashlib
import json
import shutil

import pytest

from msnode.errors import BundleCorrupt, BundleMissing, RecipeMismatch
from msnode.preprocess import recipes
from msnode.segment.bundle import builtin_folder, find_bundle, list_bundles, load_bundle


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / tiny_bundle.name)


def edit(bundle, **changes):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_bundle_loads_and_is_known_by_the_digest_of_its_manifest(tiny_bundle):
    bundle = load_bundle(tiny_bundle, recipes.names())
    digest = hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()
    assert (bundle.identity.name, bundle.identity.version) == ("tiny", "0.1.0")
    assert bundle.identity.sha256 == digest
    assert bundle.manifest.patch == (32, 32)
    assert set(bundle.manifest.files) == {
        "dataset.json",
        "fold_0.bin",
        "fold_0.xml",
        "fold_0/checkpoint_final.pth",
        "model_card.md",
        "plans.json",
    }


def test_every_file_is_verified(tiny_bundle, tmp_path):
    for name in load_bundle(tiny_bundle, recipes.names()).manifest.files:
        damaged = shutil.copytree(tiny_bundle, tmp_path / name.replace("/", "-"))
        with (damaged / name).open("r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 1]))
        with pytest.raises(BundleCorrupt, match="digest"):
            load_bundle(damaged, recipes.names())


def test_a_missing_file_is_named(copy):
    (copy / "fold_0.bin").unlink()
    with pytest.raises(BundleCorrupt, match=r"fold_0\.bin is missing"):
        load_bundle(copy, recipes.names())


def test_no_bundle_there(tmp_path):
    with pytest.raises(BundleMissing, match="no bundle at"):
        load_bundle(tmp_path / "nothing", recipes.names())


def test_a_newer_format_is_refused_in_one_line(copy):
    edit(copy, format=2, something_new={"a": 1})
    with pytest.raises(BundleCorrupt, match="has format 2; this version reads format 1") as caught:
        load_bundle(copy, recipes.names())
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
    ],
)
def test_a_wrong_key_is_named_in_one_line(copy, change, key):
    edit(copy, **change)
    with pytest.raises(BundleCorrupt, match=f"manifest: {key}") as caught:
        load_bundle(copy, recipes.names())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "fold_0/../../secret"])
def test_a_file_outside_the_bundle_is_not_read(copy, name):
    manifest = json.loads((copy / "manifest.json").read_text())
    edit(copy, files=manifest["files"] | {name: "0" * 64})
    with pytest.raises(BundleCorrupt, match="outside the bundle"):
        load_bundle(copy, recipes.names())


def test_a_network_that_the_manifest_does_not_name_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    edit(copy, files={k: v for k, v in manifest["files"].items() if k != "fold_0.bin"})
    with pytest.raises(BundleCorrupt, match=r"does not name fold_0\.bin"):
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


def test_the_built_in_bundle_is_whole():
    path = find_bundle("msnode-flair2d", [builtin_folder()])
    bundle = load_bundle(path, recipes.names())
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert size < 40e6
    assert bundle.manifest.evaluation["mean"]["dice"] > 0.5
    assert "MS3SEG" in (path / "model_card.md").read_text(encoding="utf-8")
