import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from msnode.encode.codes import lesion_colour
from msnode.encode.picture import draw_slice, font, grey_levels, showable

GREY = np.full((64, 64), 40, np.uint8)
NUMBER_SIZE = 24


def labelled(*corners, side=4):
    labels = np.zeros(GREY.shape, np.int32)
    for number, (row, column) in enumerate(corners, start=1):
        labels[row : row + side, column : column + side] = number
    return labels


def drawn(labels, size=(256, 256), dashed=(), **options):
    table = {n: n in dashed for n in range(1, int(labels.max()) + 1)}
    return np.asarray(draw_slice(GREY, labels, size, table, number_size=NUMBER_SIZE, **options))


def coloured(pixels, label):
    return (pixels == lesion_colour(label)).all(axis=2)


def number_pixels(pixels, labels, label):
    """Pixels in a lesion's colour that are no part of the ring around it."""
    large = (labels == label).repeat(4, 0).repeat(4, 1)
    return int((coloured(pixels, label) & ~ndimage.binary_dilation(large, np.ones((3, 3)))).sum())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ax T2 FLAIR", "Ax T2 FLAIR"),
        ("MR Schädel  tra", "MR Schadel tra"),
        ("cerveau coupé", "cerveau coupe"),
        ("3 mm³", "3 mm3"),
        ("液体衰減 FLAIR", None),
        ("ФЛАИР", None),
        ("", ""),
    ],
)
def test_text_is_shown_in_letters_that_the_font_has_or_not_at_all(text, shown):
    assert showable(text) == shown


def test_a_letter_that_the_font_lacks_would_be_a_box():
    box = bytes(font(20).getmask("減"))
    assert box == bytes(font(20).getmask("液"))
    assert box != bytes(font(20).getmask("a"))


def test_grey_levels_span_black_to_white_and_keep_the_order():
    data = np.random.default_rng(1).normal(500, 100, (20, 64, 64)).astype(np.float32)
    levels = grey_levels(data)
    assert (levels.min(), levels.max()) == (0, 255)
    order = np.argsort(data, axis=None)
    assert (np.diff(levels.reshape(-1)[order].astype(int)) >= 0).all()


def test_two_numbers_side_by_side_are_both_to_be_seen():
    together = labelled((20, 20), (20, 26), (26, 20), (26, 26))
    pixels = drawn(together)
    for label, corner in enumerate(((20, 20), (20, 26), (26, 20), (26, 26)), start=1):
        alone = np.where(labelled(corner) > 0, label, 0).astype(np.int32)
        assert number_pixels(pixels, together, label) > 0.8 * number_pixels(drawn(alone), alone, label)


@pytest.mark.parametrize("corner", [(0, 0), (0, 60), (60, 0), (60, 60)])
def test_a_number_at_the_edge_stays_inside_the_picture(corner):
    middle, edge = labelled((30, 30)), labelled(corner)
    assert number_pixels(drawn(edge), edge, 1) == number_pixels(drawn(middle), middle, 1) > 5


def test_numbers_keep_out_of_reserved_stripes():
    labels = labelled((4, 30))
    stripe = (0, 0, 256, 20)
    assert coloured(drawn(labels), 1)[:14].any()
    assert not coloured(drawn(labels, reserved=(stripe,)), 1)[:14].any()


def test_a_slice_drawn_to_another_aspect_keeps_contours_on_the_lesion():
    pixels = drawn(labelled((10, 40)), size=(128, 320))
    rows, columns = np.nonzero(coloured(pixels, 1)[:, : 44 * 2 + 1])
    assert (rows.max(), columns.min()) == (14 * 5, 40 * 2 - 1)


def test_a_slice_without_lesions_is_grey():
    pixels = drawn(np.zeros(GREY.shape, np.int32))
    np.testing.assert_array_equal(pixels, np.asarray(Image.new("RGB", (256, 256), (40, 40, 40))))


def test_each_part_of_a_lesion_has_its_number():
    one = labelled((10, 10))
    both = one + labelled((40, 40))
    assert number_pixels(drawn(both), both, 1) == 2 * number_pixels(drawn(one), one, 1)
