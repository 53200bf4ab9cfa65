"""The tables of a comparison's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctr.report.comparison_words import setting_words, whom_words
from ctr.report.tables import Cell, Table
from ctr.report.units import count, decimal, duration, known, share, signed, size

Document = Mapping[str, Any]
_PAIRS = {"memorized": "pairs memorized", "factorized": "factorized", "cross_rows": "rows of crosses"}


def settings_table(document: Document) -> Table:
    """Every setting with its quality and sizes."""
    rows = []
    for each in document["settings"]:
        chosen = " (chosen)" if each["chosen"] else ""
        rows.append(
            [
                _name(each, document, chosen),
                number(each["kept"], count),
                number(each["ratio"], share),
                number(each["fields_kept"], _mean_count),
                *([number(each[key], _mean_count) for key in _PAIRS] if _chose_pairs(document) else []),
                number(each["parameters"], count),
                number(each["table_bytes"], size),
                number(each["bundle_bytes"], size),
                *([number(each["cost"], lambda value: f"{value:g}")] if _costs(document) else []),
                _spread(each["valid"]["auc"]),
                _spread(each["test"]["auc"]),
                _spread(each["valid"]["logloss"]),
                _spread(each["test"]["logloss"]),
                number(each["seconds"], duration),
            ]
        )
    columns = [
        "setting",
        "values kept",
        "share",
        "fields",
        *(_PAIRS.values() if _chose_pairs(document) else []),
    ]
    columns += ["parameters", "tables", "bundle"]
    columns += ["cost"] if _costs(document) else []
    columns += ["valid AUC", "test AUC", "valid log loss", "test log loss", "training"]
    means = _means(document)
    caption = (
        f"{means} Bundle: all files of the exported folder. Training: search and retraining, of one seed."
    )
    return Table("settings", caption, columns, rows)


def keep_all_table(document: Document) -> Table | None:
    """Every difference to keep-all: what it says about the margin, and its intervals."""
    found = [each for each in document["settings"] if "keep_all" in each["differences"]]
    rows = []
    for each in found:
        difference = each["differences"]["keep_all"]
        chosen = " (chosen)" if each["chosen"] else ""
        rows.append([_name(each, document, chosen), Cell(difference["sentence"]), *_numbers(difference)])
    together = "clusters of rows" if document["clustered"] else "rows"
    whom = whom_words([each["differences"]["keep_all"] for each in found])
    caption = (
        "Test AUC and log loss minus those of keep-all, paired by row and seed. Intervals speak about other "
        f"{together} from the same source{whom}. "
    )
    if any(each["chosen"] for each in found):
        caption += (
            "The sentence of the chosen set is by its own 95 % interval: it was chosen before test was read. All "
            f"others are by the intervals for {document['comparisons']} at once. "
        )
    caption += "What a log can prove: where nothing is lost, with a power of 80 %."
    columns = ["setting", "to keep-all, it", *_columns(document)]
    return Table("keep-all", caption, columns, rows, words=columns[1:2]) if rows else None


def rivals_table(document: Document) -> Table | None:
    """Every difference to the most frequent values, and to the best cheap alternative."""
    rows, found = [], []
    for each in document["settings"]:
        for against, difference in each["differences"].items():
            if against != "keep_all":
                found.append(difference)
                other = f" minus {setting_words(difference['other'])}"
                rows.append([_name(each, document, other), Cell(_told(difference)), *_numbers(difference)])
    caption = (
        "Against the most frequent values, as many of them, and against the best on valid of the cheap alternatives "
        "whose tables take about as many bytes (10 % more at most), or fewer. Intervals speak about other rows from "
        f"the same source{whom_words(found)}."
    )
    columns = ["difference", "so", *_columns(document)]
    return Table("rivals", caption, columns, rows) if rows else None


def _columns(document: Document) -> list[str]:
    at_once = f"95 % for all {document['comparisons']}"
    return ["test AUC", "95 %", at_once, "p (Holm)", "test log loss", "log loss, 95 %"]


def _numbers(difference: Mapping[str, Any]) -> list[Cell]:
    wide = difference["auc_corrected"]
    return [
        number(difference["auc"]["value"], signed),
        Cell(bounds(difference["auc"]), difference["auc"]["low"]),
        Cell(bounds(wide), wide["low"]),
        number(difference["p_holm"], _p),
        number(difference["logloss"]["value"], signed),
        Cell(bounds(difference["logloss"]), difference["logloss"]["low"]),
    ]


def _told(difference: Mapping[str, Any]) -> str:
    wide = difference["auc_corrected"]
    told = "better" if wide["low"] > 0.0 else "worse" if wide["high"] < 0.0 else "not told apart"
    return told if difference["seeds_known"] else f"{told} (this model only)"


def areas_table(document: Document) -> Table | None:
    """The area under each selector's curve."""
    several = _several(document)
    rows = [
        [
            Cell(f"{each['label']}, {each['backbone']}, {each['embedding']}" if several else each["label"]),
            _spread(each["valid"]),
            _spread(each["test"]),
        ]
        for each in document["areas"]
    ]
    caption = (
        "Area under the curve of AUC over the logarithm of the share kept, divided by its width: a mean AUC over "
        "sizes."
    )
    return Table("areas", caption, ["selector", "valid", "test"], rows) if rows else None


def stability_table(document: Document) -> Table | None:
    """How alike the choices of runs are."""
    rows = []
    for each in document["stability"]:
        index = each["features"]["nogueira"]
        fields, pairs = each["fields"]["nogueira"], each["pairs"]
        rows.append(
            [
                _name(each, document),
                number(each["runs"], count),
                Cell(
                    "{} ({} to {})".format(*(_two(index[key]) for key in ("value", "low", "high"))),
                    index["value"],
                )
                if index
                else Cell("-"),
                number(each["features"]["jaccard"], _two),
                number(fields and fields["value"], _two),
                number(pairs and pairs["jaccard"], _two),
                number(each["coin_flips"] if each["runs"] > 1 else None, count),
                Cell(_named(each["coin_flips_named"])),
            ]
        )
    named = "the most frequent of them"
    columns = ["set", "runs", "features, Nogueira", "features, Jaccard", "fields, Nogueira", "pairs, Jaccard"]
    columns += ["coin flips", named]
    caption = (
        "Which features, fields and pairs are chosen again with another seed. Coin flips: features that a third to two "
        "thirds of the runs keep. No index where every run chooses all, or none."
    )
    return Table("stability", caption, columns, rows, words=[named]) if rows else None


def methods_table(document: Document) -> Table | None:
    """Pairs whose interaction is another one with another seed; None where no pairs were chosen, or all agree."""
    rows = [
        [
            _name(each, document),
            number(each["pairs"]["methods"], _two),
            number(each["pairs"]["changing"], count),
            Cell(f"{pair['field_a']} x {pair['field_b']}"),
            *(number(pair[method], count) for method in ("memorize", "factorize", "naive")),
        ]
        for each in document["stability"]
        for pair in ((each["pairs"] or {}).get("changing_named") or [])[:_MOST_PAIRS]
    ]
    caption = (
        "Runs in which a pair is memorized, factorized, or left alone (naive), of the pairs that are not the same in "
        "all runs, least agreed on first. Agreement over all pairs: Fleiss's kappa, 1 where runs agree, 0 as by chance."
    )
    columns = ["set", "agreement", "pairs that change", "pair", "memorized", "factorized", "naive"]
    return Table("methods", caption, columns, rows, words=columns[3:4]) if rows else None


def shadow_table(document: Document) -> Table | None:
    """What each search kept of shuffled copies of fields; None where none were added."""
    rows = [
        [
            _name(each, document),
            number(seed, str),
            Cell(", ".join(found["fields"])),
            number(found["total"], count),
            number(found["kept"], count),
            *(
                Cell(f"{share(part['value'])} ({share(part['low'])} to {share(part['high'])})", part["value"])
                for part in (found["share"], found["of_kept"])
            ),
        ]
        for each in document["settings"]
        for seed, found in zip(each["seeds"], each["shadow"], strict=True)
        if found
    ]
    columns = [
        "set",
        "seed",
        "copies of",
        "their values",
        "kept",
        "share kept (95 %)",
        "by chance, of all kept",
    ]
    caption = (
        "Values of shuffled copies of fields (selector.shadow) mean nothing: what the search keeps of them is by "
        "chance, and so is about the last share of all that it keeps, or less."
    )
    return Table("shadow", caption, columns, rows, words=columns[2:3]) if rows else None


_MOST_PAIRS = 10


def _named(features: Sequence[Mapping[str, Any]], most: int = 4) -> str:
    return ", ".join(f"{each['field']}={_cut(each['value'])}" for each in features[:most])


def _cut(value: str | None, longest: int = 16) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def fields_by_run_table(document: Document) -> Table | None:
    """Per field: in how many runs of each selector's sets it keeps any value."""
    found = [each for each in document["stability"] if each["backbone"] != "all"]
    if not found:
        return None
    names = dict.fromkeys(name for each in found for name in each["fields_by_run"])
    rows = [[Cell(name), *(_runs_of(each, name) for each in found)] for name in names]
    several = _several(document)
    columns = ["field", *(setting_words(each, where=several) for each in found)]
    return Table("fields-by-run", "Runs in which a field keeps any value.", columns, rows)


def _runs_of(each: Mapping[str, Any], field: str) -> Cell:
    """`2/3`; of runs whose schema lacks the field, "-"."""
    kept = each["fields_by_run"].get(field)
    return Cell("-") if kept is None else Cell(f"{kept}/{each['runs']}", kept)


def _name(each: Mapping[str, Any], document: Document, more: str = "") -> Cell:
    text = setting_words(each, where=_several(document)) + more
    return Cell(text.replace(" %", "\u00a0%"))  # the number and its unit stay on one line


def number(value: float | None, write: Any) -> Cell:
    """A number as `write` puts it, or "-"."""
    return Cell(write(value), value) if value is not None and known(value) else Cell("-")


def _spread(metric: Mapping[str, Any]) -> Cell:
    deviation = metric["deviation"]
    text = decimal(metric["mean"]) + (f" ({decimal(deviation)})" if deviation is not None else "")
    return Cell(text, metric["mean"])


def bounds(interval: Mapping[str, float]) -> str:
    """`-0.0012 to +0.0034`."""
    return f"{signed(interval['low'])} to {signed(interval['high'])}"


def _two(value: float) -> str:
    """Two digits; what rounds to zero has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def _means(document: Document) -> str:
    """What the numbers of settings are means over."""
    fewest, most = (edge(len(each["seeds"]) for each in document["settings"]) for edge in (min, max))
    if most == 1:
        return "Of 1 seed, so nothing is known of the spread over others."
    several = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    return f"Means over {several}; in brackets the standard deviation over them."


def _several(document: Document) -> bool:
    return len({(each["backbone"], each["embedding"]) for each in document["settings"]}) > 1


def _mean_count(value: float) -> str:
    return count(value) if value % 1 == 0 else f"{value:,.1f}"


def _chose_pairs(document: Document) -> bool:
    return any(known(each["memorized"]) for each in document["settings"])


def _costs(document: Document) -> bool:
    return any(each["cost"] is not None for each in document["settings"])
