"""Values -> CSV and JSON whose bytes depend on the content alone."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def csv_text(names: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """A header and one line per row: floats with six decimals, nothing for None, line feeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([f"{v:.6f}" if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()


def json_text(document: Mapping[str, Any]) -> str:
    """JSON with sorted keys, one to a line, and a final line feed: it merges and diffs well."""
    return json.dumps(document, ensure_ascii=False, indent=2, sort_keys=True) + "\n"
