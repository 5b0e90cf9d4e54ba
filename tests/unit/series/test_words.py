# ruff: noqa: RUF001 - the words of several alphabets are the point

import pytest

from msnode.series.words import (
    DERIVED,
    FLAIR,
    NOT_DERIVED,
    contrast_word,
    may_be_a_head,
    names_an_agent,
    names_the_head,
    normalised,
    other_part_of_the_body,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t2_tirm_tra_dark-fluid", "t2 tirm tra dark fluid"),
        ("  Ax T1,Flair +C ", "ax t1 flair +c"),
        ("ＦＬＡＩＲ 造影後", "flair 造影後"),
        ("造影FLAIR", "造影 flair"),
        ("FLAIR après injection", "flair apres injection"),
        ("BEYİN kontrastlı GŁOWA Schädel", "beyin kontrastli glowa schadel"),
        ("조영증강", "조영증강"),
        ("", ""),
    ],
)
def test_descriptions_become_plain_words(text: str, words: str) -> None:
    assert normalised(text) == words


@pytest.mark.parametrize(
    "text", ["FLAIR", "dark-fluid", "t2_spc_da-fl_sag", "AX FLR", "T2压水", "флэйр", "FLAIRE"]
)
def test_words_for_a_flair(text: str) -> None:
    assert FLAIR.search(normalised(text))


@pytest.mark.parametrize("text", ["T2 flash", "florbetapir", "flare up", "reflected", "dark blood"])
def test_words_that_only_look_like_a_flair(text: str) -> None:
    assert not FLAIR.search(normalised(text))


@pytest.mark.parametrize(
    "text",
    [
        "+C", "C+", "POST", "post Gd", "KM", "nach KM", "con contraste", "dopo mdc", "après injection", "IV+",
        "с контрастом", "после КУ", "kontrastlı", "po kontraście", "造影", "增强", "조영증강",
        "Dotarem", "enhanced", "postcon", "s kontrastem", "po k.l.",
    ],
)  # fmt: skip
def test_contrast_agent_was_given(text: str) -> None:
    assert contrast_word(normalised(f"FLAIR {text}"))


@pytest.mark.parametrize(
    "text",
    [
        "", "C-", "pre contrast", "precontrast", "ohne KM", "vor KM", "nativ", "sans injection",
        "non injecté", "sin contraste", "senza mdc", "sem contraste", "zonder contrast", "без контраста",
        "kontrastsız", "control", "contrôle", "kontrola", "s/c",
        "bez kontrastu", "utan kontrast", "造影前", "未增强", "unenhanced", "posterior fossa",
        "post-op", "post biopsy", "Cor", "space",
    ],
)  # fmt: skip
def test_no_contrast_agent_was_given(text: str) -> None:
    assert contrast_word(normalised(f"FLAIR {text}")) == ""


@pytest.mark.parametrize("value", ["", "NONE", "no", "0", "0.0", "N/A", "kein KM", "without contrast", "无"])
def test_an_agent_field_that_names_no_agent(value: str) -> None:
    assert not names_an_agent(value)


@pytest.mark.parametrize("value", ["Gadovist", "YES", "10 ml Dotarem", "GD", "Novantrone"])
def test_an_agent_field_that_names_one(value: str) -> None:
    assert names_an_agent(value)


@pytest.mark.parametrize(
    "part", ["", "HEAD", "HEAD AND NECK", "Schädel", "CRÂNIO", "ENCEFALO", "头部", "ГОЛОВА", "UNKNOWN"]
)
def test_parts_that_may_be_a_head(part: str) -> None:
    assert may_be_a_head(part)


@pytest.mark.parametrize("part", ["CSPINE", "KNEE", "ABDOMEN", "HEART", "BREAST", "LEG"])
def test_parts_that_are_not(part: str) -> None:
    assert not may_be_a_head(part)


@pytest.mark.parametrize(
    "text", ["FLAIR HWS", "flair columna", "FLAIR 頸椎", "T2 FLAIR orbits", "FLAIR шейный отдел"]
)
def test_descriptions_of_other_parts(text: str) -> None:
    assert other_part_of_the_body(normalised(text))


@pytest.mark.parametrize(
    "text",
    [
        "FLAIR hippocampus",
        "FLAIR myelination",
        "FLAIR posterior fossa",
        "tra FLAIR",
        "head+neck FLAIR",
        "SpinEcho FLAIR",
    ],
)
def test_descriptions_of_heads(text: str) -> None:
    assert other_part_of_the_body(normalised(text)) == ""


@pytest.mark.parametrize(
    ("text", "word"),
    [("FLAIR recon", "recon"), ("FLAIR AIR Recon DL", None), ("FLAIR AIR Recon DL MPR", "mpr")],
)
def test_reconstruction_by_a_network_is_no_derived_series(text: str, word: str | None) -> None:
    found = DERIVED.search(NOT_DERIVED.sub(" ", normalised(text)))
    assert (found and found.group()) == word


@pytest.mark.parametrize(
    "text",
    [
        "Oliver", "Delivery trial", "Columbia", "Colombo", "Lombardia", "Lombardi", "Sacramento", "Herzog",
        "Herzberg", "Heartland", "Knieper", "Spinelli", "Schulterberg", "Orbitofrontal", "vertebrobasilar",
        "multiple myeloma", "Leber's", "Spallanzani", "Breasted", "Pelvin", "Neckar", "Hippocrates",
    ],
)  # fmt: skip
def test_people_places_and_projects_are_no_region(text: str) -> None:
    assert other_part_of_the_body(normalised(f"FLAIR {text}")) == ""


@pytest.mark.parametrize(
    "text",
    [
        "orbits", "Orbita", "orbitaler", "IAC", "IACs", "pituitary", "L-spine", "lumbar", "dorsolombaire",
        "rachide lombare", "lombosacré", "sacrum", "sacral", "thoracolumbar", "heart", "Herz", "liver",
        "Leber", "Knie", "Kniegelenk", "breast", "Hüftgelenk", "Schulter", "Becken", "vertebrae", "neck",
    ],
)  # fmt: skip
def test_words_for_another_region(text: str) -> None:
    assert other_part_of_the_body(normalised(f"FLAIR {text}"))


@pytest.mark.parametrize(
    "text",
    ["BRAIN/ORBITS", "Head + neck", "Kopf/HWS", "cerebro y orbitas", "Schädel + Orbita", "头颅", "T2头部"],
)
def test_text_that_names_the_head(text: str) -> None:
    assert names_the_head(normalised(text))


@pytest.mark.parametrize(
    "text",
    [
        "BrainVIEW FLAIR",
        "Brainlab C-spine",
        "Neurospine",
        "Moorhead",
        "cranio-cervical junction",
        "FLAIR",
        "",
    ],
)
def test_text_that_does_not_name_the_head(text: str) -> None:
    assert not names_the_head(normalised(text))
