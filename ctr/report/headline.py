"""The verdict of a run in plain words, and the numbers that matter."""

from typing import Literal, NamedTuple

from ctr.report.units import Report, change, count, decimal, known, pick, share, signed, size

Outcome = Literal["gain", "even", "loss", "baseline"]


class Tile(NamedTuple):
    """A number that matters, its name and what it is compared with."""

    name: str
    value: str
    note: str


def outcome(report: Report) -> Outcome:
    """Where the 95 % interval of the AUC difference lies: above zero, around it, or below it."""
    low, high = (pick(report, "difference", "test_auc", bound) for bound in ("low", "high"))
    if not known(low) or not known(high):
        return "baseline"
    return "gain" if low > 0 else "loss" if high < 0 else "even"


def verdict(report: Report) -> str:
    """One sentence or two: what dropping features did to test AUC, how many are kept, and what it saves."""
    kind = outcome(report)
    rows = pick(report, "dataset", "rows", "test")
    if kind == "baseline":
        auc = decimal(pick(report, "baseline", "test", "auc"))
        return (
            f"Keep-all baseline only: test AUC {auc} on {count(rows)} rows, "
            f"{size(pick(report, 'baseline', 'table_bytes'))} of tables. No features were selected."
        )
    value, low, high = (report["difference"]["test_auc"][part] for part in ("value", "low", "high"))
    kept = _chosen(report)
    bounds = f"95 % interval {signed(low)} to {signed(high)}"
    saving = _saving(pick(report, "baseline", "table_bytes"), pick(report, "selected", "table_bytes"))
    if kind == "gain":
        return f"A gain: {kept} raises test AUC by {decimal(value)} ({bounds}); {saving}."
    if kind == "loss":
        return f"A loss: {kept} lowers test AUC by {decimal(-value)} ({bounds}); {saving}."
    caveat = (
        f" A loss of up to {decimal(-low)} is not ruled out by {count(rows)} test rows." if low < 0 else ""
    )
    return f"No loss beyond noise: {kept} changes test AUC by {signed(value)} ({bounds}); {saving}.{caveat}"


def _chosen(report: Report) -> str:
    """What was selected: how many features, how many pairs."""
    kept = f"keeping {share(pick(report, 'feature_set', 'ratio'))} of the features"
    methods = pick(report, "feature_set", "interactions") or {}
    memorized, factorized = methods.get("memorize"), methods.get("factorize")
    if not known(memorized) or not known(factorized):
        return kept
    pairs = f"memorizing {count(memorized)} and factorizing {count(factorized)} pairs"
    return pairs if pick(report, "selector") == "optinter" else f"{kept}, {pairs},"


def _saving(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "the size of the tables is unknown"
    if before == after:
        return f"tables stay at {size(after)}"
    return f"tables {'shrink' if after < before else 'grow'} from {size(before)} to {size(after)}"


def tiles(report: Report) -> list[Tile]:
    """List the numbers that matter, most important first; what does not apply is left out."""
    keep_all, chosen = pick(report, "baseline", "test", "auc"), pick(report, "selected", "test", "auc")
    found = [Tile("test AUC, keep all", decimal(keep_all), f"log loss {_logloss(report, 'baseline')}")]
    if outcome(report) != "baseline":
        low, high = (pick(report, "difference", "test_auc", bound) for bound in ("low", "high"))
        difference = f"difference {signed(low)} to {signed(high)} (95 %)"
        found.append(Tile("test AUC, selected", decimal(chosen), difference))
    kept, total = pick(report, "feature_set", "kept"), pick(report, "feature_set", "total")
    if known(total):
        ratio = share(pick(report, "feature_set", "ratio"))
        found.append(Tile("features kept", ratio, f"{count(kept)} of {count(total)} values"))
    before, after = pick(report, "baseline", "table_bytes"), pick(report, "selected", "table_bytes")
    if known(after):
        note = f"{change(before, after)} from {size(before)}"
        found.append(Tile("embedding tables", size(after), note))
    if known(pick(report, "bundle", "bytes")):
        found.append(Tile("scoring bundle", size(pick(report, "bundle", "bytes")), "on disk, all it needs"))
    ceiling = pick(report, "ceiling")
    if ceiling:
        best, name = pick(ceiling, "selected_share"), "selected"
        if not known(best):
            best, name = pick(ceiling, "baseline_share"), "keep all"
        note = f"keep all {share(pick(ceiling, 'baseline_share'))}; best AUC {decimal(ceiling['test_auc'])}"
        found.append(Tile(f"of reachable AUC, {name}", share(best), note))
    return found


def _logloss(report: Report, model: str) -> str:
    return decimal(pick(report, model, "test", "logloss"))
