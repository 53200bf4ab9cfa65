"""Where learning curves put their points, and what a long training shows."""

from matplotlib.figure import Figure

from ctr.report.learning import _draw_learning


def drawn(rows):
    axes = Figure().subplots()
    _draw_learning(axes, {"retrain": rows}, "valid AUC", "valid_auc")
    return axes.lines[0]


def look(number: int, looks: int = 10) -> dict:
    """The `number`-th look of a training with so many in an epoch."""
    return {"epoch": (number - 1) // looks + 1, "passes": number / looks, "valid_auc": 0.7}


def test_a_look_inside_an_epoch_stands_where_it_was():
    line = drawn([look(number) for number in (5, 10, 15)])
    assert line.get_xdata().tolist() == [0.5, 1.0, 1.5]
    assert line.get_markersize() > 0


def test_a_run_that_tells_epochs_alone_is_drawn_by_epoch():
    rows = [{"epoch": number, "valid_auc": 0.7} for number in (1, 2)]
    assert drawn(rows).get_xdata().tolist() == [1, 2]


def test_points_of_a_long_training_do_not_hide_its_line():
    assert drawn([look(number) for number in range(1, 61)]).get_markersize() == 0.0
