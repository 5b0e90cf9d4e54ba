"""The files of the viewer stack agree with each other, and what is fetched is checked."""

import importlib.util
import io
import json
import re
import tarfile
from pathlib import Path

import pytest
import yaml

from support.environment import ROOT

STACK = ROOT / "deploy" / "viewer"


def services() -> dict:
    return yaml.safe_load((STACK / "compose.yaml").read_text())["services"]


def archive_settings() -> dict:
    return json.loads((STACK / "orthanc.json").read_text())


def published(service: dict) -> list[tuple[str, int]]:
    """(address, port inside) of each published port."""
    split = [str(port).rsplit(":", 2) for port in service["ports"]]
    return [("" if len(parts) < 3 else parts[0], int(parts[-1])) for parts in split]


def test_every_mounted_file_is_there_or_made_as_the_readme_says():
    readme = (STACK / "README.md").read_text()
    for service in services().values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./") and not (STACK / source).exists():
                made = f"fetch_ohif.py {source[2:]}\n", f"> {source[2:]}\n"
                assert any(command in readme for command in made), source


def test_images_are_pinned():
    assert all(re.search(r":\d+\.\d+\.\d+", service["image"]) for service in services().values())


def test_studies_are_read_behind_a_login_and_on_this_machine_alone():
    assert published(services()["viewer"]) == [("127.0.0.1", 8080)]
    assert published(services()["archive"]) == [("", archive_settings()["DicomPort"])]
    nginx = (STACK / "nginx.conf").read_text()
    assert "auth_basic_user_file /etc/nginx/htpasswd;" in nginx
    assert "auth_basic off" not in nginx
    assert "limit_except GET { deny all; }" in nginx
    assert "access_log off;" in nginx


def test_the_viewer_finds_the_archive():
    nginx, settings = (STACK / "nginx.conf").read_text(), archive_settings()
    assert f"proxy_pass http://archive:{settings['HttpPort']};" in nginx
    root = settings["DicomWeb"]["Root"]
    assert f"location {root} {{" in nginx
    configured = set(
        re.findall(r"(?:qido|wado|wadoUri)Root: '([^']*)'", (STACK / "app-config.js").read_text())
    )
    assert configured == {root.rstrip("/")}
    assert settings["DefaultEncoding"] == "Utf8"


@pytest.fixture
def fetcher():
    spec = importlib.util.spec_from_file_location("fetch_ohif", STACK / "fetch_ohif.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package_of(names: list[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return content.getvalue()


def test_another_package_is_not_taken(fetcher, monkeypatch):
    answer = io.BytesIO(package_of(["package/dist/index.html"]))
    monkeypatch.setattr(fetcher.urllib.request, "urlopen", lambda *_args, **_kwargs: answer)
    with pytest.raises(ValueError, match="not the package that was pinned"):
        fetcher.fetched("https://registry.example")
    with pytest.raises(ValueError, match="no https"):
        fetcher.fetched("http://registry.example")


def test_the_build_is_there_when_it_is_complete(fetcher, tmp_path):
    folder = tmp_path / "new" / "ohif"
    assert not fetcher.is_there(folder)
    fetcher.unpack(package_of(["package/dist/index.html", "package/README.md"]), folder)
    assert fetcher.is_there(folder)
    assert {path.name for path in folder.iterdir()} == {"index.html", "VERSION"}
    assert [path.name for path in folder.parent.iterdir()] == ["ohif"]


def test_nothing_is_unpacked_outside_its_folder(fetcher, tmp_path):
    with pytest.raises(tarfile.FilterError):
        fetcher.unpack(package_of(["package/dist/../../../outside"]), Path(tmp_path / "in" / "ohif"))
    assert not list(tmp_path.rglob("outside"))
