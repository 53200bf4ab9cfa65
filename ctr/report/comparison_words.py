"""What a comparison comes to, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctr.report.units import count, decimal, size


def setting_words(setting: Mapping[str, Any], *, where: bool = False) -> str:
    """`optfs at 20 %` of the values; with `where` also the backbone and the embedding."""
    name = (
        setting["label"] if setting["size"] is None else f"{setting['label']} at {100 * setting['size']:g} %"
    )
    return f"{name}, {setting['backbone']}, {setting['embedding']}" if where else str(name)


def margin_words(difference: Mapping[str, Any], margin: float) -> str:
    """What an interval says about a margin, for all comparisons at once.

    `no loss beyond 0.001`, `loses 0.0021 (0.0009 to 0.0033)`, `not decided: ...`.
    """
    value = difference["auc"]["value"]
    low, high = (difference["auc_corrected"][bound] for bound in ("low", "high"))
    return _words(difference, margin, value, low, high)


def _words(difference: Mapping[str, Any], margin: float, value: float, low: float, high: float) -> str:
    outcome = difference["outcome"]
    if outcome == "gain":
        text = f"gains {decimal(value)} ({decimal(low)} to {decimal(high)})"
    elif outcome == "no_loss":
        text = f"no loss beyond {margin:g}"
    elif outcome == "loss":
        text = f"loses {decimal(-value)} ({decimal(-high)} to {decimal(-low)})"
    else:
        text = f"not decided: this log can prove no margin under {difference['provable']:.2g}; "
        text += more_words(difference["more_rows"], margin)
    return text if difference["seeds_known"] else f"{text} (this model only)"


def more_words(rows: int | None, margin: float) -> str:
    """How much more would decide."""
    if rows is None:
        return f"seeds differ by more than {margin:g}: more seeds would, more rows alone would not"
    if rows == 0:
        return "rows are enough for a model that loses nothing, and this one may lose that much"
    return f"about {count(_round(rows))} more rows would"


def _round(rows: int) -> float:
    return float(f"{rows:.2g}")


def verdict_words(document: Mapping[str, Any]) -> str:
    """The sentences that the page opens with."""
    margin, choice = document["margin"]["max_auc_loss"], document["choice"]
    chosen = choice["chosen"]
    if document.get("no_choice"):
        return (
            f"Nothing was chosen on valid: {document['no_choice']}. What each set costs stands in the table."
        )
    if chosen is None:
        limits = ", ".join(f"{name} = {limit:g}" for name, limit in document["budget"].items())
        reason = f"No set of the grid fits the budget ({limits})" if limits else "Nothing was selected"
        return f"{reason}; keep-all has test AUC {decimal(document['keep_all']['test']['auc']['mean'])}."
    found = next(each for each in document["settings"] if same(each, chosen))
    keep_all = next(each for each in document["settings"] if same(each, _keep_all(chosen)))
    primary = found["differences"].get("keep_all")
    sizes = f"tables go from {size(keep_all['table_bytes'])} to {size(found['table_bytes'])}"
    words = primary["sentence"] if primary else "there is no keep-all to compare it with"
    sentences = [f"{_opening(document, chosen)}: {words}; {sizes}."]
    rival = found["differences"].get("alternative")
    if rival is not None:
        sentences.append(rival_words(rival, margin))
    if not document["budget"]:
        sentences += _choice_words(choice)
    return " ".join(sentences)


def _choice_words(choice: Mapping[str, Any]) -> list[str]:
    """What valid could not say, where the chosen set is not the cheapest of those that are as good as the best."""
    if choice["standard_error"] == "unknown":
        return [
            "The standard error on valid is unknown, with fewer than three seeds and no scores of its rows: the best "
            "set was taken, not the cheapest one near it."
        ]
    over = "" if choice["standard_error"] == "known" else " (over rows: with so few seeds theirs is unknown)"
    if not any(each["role"] == "selector" for each in choice["within_one_standard_error"]):
        return [f"No set came within one standard error{over} of keep-all on valid."]
    if choice["cheapest"]["role"] == "keep_all":
        return [f"Keep-all is the cheapest of all within one standard error{over} of the best on valid."]
    return []


def rival_words(rival: Mapping[str, Any], margin: float) -> str:
    """How the set does against the alternatives of about as many bytes: the best on valid, and all others."""
    only = "" if rival["seeds_known"] else " (this model only)"
    beaten = [each for each in (rival, *rival["others"]) if each["auc"]["low"] > 0.0]
    if len(beaten) == 1 + len(rival["others"]):
        next_one = f"{setting_words(rival['other'])}, {_interval(rival['auc'])}"
        return f"It is better than every cheap alternative of about as many bytes{only} (next: {next_one})."
    told = rival if rival not in beaten else min(rival["others"], key=lambda each: each["auc"]["low"])
    high = told["auc"]["high"]
    if high > margin:
        start = "It cannot be told from a cheap alternative of"
    else:
        start = f"A cheap alternative is {'better' if high < 0.0 else 'as good'} at"
    return f"{start} about as many bytes{only}: {setting_words(told['other'])} (difference {_interval(told['auc'])})."


def _interval(auc: Mapping[str, float]) -> str:
    return f"{auc['value']:+.4f}, {auc['low']:+.4f} to {auc['high']:+.4f}"


def whom_words(differences: Sequence[Mapping[str, Any]]) -> str:
    """Whom intervals speak about, beside other rows, as the end of a sentence about these."""
    known = {each["seeds_known"] for each in differences}
    if known == {True}:
        return " and other training seeds"
    if known == {False}:
        return ", and of these models only: fewer than three seeds tell nothing about others"
    return ' and, but where it says "this model only", other training seeds'


def _opening(document: Mapping[str, Any], chosen: Mapping[str, Any]) -> str:
    several = len({(each["backbone"], each["embedding"]) for each in document["settings"]}) > 1
    why = "Best on valid within the budget" if document["budget"] else "Chosen on valid"
    return f"{why}, {setting_words(chosen, where=several)}"


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether both are the same setting."""
    return all(one[key] == other[key] for key in ("role", "label", "size", "backbone", "embedding"))


def _keep_all(setting: Mapping[str, Any]) -> dict[str, Any]:
    return {**setting, "role": "keep_all", "label": "keep all", "size": None}
