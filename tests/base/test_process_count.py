import pytest

from stages.base.process_count import on_several_machines, processes_asked_for


@pytest.mark.parametrize(("text", "count"), [("3", 3), ("", None), (None, None)])
def test_processes_says_how_many(
    monkeypatch: pytest.MonkeyPatch, text: str | None, count: int | None
) -> None:
    monkeypatch.delenv("PROCESSES", raising=False)
    if text is not None:
        monkeypatch.setenv("PROCESSES", text)
    assert processes_asked_for() == count


def test_a_process_that_torchrun_started_starts_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSES", "3")
    monkeypatch.setenv("PET_NNODES", "2")
    assert on_several_machines()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert processes_asked_for() == 1
    assert not on_several_machines()


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", " ", "1001", "9" * 5000])
def test_an_invalid_processes_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("PROCESSES", text)
    with pytest.raises(
        ValueError, match=r"^PROCESSES: found '.*'; expected a whole number, 1 to 1000"
    ):
        processes_asked_for()
