import pytest

from msnode.domain.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Ax FLAIR", "Ax FLAIR"),
        ("Größe, 脳, голова", "Größe, 脳, голова"),
        ("two\nlines", "two\nlines"),
        ("wide\u3000space\xa0here", "wide\u3000space\xa0here"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
        ("\udce9", "\\udce9"),
        ("tab\there\r", "tab\\there\\r"),
    ],
)
def test_what_would_be_obeyed_is_escaped(text, shown):
    assert printable(text) == shown
