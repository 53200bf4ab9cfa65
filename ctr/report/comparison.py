"""Assemble the page of a comparison: one HTML file that asks nothing of any other file or server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ctr.report import plots, tables
from ctr.report.comparison_curves import curve_plots
from ctr.report.comparison_plots import (
    differences_plot,
    importance_plot,
    pair_importance_plot,
    stability_plot,
)
from ctr.report.comparison_tables import (
    areas_table,
    fields_by_run_table,
    keep_all_table,
    methods_table,
    rivals_table,
    settings_table,
    shadow_table,
    stability_table,
)
from ctr.report.comparison_walk import unjudged_table, walked_sets, windows_table
from ctr.report.comparison_words import same
from ctr.report.html import render, write_page
from ctr.report.looks import looks_sentence
from ctr.report.units import count, share


def write_comparison(document: Mapping[str, Any], folder: Path, feature_set: Path | None) -> Path:
    """Write `comparison.html` into the existing `folder`, whole or not at all; returns its path.

    Args:
        document: what is saved as `comparison.json`.
        feature_set: folder of the chosen set with one seed; None where nothing was chosen.
    """
    path = feature_set / "features.parquet" if feature_set else None
    features = pl.read_parquet(path) if path is not None and path.is_file() else None
    shown = document["chosen_set"] or {}
    page = render(
        "comparison.html.j2",
        document=document,
        outcome=_outcome(document),
        differences_plot=differences_plot(document),
        keep_all=keep_all_table(document),
        rivals=rivals_table(document),
        curves=curve_plots(document),
        areas=areas_table(document),
        settings=settings_table(document),
        stability_plot=stability_plot(document),
        stability=stability_table(document),
        methods=methods_table(document),
        fields_by_run=fields_by_run_table(document),
        shadow=shadow_table(document),
        importance=importance_plot(document),
        pair_importance=pair_importance_plot(document),
        fields_plot=plots.fields_plot(shown),
        fields=tables.fields_table(shown, features),
        gates=plots.gates_plot(shown),
        counts=plots.counts_plot(features),
        walked=walked_sets(document),
        windows=windows_table(document),
        unjudged=unjudged_table(document),
        facts=_facts(document),
    )
    return write_page(page, folder / "comparison.html")


def _outcome(document: Mapping[str, Any]) -> str:
    chosen = document["choice"]["chosen"]
    found = next((each for each in document["settings"] if chosen and same(each, chosen)), None)
    difference = found["differences"].get("keep_all") if found else None
    names = {"gain": "gain", "no_loss": "even", "loss": "loss", "undecided": "baseline"}
    return names[difference["outcome"]] if difference else "baseline"


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one needs to know to believe the page."""
    data, margin = document["dataset"], document["margin"]
    rows = ", ".join(f"{part} {count(number)}" for part, number in data["rows"].items())
    facts = [
        ("dataset", f"{data['name']}, digest {data['digest']}"),
        ("rows", rows),
        (
            "clicks in test",
            f"{count(document['positives'])} ({share(document['positives'] / document['rows'])})",
        ),
        ("looks at the test rows", looks_sentence({**document, "run": None}) or "not counted"),
        ("loss that may be had", f"{margin['max_auc_loss']:g} of AUC"),
        ("rows that belong together", document["cluster"] or "none: every row stands for itself"),
        ("training seeds", ", ".join(map(str, document["seeds"]))),
        ("comparisons", f"{document['comparisons']}, all intervals at once hold with 95 %"),
    ]
    if "foreseen" in margin:
        foreseen = (
            f"{margin['foreseen']:.2g} with a power of 80 %, at AUC {margin['assumed_auc']} and a correlation of "
            f"{margin['assumed_correlation']}"
        )
        facts.append(("smallest provable loss, foreseen", foreseen))
    if document["budget"]:
        facts.append(
            ("budget", ", ".join(f"{name} = {value:g}" for name, value in document["budget"].items()))
        )
    retired = document["retired"]
    facts.append(("fields that the chosen set retires", ", ".join(retired["fields"]) or "none"))
    if retired["groups"]:
        facts.append(("groups of fields that it retires", ", ".join(retired["groups"])))
    facts += [("warning", warning) for warning in document["warnings"]]
    facts += [("left out", reason) for reason in document["left_out"]]
    return facts
