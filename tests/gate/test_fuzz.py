"""Whatever a file holds, its reader answers or raises a ValueError that is one short line."""

import json
from collections.abc import Callable
from pathlib import Path

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stages.gate.lockfile import LOCK, PIPELINE, load_params
from stages.gate.predictions import parse_predictions
from stages.gate.results import Results, parse_metrics
from stages.gate.rules import Rules
from stages.gate.verdict import judge
from tests.gate.conftest import InMemory
from tests.repositories import RULES, metrics, predictions

TABLE = predictions(range(3), images=12)
MEASURED = json.dumps(metrics(TABLE))
GATE = yaml.safe_dump({"gate": RULES})
TOKENS = st.sampled_from(
    [
        *(b"\0", b"\r", b"\n", b'"', b",", b"\xef\xbb\xbf", b"\xff", b"\x1b[2J", b"nan", b"-inf"),
        *(b"null", b"true", b"[", b"]", b"{", b"}", b":", b"- ", b"&a ", b"*a", b"!!int ''"),
        *(b"9" * 400, b"[" * 5000, b'{"a":' * 5000, b"0x1", b"1:2:3", b"auto", b"2001-99-99"),
        *(b"<<<<<<< HEAD\n", b"--- \n", b"!!binary x", b"? ", b"<<: ", b"\t", b"1e999"),
        *("\u202e".encode(), "٢".encode()),
    ]
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """`good` with one to four slices replaced by tokens, by other slices or by any bytes."""
    content = good
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 40)))
        other = draw(st.integers(0, len(content)))
        content = (
            content[:start]
            + draw(TOKENS | st.binary(max_size=8) | st.just(content[other : other + 60]))
            + content[end:]
        )
    return content


def answers(read: Callable[[], object]) -> None:
    message = "none"
    try:
        read()
    except ValueError as error:
        message = str(error)
    assert 0 < len(message) < 2000
    assert "\n" not in message


fuzzed = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(st.binary() | damaged(MEASURED.encode()))
@example(b'{"a":' * 3000 + b"1" + b"}" * 3000)
@example(b'{"a": ' + b"9" * 5000 + b"}")
def test_any_metrics_file_is_read_or_refused_in_one_line(content: bytes) -> None:
    answers(lambda: parse_metrics(content, "metrics"))


@fuzzed
@given(damaged(TABLE.encode()), damaged(MEASURED.encode()) | st.just(MEASURED.encode()))
def test_any_results_are_compared_or_refused_in_one_line(table: bytes, measured: bytes) -> None:
    good = Results(
        "m", parse_metrics(MEASURED.encode(), "m"), parse_predictions(TABLE.encode(), "t"), 7
    )

    def compare() -> None:
        now = Results("m", parse_metrics(measured, "m"), parse_predictions(table, "t"), 7)
        now.check_agreement("t")
        judge(Rules.model_validate(RULES).by_metric, now, good, {}, accept_new_test_set=True)

    answers(compare)


@fuzzed
@given(damaged(GATE.encode()) | st.binary())
def test_any_rules_are_read_or_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    answers(lambda: Rules.load(path, "gate"))


@fuzzed
@given(st.data())
def test_any_lockfile_and_pipeline_are_read_or_refused_in_one_line(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from([PIPELINE, LOCK, "params.yaml"]))
    revision = InMemory("r", "c", {**files, path: data.draw(damaged(files[path]) | st.binary())})
    answers(lambda: Results.load(revision, RULES))
    answers(lambda: load_params(revision))
