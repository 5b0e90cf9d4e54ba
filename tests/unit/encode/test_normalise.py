from io import BytesIO

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from msnode.encode import normalise
from msnode.encode.normalise import INHERITED, REQUIRED_EMPTY, legal_value, tolerant_values


def header(**attributes):
    """A header as it comes out of a file: raw, decoded when first looked at."""
    ds = Dataset()
    ds.StudyInstanceUID, ds.SOPInstanceUID, ds.PatientID = "1.2.3", "1.2.3.4", "P1"
    with tolerant_values():
        for keyword, value in attributes.items():
            setattr(ds, keyword, value)
        buffer = BytesIO()
        dcmwrite(buffer, ds, implicit_vr=False, little_endian=True)
        buffer.seek(0)
        return dcmread(buffer, force=True)


CHARACTER_SETS = [
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    (["", "ISO 2022 IR 87"], "Yamamoto^Shin=山本^申=やまもと^しん"),  # with the bytes of delimiters
    ("GBK", "Wang^Cheng=乗^東"),
    ("ISO_IR 127", "قباني^لنزار"),
    ("ISO_IR 126", "Διονυσίου^Άννα"),
    ("ISO_IR 138", "שרון^דבורה"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
    ("ISO_IR 144", "Соколова^Анна"),
    ("ISO_IR 100", "Müller^Jörg"),
    ("ISO_IR 192", "Ćwikła^Łukasz=王^小东"),
    (None, "Plain^Name"),
]


@pytest.mark.parametrize(("character_set", "name"), CHARACTER_SETS)
def test_text_of_every_character_set_becomes_utf8(character_set, name):
    source = header(SpecificCharacterSet=character_set, PatientName=name, PatientComments=name)
    clean = normalise(source).dataset
    buffer = BytesIO()
    dcmwrite(buffer, clean, implicit_vr=False, little_endian=True)
    again = dcmread(BytesIO(buffer.getvalue()), force=True)
    assert again.SpecificCharacterSet == "ISO_IR 192"
    assert str(again.PatientName) == name
    assert again.PatientComments == name
    assert name.encode() in buffer.getvalue()


def test_text_inside_sequences_is_decoded_too():
    item = Dataset()
    item.RequestedProcedureDescription, item.RequestedProcedureID = "Schädel", "R1"
    source = header(SpecificCharacterSet="ISO_IR 100", RequestAttributesSequence=[item])
    copied = normalise(source).dataset.RequestAttributesSequence[0]
    assert copied.RequestedProcedureDescription == "Schädel"
    assert copied.RequestedProcedureID == "R1"


def test_missing_type_2_attributes_are_written_empty_and_named():
    source = Dataset()
    source.StudyInstanceUID = "1.2.3"
    clean = normalise(source)
    for keyword in REQUIRED_EMPTY:
        assert keyword in clean.dataset
        assert not clean.dataset[keyword].value
        assert any(keyword in defect for defect in clean.defects)
    assert clean.patient_key == ("", "")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", "W"),
        ("PatientSex", "female"),
        ("PatientBirthDate", "19701332"),
        ("PatientBirthDate", "1970.01.02"),
        ("PatientBirthDate", "unknown"),
        ("StudyDate", "20230231"),
        ("StudyTime", "256199"),
        ("StudyTime", "10:11:12"),
    ],
)
def test_illegal_type_2_values_are_emptied_and_named_without_their_value(keyword, value):
    clean = normalise(header(**{keyword: value}))
    assert keyword in clean.dataset
    assert not clean.dataset[keyword].value
    (defect,) = [d for d in clean.defects if d.startswith(keyword)]
    assert "emptied" in defect
    assert value not in defect


@pytest.mark.parametrize(
    ("keyword", "value"),
    [("TimezoneOffsetFromUTC", "+99"), ("PatientBirthTime", "noon"), ("PatientIdentityRemoved", "no!")],
)
def test_illegal_optional_values_are_left_out(keyword, value):
    clean = normalise(header(**{keyword: value}))
    assert keyword not in clean.dataset
    assert any(d.startswith(keyword) and "left out" in d for d in clean.defects)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "P" * 80),
        ("AccessionNumber", "A-2024-0000000000017"),
        ("StudyID", "a study id of more than sixteen"),
        ("PatientName", "Doe^Jane^^^^^^"),
        ("PatientSex", "O"),
        ("StudyDate", "20240229"),
        ("StudyTime", "235960"),
        ("TimezoneOffsetFromUTC", "-0330"),
        ("FrameOfReferenceUID", "1.2.3.004"),
    ],
)
def test_what_can_be_kept_is_kept_unchanged(keyword, value):
    assert str(normalise(header(**{keyword: value})).dataset[keyword].value) == value


def test_an_illegal_study_uid_is_kept_and_named():
    clean = normalise(header(StudyInstanceUID="1.2.03"))
    assert clean.dataset.StudyInstanceUID == "1.2.03"
    assert any("StudyInstanceUID" in d and "kept" in d for d in clean.defects)


def test_a_uid_in_letters_that_no_uid_has_is_left_out():
    ds = header()
    ds.FrameOfReferenceUID = "\ufffd\ufffd"
    clean = normalise(ds)
    assert "FrameOfReferenceUID" not in clean.dataset
    assert clean.identity_digest


def test_an_empty_accession_number_stays_empty_and_is_no_defect():
    clean = normalise(header(AccessionNumber=""))
    assert not clean.dataset.AccessionNumber
    assert not any("AccessionNumber" in d for d in clean.defects)


def test_issuers_are_copied_with_their_qualifiers():
    issuer, qualifiers = Dataset(), Dataset()
    issuer.LocalNamespaceEntityID = "RIS"
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = "1.2.9", "ISO"
    clean = normalise(
        header(
            IssuerOfPatientID="HOSP",
            IssuerOfPatientIDQualifiersSequence=[qualifiers],
            AccessionNumber="A1",
            IssuerOfAccessionNumberSequence=[issuer],
        )
    )
    assert clean.patient_key == ("HOSP", "P1")
    assert clean.dataset.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.9"
    assert clean.dataset.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "RIS"


def test_illegal_values_inside_sequences_are_emptied_and_private_elements_left_out():
    item = Dataset()
    with tolerant_values():
        item.RequestedProcedureID, item.ScheduledProcedureStepStartDate = "R1", "tomorrow"
    item.ReferencedStudySequence = []
    item.add(DataElement(Tag(0x0009, 0x0010), "LO", "SOMEONE"))
    copied = normalise(header(RequestAttributesSequence=[item])).dataset.RequestAttributesSequence[0]
    assert copied.RequestedProcedureID == "R1"
    assert not copied.ReferencedStudySequence
    assert not copied.ScheduledProcedureStepStartDate
    assert Tag(0x0009, 0x0010) not in copied


def test_values_of_another_kind_than_the_dictionary_says_do_no_harm():
    source = header()
    source.add(DataElement(Tag("PatientName"), "OB", b"\x01\x02"))
    source.add(DataElement(Tag("PatientID"), "US", 17))
    source.add(DataElement(Tag("RequestAttributesSequence"), "LO", "none"))
    clean = normalise(source).dataset
    assert not clean.PatientName
    assert clean.PatientID == "17"
    assert "RequestAttributesSequence" not in clean


def test_a_nested_value_of_another_type_is_emptied():
    ds = header()
    coded = Dataset()
    coded.CodeValue = "C1"
    with tolerant_values():
        coded.add(DataElement(Tag("SelectorULValue"), "UL", "many"))  # text where numbers belong
    request = Dataset()
    request.RequestedProcedureCodeSequence = [coded]
    ds.RequestAttributesSequence = [request]
    clean = normalise(ds)
    (kept,) = clean.dataset.RequestAttributesSequence[0].RequestedProcedureCodeSequence
    assert (kept.CodeValue, kept.SelectorULValue) == ("C1", None)
    assert "SelectorULValue (0072,0078) is not a legal value: emptied" in clean.defects
    assert clean.identity_digest


def test_text_that_no_character_set_has_can_still_be_written():
    ds = header()
    ds.StudyDescription = "MR \udcff head"
    clean = normalise(ds)
    assert clean.dataset.StudyDescription == "MR ? head"
    assert clean.identity_digest


def test_a_wrong_character_set_is_named_and_does_not_fail():
    source = header(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")
    raw = BytesIO()
    dcmwrite(raw, source, implicit_vr=False, little_endian=True)
    broken = dcmread(BytesIO(raw.getvalue().replace(b"ISO_IR 100", b"ISO_IR 192")), force=True)
    clean = normalise(broken)
    assert str(clean.dataset.PatientName).startswith("M")
    assert any("Specific Character Set" in d for d in clean.defects)


def with_bytes(text, encoded, declared):
    """A header in which `text` stands in these bytes, of the same number, under a declaration."""
    source = header(PatientName=text, PatientComments=text, OtherPatientNames=[text, "Doe"])
    if declared is not None:
        source.SpecificCharacterSet = declared
    raw = BytesIO()
    dcmwrite(raw, source, implicit_vr=False, little_endian=True)
    assert raw.getvalue().count(text.encode()) == 3
    return dcmread(BytesIO(raw.getvalue().replace(text.encode(), encoded)), force=True)


@pytest.mark.parametrize("declared", [None, "ISO_IR 6", ["", "ISO 2022 IR 87"]])
@pytest.mark.parametrize("name", ["Müller^Jörg", "Соколова", "Wang=王"])
def test_undeclared_utf8_is_read_as_utf8_and_named(name, declared):
    encoded = name.encode()
    clean = normalise(with_bytes("X" * len(encoded), encoded, declared))
    assert str(clean.dataset.PatientName) == clean.dataset.PatientComments == name
    assert [str(v) for v in clean.dataset.OtherPatientNames] == [name, "Doe"]
    (defect,) = [d for d in clean.defects if "Character Set" in d]
    assert "UTF-8" in defect


@pytest.mark.parametrize(
    ("name", "encoding"), [("Müller", "latin-1"), ("Иванова^Мария", "cp1251"), ("Wałęsa", "cp1250")]
)
def test_undeclared_text_that_is_no_utf8_is_kept_and_named_as_doubtful(name, encoding):
    encoded = name.encode(encoding)
    clean = normalise(with_bytes("X" * len(encoded), encoded, None))
    assert clean.dataset.PatientName == encoded.decode("latin-1")
    (defect,) = [d for d in clean.defects if "Character Set" in d]
    assert "may be wrong" in defect
    assert name not in defect


@pytest.mark.parametrize("name", ["Müller^Jörg", "Ñuñez", "Wałęsa", "Соколова", "Wang=王", "Łoś"])
def test_utf8_that_is_called_latin_1_is_read_as_utf8_and_named(name):
    encoded = name.encode()
    clean = normalise(with_bytes("X" * len(encoded), encoded, "ISO_IR 100"))
    assert str(clean.dataset.PatientName) == clean.dataset.PatientComments == name
    (defect,) = [d for d in clean.defects if "Character Set" in d]
    assert "UTF-8" in defect


@pytest.mark.parametrize("text", ["Müller^Jörg", "à 37 Â°", "CAFÉ»", "Ã", "Straße 5 ½"])
def test_latin_1_stays_latin_1(text):
    clean = normalise(with_bytes("X" * len(text), text.encode("latin-1"), "ISO_IR 100"))
    assert clean.dataset.PatientComments == text
    assert not [d for d in clean.defects if "Character Set" in d]


@pytest.mark.parametrize(
    ("text", "declared", "encoding"),
    [
        ("KÓŁKO", "ISO_IR 101", "iso8859-2"),
        ("ЦИЦИ", "ISO_IR 144", "iso8859-5"),
        ("รก", "ISO_IR 166", "iso8859-11"),
        ("Müller", ["", "ISO 2022 IR 100"], "latin-1"),
    ],
)
def test_text_of_another_set_that_happens_to_be_utf8_is_not_rewritten(text, declared, encoding):
    encoded = text.encode(encoding)
    clean = normalise(with_bytes("X" * len(encoded), encoded, declared))
    assert clean.dataset.PatientComments == text
    assert not [d for d in clean.defects if "Character Set" in d]


def test_control_characters_in_latin_1_are_doubtful():
    clean = normalise(with_bytes("Dxoe", b"D\x91oe", "ISO_IR 100"))
    assert any("may be wrong" in d for d in clean.defects)


def test_chinese_by_escape_sequences_has_none_left():
    encoded = b"Zhang=\x1b$)A" + "张".encode("gb2312")
    clean = normalise(with_bytes("X" * len(encoded), encoded, ["", "ISO 2022 IR 58"]))
    assert str(clean.dataset.PatientName) == clean.dataset.PatientComments == "Zhang=张"
    assert not [d for d in clean.defects if "Character Set" in d]


def test_the_source_header_stays_as_it_is():
    source = header(PatientSex="W", SpecificCharacterSet=["", "ISO 2022 IR 87"])
    normalise(source)
    with tolerant_values():
        assert source.PatientSex == "W"
        assert "StudyDate" not in source


def test_legal_value_gives_one_attribute_where_it_can_be_used():
    source = header()
    source.add(DataElement(Tag("LossyImageCompressionRatio"), "LO", "ten"))
    assert legal_value(source, "PatientID") == "P1"
    assert legal_value(source, "LossyImageCompressionRatio") is None
    assert legal_value(source, "StudyDate") is None


def _item(value):
    item = Dataset()
    item.CodeValue = value
    return [item]


_VALUES = {"DA": "19800102", "TM": "1011", "CS": "O", "UI": "1.2.9", "SQ": _item("V1")}


@pytest.mark.parametrize("keyword", INHERITED)
def test_each_inherited_attribute_is_a_part_of_the_identity(keyword):
    value = "+0900" if keyword == "TimezoneOffsetFromUTC" else _VALUES.get(dictionary_VR(keyword), "other")
    changed = normalise(header(**{keyword: value}))
    assert changed.dataset[keyword].value
    assert changed.identity_digest != normalise(header()).identity_digest


def test_an_attribute_inside_a_sequence_is_a_part_of_the_identity():
    one, other = (normalise(header(RequestAttributesSequence=_item(v))) for v in ("R1", "R2"))
    assert one.identity_digest != other.identity_digest


def test_what_results_do_not_copy_is_no_part_of_the_identity():
    other = header(
        SeriesDescription="other", InstitutionName="other", SOPInstanceUID="1.2.9", PatientAge="044Y"
    )
    assert normalise(other).identity_digest == normalise(header()).identity_digest


def test_the_identity_does_not_depend_on_the_character_set():
    given = {"PatientName": "Müller^Jörg", "PatientComments": "Jörg"}
    one, other = (normalise(header(SpecificCharacterSet=s, **given)) for s in ("ISO_IR 100", "ISO_IR 192"))
    assert one.identity_digest == other.identity_digest


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "attributes",
    [
        {"PatientName": "Doe^Jane ", "PatientComments": " two lines \r\n", "PatientSex": "W"},
        {
            "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
            "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
        },
        {"OtherPatientIDs": ["A", "B "], "AccessionNumber": "0123456789ABCDEF0", "StudyDate": "20230231"},
        {"RequestAttributesSequence": _item(" padded "), "OtherPatientIDsSequence": []},
        {"StudyInstanceUID": "1.2.x", "TimezoneOffsetFromUTC": "+9", "PatientBirthTime": "10:11"},
    ],
)
def test_a_result_tells_the_identity_that_it_was_given(attributes):
    given = normalise(header(**attributes))
    with tolerant_values():
        buffer = BytesIO()
        dcmwrite(buffer, given.dataset, implicit_vr=False, little_endian=True)
    read = dcmread(BytesIO(buffer.getvalue()), force=True)
    assert normalise(read).identity_digest == given.identity_digest
