import unicodedata

import pytest

from stages.sources.portable_names import LONGEST, check_names, composed


def test_names_of_any_letters_are_fine() -> None:
    check_names(["a/猫 1.png", "a/b/1.png", "a/b/2.png", "b/1.png", "Ärger/ß.png", "a b/(1).png"])


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["a/1", "a/1"], "a/1: twice"),
        (["a/1", "a/1/2"], "a/1/2: leads through the file a/1"),
        (["a/1/2/3", "a/1"], "a/1: a file and a folder"),
        (["a/x", "a/X"], "a/X: differs from a/x in upper and lower case alone"),
        (["a/1", "A/2"], "A: differs from a in upper and lower case alone"),
        (["straße/1", "STRASSE/2"], "STRASSE: differs from straße in upper and lower case"),
        (["é", unicodedata.normalize("NFD", "é")], "differs from é in letters composed alone"),
        (["ok", "a\nb"], r"'a\\nb': not printable Unicode"),
        (["a\x00b"], r"'a\\x00b': not printable"),
        (["a\udcffb"], r"'a\\udcffb': not printable"),
        (["a" * (LONGEST + 1)], f"a path of {LONGEST + 1} characters"),
    ],
    ids=[
        *("twice", "through a file", "file and folder", "case", "case of a folder", "sharp s"),
        *("composed", "line feed", "zero", "no Unicode", "long"),
    ],
)
def test_names_that_are_not_the_same_everywhere_are_told(paths: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_names(paths)


def test_letters_are_composed() -> None:
    assert composed("e\u0301") == "\u00e9"
