import csv

from stages.base.canonical_text import csv_text


def test_floats_have_six_decimals_and_none_is_empty() -> None:
    assert csv_text(["a", "b"], [(1, 0.1234567), ("x", None)]) == "a,b\n1,0.123457\nx,\n"


def test_csv_text_that_needs_quotes_reads_back_as_written() -> None:
    rows = [['a,"b"', "line\nbreak"], ["二", " space "]]
    assert list(csv.reader(csv_text(["n", "m"], rows).splitlines(keepends=True))) == [
        ["n", "m"],
        *rows,
    ]
