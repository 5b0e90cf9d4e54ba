"""`msnode demo`, as a new user runs it."""

from PIL import Image
from pydicom import dcmread

from support.node import msnode


def test_the_demo_finds_what_was_planted(tmp_path):
    done = msnode("demo", "--out", tmp_path / "out", timeout_s=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "planted lesions" in done.stdout
    classes = {
        dcmread(p, stop_before_pixels=True).SOPClassUID.name for p in (tmp_path / "out" / "objects").iterdir()
    }
    assert classes == {
        "Segmentation Storage",
        "Comprehensive 3D SR Storage",
        "Secondary Capture Image Storage",
    }
    with Image.open(tmp_path / "out" / "overlay.png") as picture:
        assert min(picture.size) > 300
