"""Everything that `comparison.json` holds, and the rows of `comparison.parquet`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.feature_set import FeatureSet
from ctr.jobs.choices_alike import equal_runs, stability
from ctr.jobs.differences import Differences
from ctr.jobs.entries import Entry, Rows, Setting, by_setting
from ctr.jobs.report_facts import gates
from ctr.jobs.valid_choice import Choice
from ctr.report.comparison_words import margin_words, setting_words

_SIZES = ("kept", "ratio", "parameters", "bytes", "table_bytes", "bundle_bytes")


def build_document(
    entries: Sequence[Entry], test: Rows, choice: Choice, margin: float, budget: Mapping[str, float]
) -> dict[str, Any]:
    """Settings with their quality, sizes and differences; areas, stability, runs of equal quality.

    Args:
        entries: scored on test.
        test: its rows.
        choice: what stood before test was read.
    """
    groups = by_setting(entries)
    differences = Differences(groups, test, margin)
    settings = [_setting(own, differences, margin, choice) for own in groups.values()]
    keep_all = next((each for each in settings if each["role"] == "keep_all"), None)
    return {
        "rows": len(test),
        "positives": int(test.labels.sum()),
        "clustered": test.clusters is not None,
        "margin": {"max_auc_loss": margin},
        "budget": dict(budget),
        "comparisons": len(differences.all),
        "level": differences.level,
        "left_out": differences.left_out,
        "warnings": _warnings(entries),
        "seeds": sorted({entry.seed for entry in entries}),
        "keep_all": keep_all,
        "choice": choice.plain(),
        "settings": settings,
        "areas": areas(groups),
        "stability": stability(groups),
        "equal_runs": equal_runs([] if choice.best is None else entries, margin),
        "retired": _retired(groups, choice),
        "chosen_set": _chosen_set(groups, choice),
    }


def _warnings(entries: Sequence[Entry]) -> list[str]:
    """What makes numbers mean less than they seem to."""
    constant = [entry for entry in entries if np.ptp(entry.test) == 0.0]
    return [
        f'"{setting_words(entry.setting._asdict(), where=True)}" with seed {entry.seed} gives every test row the same '
        "probability: it ranks nothing"
        for entry in constant
    ]


def _setting(
    entries: Sequence[Entry], differences: Differences, margin: float, choice: Choice
) -> dict[str, Any]:
    setting = entries[0].setting
    costs = [entry.facts["cost"] for entry in entries]
    found = {}
    for against in ("keep_all", "frequency", "alternative"):
        compared = differences.of(setting, against)
        if compared is not None:
            plain = differences.plain(compared)
            primary = setting == choice.chosen and against == "keep_all"
            if primary:
                # One comparison, stated before test was read: nothing to correct for.
                decision = differences.decision(compared, corrected=False)
                plain |= {"outcome": decision.outcome, "provable": decision.provable}
                plain["more_rows"] = decision.more_rows
                alone = {**plain, "auc_corrected": plain["auc"]}
            found[against] = {**plain, "sentence": margin_words(alone if primary else plain, margin)}
    return {
        **setting._asdict(),
        "seeds": [entry.seed for entry in entries],
        **{key: _mean([entry.facts[key] for entry in entries]) for key in _SIZES},
        **{key: _mean([entry.pairs[key] for entry in entries]) for key in entries[0].pairs},
        "total": entries[0].facts["total"],
        "fields_kept": _mean([entry.fields_kept for entry in entries]),
        "cost": None if None in costs else _mean([cost["kept"] for cost in costs]),
        "shadow": [entry.facts.get("shadow") for entry in entries],  # cells of earlier versions do not say
        "seconds": _mean([sum(entry.facts["seconds"].values()) for entry in entries]),
        "valid": {
            name: _spread([entry.facts["valid"][name] for entry in entries]) for name in ("auc", "logloss")
        },
        "test": {
            name: _spread([entry.facts["test"][name] for entry in entries])
            for name in ("auc", "logloss", "ece", "calibration_ratio")
        },
        "differences": found,
        "chosen": setting == choice.chosen,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds; None with one seed."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "deviation": deviation, "by_seed": list(values)}


def areas(groups: Mapping[Setting, Sequence[Entry]]) -> list[dict[str, Any]]:
    """The area under each selector's curve of AUC over the logarithm of the share kept, divided by its width.

    So it is a mean AUC: of a selector over sizes, as of a seed. None where there is one size alone.
    """
    curves: dict[tuple[str, str, str], dict[int, list[tuple[float, float, float]]]] = {}
    for setting, entries in groups.items():
        if setting.size is None or setting.role == "keep_all":
            continue
        of_curve = curves.setdefault((setting.label, setting.backbone, setting.embedding), {})
        for entry in entries:
            aucs = [entry.facts[part]["auc"] for part in ("valid", "test")]
            place = (float(np.log(setting.size)), aucs[0], aucs[1])
            of_curve.setdefault(entry.seed, []).append(place)
    rows = []
    for (label, backbone, embedding), seeds in curves.items():
        by_seed = [_area(sorted(points)) for points in seeds.values() if len(points) > 1]
        if by_seed:
            valid, on_test = zip(*by_seed, strict=True)
            rows.append(
                {
                    "label": label,
                    "backbone": backbone,
                    "embedding": embedding,
                    "valid": _spread(valid),
                    "test": _spread(on_test),
                }
            )
    return rows


def _area(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    places, valid, test = (np.array(column) for column in zip(*points, strict=True))
    width = places[-1] - places[0]
    return float(np.trapezoid(valid, places) / width), float(np.trapezoid(test, places) / width)


def _retired(groups: Mapping[Setting, Sequence[Entry]], choice: Choice) -> dict[str, Any]:
    """Fields and groups of fields of which the chosen set keeps nothing, with any seed: they can go, jointly."""
    if choice.chosen is None:
        return {"fields": [], "groups": []}
    entries = groups[choice.chosen]
    fields = [
        name
        for name in entries[0].facts["fields"]
        if not any(entry.facts["fields"][name] for entry in entries)
    ]
    together = entries[0].facts["groups"] or {}
    gone = [name for name in together if not any(entry.facts["groups"][name]["kept"] for entry in entries)]
    return {"fields": fields, "groups": gone}


def _chosen_set(groups: Mapping[Setting, Sequence[Entry]], choice: Choice) -> dict[str, Any] | None:
    """What the chosen set keeps with its first seed, and how its gates lie; as in a run's report."""
    path = groups[choice.chosen][0].feature_set if choice.chosen else None
    if path is None:
        return None
    feature_set = FeatureSet.load(path)
    return {"feature_set": feature_set.counts(), "gates": gates(feature_set)}


def points_table(document: Mapping[str, Any], entries: Sequence[Entry]) -> pl.DataFrame:
    """One row per trained model: what it is, its sizes and quality, and the differences of its setting."""
    settings = {Setting(*(each[key] for key in Setting._fields)): each for each in document["settings"]}
    return pl.DataFrame([_row(entry, settings[entry.setting]) for entry in entries], infer_schema_length=None)


def _row(entry: Entry, setting: Mapping[str, Any]) -> dict[str, Any]:
    row = {
        **entry.setting._asdict(),
        "seed": entry.seed,
        "chosen": setting["chosen"],
        **{key: entry.facts[key] for key in _SIZES},
        **entry.pairs,
        "fields_kept": entry.fields_kept,
        "cost": None if entry.facts["cost"] is None else float(entry.facts["cost"]["kept"]),
        "seconds": float(sum(entry.facts["seconds"].values())),
        "valid_auc": entry.facts["valid"]["auc"],
        "valid_logloss": entry.facts["valid"]["logloss"],
        **{f"test_{name}": value for name, value in entry.facts["test"].items()},
        "source": str(entry.source),
    }
    for against in ("keep_all", "frequency", "alternative"):
        difference = setting["differences"].get(against)
        prefix = f"minus_{against}"
        row[f"{prefix}_auc"] = difference and difference["auc"]["value"]
        row[f"{prefix}_low"] = difference and difference["auc"]["low"]
        row[f"{prefix}_high"] = difference and difference["auc"]["high"]
        row[f"{prefix}_low_corrected"] = difference and difference["auc_corrected"]["low"]
        row[f"{prefix}_high_corrected"] = difference and difference["auc_corrected"]["high"]
        row[f"{prefix}_p_holm"] = difference and difference["p_holm"]
        row[f"{prefix}_outcome"] = difference and difference["outcome"]
    return row
