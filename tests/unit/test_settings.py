import re
from pathlib import Path

import pytest

from msnode.errors import ConfigurationError
from msnode.settings import NodeSettings, Settings, load_settings, with_preset
from support.environment import ROOT


def write(folder: Path, text: str) -> Path:
    path = folder / "msnode.toml"
    path.write_text(text)
    return path


def test_the_commented_file_holds_every_default(tmp_path):
    assert load_settings(write(tmp_path, (ROOT / "config" / "msnode.toml").read_text())) == Settings()


def test_rules_lie_beside_the_file_unless_it_names_them(tmp_path):
    config = write(tmp_path, "[node]\nworkers = 2\n")
    assert load_settings(config).node.routing is None
    (tmp_path / "routing.toml").touch()
    assert load_settings(config).node == NodeSettings(workers=2, routing=tmp_path / "routing.toml")
    named = write(tmp_path, "[node]\nrouting = '/srv/rules.toml'\n")
    assert load_settings(named).node.routing == Path("/srv/rules.toml")


def test_what_moved_to_the_rules_is_said(tmp_path):
    old = write(tmp_path, "[[priority.stat]]\ncalling_ae = 'ER'\n")
    with pytest.raises(ConfigurationError, match=r"priority\.stat: moved to routing\.toml"):
        load_settings(old)


def test_the_commented_file_names_every_key():
    text = (ROOT / "config" / "msnode.toml").read_text()
    for section, field in Settings.model_fields.items():
        keys = getattr(field.default, "model_dump", dict)()
        for key in keys:
            assert re.search(
                rf"^#? ?{key} = |^\[\[{section}\.{key}\]\]|^# \[\[{section}\.{key}\]\]", text, re.MULTILINE
            ), key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[receive]\nport = 99999\n", r"receive\.port: .*65535"),
        ("[receive]\nporto = 1\n", r"receive\.porto: unknown key"),
        ("[colour]\n", r"colour: unknown key"),
        ("[model]\npreset = 'slow'\n", r"model\.preset: .*'fast', 'standard' or 'best'"),
        ("[model]\nmark_below_confidence = 50\n", r"model\.mark_below_confidence: .*less than or equal to 1"),
        ("[node]\nae_title = 'ABCDEFGHIJKLMNOPQ'\n", r"node\.ae_title: .*16"),
        ("[node]\nae_title = 'A\\B'\n", r"node\.ae_title"),
        ("[node\n", "not valid TOML"),
        ("[[receive.peers]]\nae_title = 'A'\naddresses = ['nope']\n", r"receive\.peers\.0\.addresses"),
        ("[[receive.peers]]\nae_title = 'A'\naddresses = []\n", r"receive\.peers\.0\.addresses"),
        ("[[destinations]]\nname = 'a'\ntype = 'ftp'\n", "'dicom', 'folder'"),
        (
            "[[destinations]]\nname = 'a'\ntype = 'folder'\npath = '/x'\n" * 2,
            "the name 'a' is used twice",
        ),
        ("[[destinations]]\nname = 'a'\ntype = 'folder'\npath = '/x'\nobjects = ['jpeg']\n", r"objects\.0"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says) as caught:
        load_settings(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.toml: No such file"):
        load_settings(tmp_path / "absent.toml")


def test_the_environment_overrides_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MSNODE_RECEIVE__PORT", "4711")
    settings = load_settings(write(tmp_path, "[receive]\nport = 1\naddress = '::1'\n"))
    assert (settings.receive.port, settings.receive.address) == (4711, "::1")


def test_the_file_may_be_named_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MSNODE_CONFIG", str(write(tmp_path, "[node]\nae_title = 'OTHER'\n")))
    assert load_settings().node.ae_title == "OTHER"


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("[receive]\nport = 1\n", False),
        ("[model]\nthreads = 1\ncache_dir = '/x'\n", False),
        ("[selection]\nmin_slices = 5\n", True),
        ("[model]\npreset = 'fast'\n", True),
        ("[model]\nmark_below_confidence = 0.3\n", True),
    ],
)
def test_the_digest_follows_what_changes_results(tmp_path, text, changes):
    changed = load_settings(write(tmp_path, text)).results_digest != Settings().results_digest
    assert changed == changes


def test_a_preset_may_be_chosen_for_one_run(tmp_path):
    settings = load_settings(write(tmp_path, "[model]\nthreads = 1\n"))
    best = with_preset(settings, "best")
    assert (best.model.preset, best.model.threads) == ("best", 1)
    assert best.results_digest != settings.results_digest
    assert with_preset(settings, None) == settings
