from ctr.report import verdict
from ctr.report.headline import outcome, tiles


def between(report, value, low, high):
    report["difference"]["test_auc"] = {"value": value, "low": low, "high": high}
    return report


def test_an_interval_around_zero_is_no_loss_and_says_what_it_cannot_rule_out(report):
    assert outcome(report) == "even"
    assert verdict(report) == (
        "No loss beyond noise: keeping 31.1 % of the features changes test AUC by +0.0007 "
        "(95 % interval -0.0011 to +0.0025); tables shrink from 358 kB to 111 kB. "
        "A loss of up to 0.0011 is not ruled out by 20,000 test rows."
    )


def test_an_interval_above_zero_is_a_gain(report):
    assert outcome(between(report, 0.0021, 0.0009, 0.0033)) == "gain"
    assert verdict(report).startswith(
        "A gain: keeping 31.1 % of the features raises test AUC by 0.0021 (95 %"
    )


def test_an_interval_below_zero_is_a_loss(report):
    assert outcome(between(report, -0.0021, -0.0033, -0.0009)) == "loss"
    assert verdict(report).startswith(
        "A loss: keeping 31.1 % of the features lowers test AUC by 0.0021 (95 %"
    )


def test_two_equal_models_lose_nothing_and_need_no_caveat(report):
    assert outcome(between(report, 0.0, 0.0, 0.0)) == "even"
    assert "not ruled out" not in verdict(report)


def test_a_run_without_selection_states_its_baseline(report):
    report |= {"selected": None, "difference": None, "feature_set": None}
    assert outcome(report) == "baseline"
    assert verdict(report).startswith(
        "Keep-all baseline only: test AUC 0.7812 on 20,000 rows, 358 kB of tables."
    )


def test_growing_tables_are_not_called_a_saving(report):
    report["selected"]["table_bytes"] = 2 * report["baseline"]["table_bytes"]
    assert "tables grow from 358 kB to 715 kB" in verdict(report)


def test_the_tiles_hold_the_numbers_that_matter(report):
    shown = {tile.name: (tile.value, tile.note) for tile in tiles(report)}
    assert shown == {
        "test AUC, keep all": ("0.7812", "log loss 0.4301"),
        "test AUC, selected": ("0.7819", "difference -0.0011 to +0.0025 (95 %)"),
        "features kept": ("31.1 %", "1,637 of 5,260 values"),
        "embedding tables": ("111 kB", "-68.9 % from 358 kB"),
        "scoring bundle": ("412 kB", "on disk, all it needs"),
        "of reachable AUC, selected": ("96.5 %", "keep all 96.3 %; best AUC 0.7921"),
    }
