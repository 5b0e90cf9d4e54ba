"""Training recipes are read completely before anything starts."""

from pathlib import Path

import pytest

from msnode.errors import ConfigurationError
from msnode.preprocess import recipes
from msnode.train.card import model_card
from msnode.train.recipe import load_recipe

FOLDER = Path(__file__).resolve().parents[3] / "config" / "recipes"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(path):
    recipe = load_recipe(path)
    assert recipe.preprocess in recipes.names()
    stride = 2 ** (len(recipe.network.features) - 1)
    assert all(side % stride == 0 for side in recipe.network.patch)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = ", "epoch = ", "training.epochs"),
        ("batch = 6", "batch = 0", "training.batch"),
        ("seed = ", "sead = ", "training.seed"),
        ("[network]", "[network", "config"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, old, new, message):
    path = tmp_path / "config.toml"
    text = (FOLDER / "nnunet2d.toml").read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(path)


def test_a_missing_recipe_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no training recipe"):
        load_recipe(tmp_path / "none.toml")


def test_the_card_shows_figures_and_whom_to_name():
    recipe = load_recipe(FOLDER / "nnunet2d.toml")
    names = ("dice", "ppv", "sensitivity", "iou", "lesion_f1", "lesion_sensitivity", "lesion_ppv")
    scores = dict.fromkeys(names, 0.75) | {"ppv": None}
    scores |= {"predicted_count": 20, "truth_count": 19, "predicted_ml": 3.14, "truth_ml": 3.2}
    evaluation = {
        "cases": {"case01": scores},
        "mean": scores,
        "protocol": "Fold 0.",
        "command": "msnode model train",
    }
    card = model_card(recipe, evaluation)
    assert "| case01 | 0.750 | - | 0.750 |" in card
    assert "20 / 19" in card
    assert "`msnode model train`" in card
    assert "CC BY 4.0" in card
    assert "None recorded" in model_card(recipe, {})
