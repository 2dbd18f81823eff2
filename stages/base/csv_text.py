"""Rows -> CSV whose bytes depend on the content alone."""

import csv
import io
from collections.abc import Iterable, Sequence


def csv_text(names: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """A header and one line a row: floats with six decimals, nothing for None, line feeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{v:.6f}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()
