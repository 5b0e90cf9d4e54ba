from pathlib import Path

import pytest

from msnode.errors import ConfigurationError
from msnode.segment.cache import cache_folder, user_cache


def test_the_configured_folder_goes_before_the_default(tmp_path):
    assert cache_folder(tmp_path / "a" / "b", tmp_path / "c") == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "c").exists()


def test_the_default_is_made_where_it_is_absent(tmp_path):
    assert cache_folder(None, tmp_path / "cache") == tmp_path / "cache"
    assert (tmp_path / "cache").is_dir()
    assert cache_folder(None, None) is None


def test_a_default_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    assert cache_folder(None, tmp_path / "file" / "cache") is None
    assert cache_folder(None, tmp_path / "file") is None


def test_a_configured_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"model\.cache_dir .*/file/cache: Not a directory"):
        cache_folder(tmp_path / "file" / "cache", None)


def test_the_users_cache_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "msnode"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert user_cache() == Path("/home/somebody/.cache/msnode")
