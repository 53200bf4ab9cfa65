"""What people see while training goes on."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from ctr.training import progress
from ctr.training.looks import Look
from ctr.training.progress import stage_progress


def record(number: int, **extra: float) -> Look:
    return Look(number, number * 10, float(number), 2.0, 12_345.0, 0.51234, 0.76543, 0.5, 0.001, extra)


def shown(terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=200, color_system=None), text


def test_without_a_terminal_there_is_one_line_per_epoch():
    console, text = shown(terminal=False)
    with stage_progress(console, "baseline") as bar:
        for number in (1, 2):
            bar.step(number, 50, 100, 5000, 0.6)
            bar.step(number, 100, 100, 10_000, 0.55)
            bar.look(record(number))
    lines = text.getvalue().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        f"baseline epoch {number} loss 0.5123 valid AUC 0.7654 12,345 rows/s" for number in (1, 2)
    ]


def test_a_look_inside_an_epoch_is_shown_only_where_training_ended_with_it():
    console, text = shown(terminal=False)
    with stage_progress(console, "baseline") as bar:
        bar.look(replace(record(1), passes=0.5))
        bar.look(record(1))
        bar.look(replace(record(2), passes=1.5, valid_auc=None))
    assert [line.split()[2] for line in text.getvalue().splitlines()] == ["1", "2"]
    assert "valid" not in text.getvalue().splitlines()[1]


def test_a_search_also_shows_its_open_gates():
    console, text = shown(terminal=False)
    with stage_progress(console, "search") as bar:
        bar.look(record(3, open=0.4321, price=2.0))
    assert text.getvalue().rstrip().endswith("open 43.2%")


def test_the_bar_shows_epoch_speed_loss_and_time_left(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    console, text = shown(terminal=True)
    with stage_progress(console, "baseline") as bar:
        clock[0] = 2.0
        bar.step(1, 50, 100, 5000, 0.6)
        first = bar._progress.tasks[0]
        assert first.description == "baseline epoch 1  2,500 rows/s  loss 0.6000"
        assert (first.completed, first.total) == (50, 100)
        clock[0] = 4.0
        bar.look(record(1))
        assert bar._progress.tasks == []
        clock[0] = 5.0
        bar.step(2, 50, 100, 5000, 0.5)
        assert bar._progress.tasks[0].description == "baseline epoch 2  5,000 rows/s  loss 0.5000"
    assert "rows/s" in text.getvalue()


def test_the_bar_goes_when_training_fails():
    console, text = shown(terminal=True)

    def fail() -> None:
        with stage_progress(console, "baseline") as bar:
            bar.step(1, 1, 2, 10, 0.7)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    console.print("after")
    assert text.getvalue().rstrip().endswith("after")
