import unicodedata

import pytest

from stages.sources.portable_names import MAX_LENGTH, check_names, composed


def test_names_in_any_script_are_accepted() -> None:
    check_names(["a/猫 1.png", "a/b/1.png", "a/b/2.png", "b/1.png", "Ärger/ß.png", "a b/(1).png"])


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (["a/1", "a/1"], "a/1: found twice"),
        (["a/1", "a/1/2"], "a/1/2: leads through the file a/1"),
        (["a/1/2/3", "a/1"], "a/1: both a file and a folder"),
        (["a/x", "a/X"], "a/X: differs from a/x only in case"),
        (["a/1", "A/2"], "A: differs from a only in case"),
        (["straße/1", "STRASSE/2"], "STRASSE: differs from straße only in case"),
        (["é", unicodedata.normalize("NFD", "é")], "differs from é only in Unicode normalization"),
        (["ok", "a\nb"], r"'a\\nb': not printable Unicode"),
        (["a\x00b"], r"'a\\x00b': not printable"),
        (["a\udcffb"], r"'a\\udcffb': not printable"),
        (["a" * (MAX_LENGTH + 1)], f"found a path of {MAX_LENGTH + 1} characters"),
    ],
    ids=[
        *("twice", "through a file", "file and folder", "case", "case of a folder", "sharp s"),
        *("normalization", "line feed", "null character", "not Unicode", "too long"),
    ],
)
def test_names_that_are_not_portable_are_refused(paths: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_names(paths)


def test_upper_case_without_a_composed_form_is_the_same_name_as_its_lower_case() -> None:
    lower = "\u0390"  # iota with two accents, which has no upper case in one character
    upper = composed(lower.upper())
    assert upper.casefold() != lower.casefold()  # they match only after composing once more
    with pytest.raises(ValueError, match="only in case"):
        check_names([lower, upper])


def test_composed_joins_a_letter_and_its_accent() -> None:
    assert composed("e\u0301") == "\u00e9"
