"""Assemble the report page: one HTML file that asks nothing of any other file or server."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import polars as pl

from ctr.report import headline, plots, tables
from ctr.report.collisions import collisions_plot, collisions_table
from ctr.report.curve import curve_plot, difference_plot
from ctr.report.learning import learning_plot
from ctr.report.log_facts import log_facts
from ctr.report.looks import looks_sentence
from ctr.report.pairs import pairs_plot, pairs_table
from ctr.report.shadow import shadow_sentence
from ctr.report.units import pick

TEMPLATES = Path(__file__).parent / "templates"


def write_report(report: dict[str, Any], folder: Path, *, features: pl.DataFrame | None) -> Path:
    """Write `report.html` into the existing `folder`, whole or not at all; returns its path.

    Args:
        report: what is saved as `report.json`.
        folder: the run folder.
        features: the feature set's table (field, role, value, id, count, gate, kept), None where nothing was
            selected.
    """
    page = render(
        "report.html.j2",
        report=report,
        verdict=report.get("verdict") or headline.verdict(report),
        outcome=headline.outcome(report),
        tiles=headline.tiles(report),
        difference=difference_plot(report),
        curve=curve_plot(report),
        runs=tables.curve_table(report),
        learning=learning_plot(report),
        fields_plot=plots.fields_plot(report),
        fields=tables.fields_table(report, features),
        gates=plots.gates_plot(report),
        counts=plots.counts_plot(features),
        planted=tables.planted_table(report),
        shadow=shadow_sentence(report),
        pairs_plot=pairs_plot(report),
        pairs=pairs_table(report),
        collisions_plot=collisions_plot(report),
        collisions=collisions_table(report),
        quality=tables.quality_table(report),
        sizes=tables.sizes_table(report),
        seconds=tables.seconds_table(report),
        log=log_facts(report),
        looks=looks_sentence(report) if (pick(report, "dataset", "test_reads", "look") or 0) > 1 else "",
        provenance=tables.provenance(report),
    )
    return write_page(page, folder / "report.html")


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; every value is escaped, drawings are the only markup let through."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    style = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    # The page's policy lets this script run and no other, and forbids every request.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {"style": Markup(style), "script": Markup(script), "script_digest": digest, **values}
    environment.filters["drawing"] = Markup
    return environment.get_template(template).render(values)


def write_page(page: str, path: Path) -> Path:
    """Write under a temporary name and rename, so that no reader meets half a page."""
    part = path.with_name(path.name + ".part")
    part.write_text(page, encoding="utf-8", newline="\n")
    return part.replace(path)
