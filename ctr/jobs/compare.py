"""A comparison of selectors, sizes and cheap alternatives: trained on train, chosen on valid, judged on test once.

    ingest -> smallest margin that can be proven -> cells -> choice on valid -> all of them on test -> page

With `[walk_forward]` the log is cut at its start, and the choice is trained and judged on later windows as well.

Everything is kept: cells in `<output.folder>/cells`, where other comparisons find them, scores of test rows in the
comparison's folder. What is there is not done again.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from ctr.config import Config, Tracking
from ctr.dataset.ingest import planned
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, CtrError
from ctr.evaluation.margins import ASSUMED_AUC, ASSUMED_CORRELATION, provable_margin
from ctr.jobs.cell_pool import processes, train_cells
from ctr.jobs.cells import Cell, Grid
from ctr.jobs.comparison_config import Comparison, load_comparison
from ctr.jobs.comparison_document import build_document, points_table
from ctr.jobs.comparison_scores import scored_rows, sealed_scores
from ctr.jobs.comparison_tracking import is_sent, send
from ctr.jobs.entries import Entry, Rows, Setting, by_setting, entries_of, judged
from ctr.jobs.finished_runs import FinishedRuns
from ctr.jobs.limits import require_batch
from ctr.jobs.lock import RunLock
from ctr.jobs.report_facts import test_reads
from ctr.jobs.scored import weights_of
from ctr.jobs.valid_choice import NOTHING, Choice, choose
from ctr.jobs.walk_document import walk_document, walk_rows
from ctr.jobs.walk_forward import Walk
from ctr.report.comparison import write_comparison
from ctr.report.comparison_words import verdict_words
from ctr.settings import load_toml
from ctr.training.machine import pick_device, pick_threads

DOCUMENT = "comparison.json"


def compare(
    comparison: Comparison,
    *,
    out: Path | None = None,
    force: bool = False,
    command: str = "",
    ship: str = "",
    console: Console | None = None,
) -> Path:
    """Train what a comparison asks for, and judge it.

    Args:
        out: folder of the result; by default one in the output folder, named after what is compared.
        force: judge again what is finished. Cells that are done stay.
        command: what the page says repeats it. ship: what trains the run as a run of its own, so far.
        console: where progress goes; by default standard error.

    Returns:
        The folder of the result.

    Raises:
        CtrError: with the exit code of the command line.
    """
    console = console or Console(stderr=True)
    run = comparison.run
    device = pick_device(run.training.device)
    pick_threads(run.training.threads)
    walk = None if comparison.walk_forward is None else Walk(comparison, comparison.walk_forward)
    dataset = _dataset(run) if walk is None else walk.datasets[0]
    grid = Grid(comparison, dataset, device)
    cells = grid.cells()
    digest = comparison.digest([cell.digest(dataset.digest) for cell in cells])
    folder = out or Path(run.output.folder) / f"{comparison.name}-comparison-{digest}"
    content = comparison.model_dump(mode="json", by_alias=True, exclude_none=True)
    if not force and _digest_of(folder) == digest:
        _say(console, f"already done: {folder} (--force judges it again)")
        if not is_sent(folder, run.tracking, digest):
            send(folder, load_document(folder), content, run.tracking, Path(run.output.folder))
        return folder
    _say(console, _foreseen(dataset, comparison.compare.max_auc_loss))
    for reason in grid.left_out:
        _say(console, f"left out: {reason}")
    with RunLock(folder) as lock:
        jobs = processes(comparison.compare.jobs, device.type, run.training.threads or 1)
        train_cells(cells, dataset.folder, dataset.digest, jobs, console)
        lock.check()
        valid = dataset.part("valid")
        entries = entries_of(cells, dataset.digest)
        choice = choose(by_setting(entries), Rows(valid.labels, weights_of(valid)), comparison.compare.budget)
        _write(folder / "choice.json", _json({"digest": digest, **choice.plain()}))
        settings = [] if walk is None else walk.settings(choice, entries)
        steps = [] if walk is None or not settings else walk.steps(settings, entries, device)
        if walk is not None:
            walk.train(steps, jobs, console)
            lock.check()
        path = folder / "scores.parquet"
        scores = sealed_scores(path, folder.name, digest, cells, dataset, force=force)
        lock.check()
        (rows,) = scored_rows([scores], dataset, run, comparison.compare.cluster)
        entries = [
            judged(entry, scores[f"model_{number}"].to_numpy(), rows) for number, entry in enumerate(entries)
        ]
        facts = _facts(comparison, dataset, digest, command, grid.left_out)
        facts["dataset"]["test_reads"] = test_reads(dataset)
        if walk is not None and steps:
            scored = walk.score(steps, settings, entries, scores, folder, digest, force=force)
            tables = [step.scores for step in scored]
            of_windows = scored_rows(tables, dataset, run, comparison.compare.cluster)
            facts["walk_forward"] = walk_document(
                walk.config, settings, scored, of_windows, comparison.compare.max_auc_loss
            )
        facts["ship"] = _shipped(ship, choice.chosen, comparison, cells) if ship and choice.chosen else None
        finish(
            folder, entries, rows, choice, comparison.compare.max_auc_loss, comparison.compare.budget, facts
        )
        send(folder, load_document(folder), content, run.tracking, Path(run.output.folder))
    return folder


def compare_config(
    path: Path,
    out: Path | None = None,
    changes: Sequence[str] = (),
    *,
    force: bool = False,
    command: str = "",
    console: Console | None = None,
) -> Path:
    """The comparison that a file describes, with `section.key=value` changes; see `compare`."""
    comparison = load_comparison(path, changes)
    run = load_toml(path, "comparison").get("run")
    of_run = [word for change in changes if change.startswith("run.") for word in ("--set", change[4:])]
    ship = shlex.join(["ctr", "train", run, *of_run]) if isinstance(run, str) else ""
    return compare(comparison, out=out, force=force, command=command, ship=ship, console=console)


def compare_runs(
    names: Sequence[str],
    out: Path | None,
    *,
    margin: float = 0.001,
    tracking: str | None = None,
    command: str = "",
) -> Path:
    """Compare finished runs by the test scores that they left: nothing is trained, and test is not read again.

    Args:
        names: folders, or ids of MLflow runs.
        out: folder of the result.
        margin: the loss of AUC that may be had.
        tracking: URI of the MLflow store that knows the ids; where it is stated, the comparison is logged there too.

    Raises:
        CtrError: see `ctr.jobs.finished_runs`; a ConfigError where `out` is missing. Where the store does not answer,
            all is written.
    """
    if out is None:
        raise ConfigError("--out: expected a folder for the comparison of finished runs")
    runs = FinishedRuns(names, tracking, out / "runs")
    entries, rows = runs.entries(), runs.rows
    no_choice = runs.other_valid_rows()
    choice = NOTHING if no_choice else choose(by_setting(entries), None, {})
    data = runs.reports[0]["dataset"]
    content = {"runs": list(map(str, runs.folders)), "compare": {"max_auc_loss": margin}}
    facts: dict[str, Any] = {
        "name": out.name,
        "digest": hashlib.sha256(_json(content).encode()).hexdigest()[:12],
        "command": command,
        "dataset": {key: data[key] for key in ("name", "digest", "rows", "fields", "features", "window")},
        "grid": None,
        "rules": {"max_auc_loss": margin},
        "cluster": None,
        "left_out": [],
        "ship": None,
        "walk_forward": None,
        "no_choice": no_choice,
    }
    with RunLock(out):
        finish(out, entries, rows, choice, margin, {}, facts)
        if tracking is not None:
            send(out, load_document(out), content, Tracking(uri=tracking), Path("runs"))
    return out


def finish(
    folder: Path,
    entries: Sequence[Entry],
    rows: Rows,
    choice: Choice,
    margin: float,
    budget: dict[str, float],
    facts: dict[str, Any],
) -> None:
    """Write the table, the page and, last, the document of a comparison whose entries are scored."""
    document = build_document(entries, rows, choice, margin, budget)
    document = {
        **facts,
        **document,
        "margin": {**document["margin"], **facts.get("margin", {})},
        "left_out": [*facts["left_out"], *document["left_out"]],
    }
    document["verdict"] = verdict_words(document)
    _write_table(points_table(document, entries), folder / "comparison.parquet")
    if document["walk_forward"]:
        _write_table(pl.DataFrame(walk_rows(document["walk_forward"])), folder / "walk_forward.parquet")
    chosen = next((entry for entry in entries if entry.setting == choice.chosen), None)
    write_comparison(document, folder, chosen.feature_set if chosen else None)
    _write(folder / DOCUMENT, _json(document))


def load_document(folder: Path) -> dict[str, Any]:
    """The `comparison.json` of a finished comparison.

    Raises:
        CtrError: it is missing or was altered.
    """
    try:
        content = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a table, found {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise CtrError(
            f'"{folder / DOCUMENT}" is missing or was altered ({error}); use --force to judge again'
        ) from None
    return content


def _dataset(run: Config) -> Dataset:
    """The log of a run, as its schema cuts it."""
    schema = load_schema(run.data.schema_file)
    with planned(
        schema, run.data.input, Path(run.data.folder), encoding=run.data.encoding, as_of=run.data.as_of
    ) as plan:
        dataset = Dataset(plan.build())
    require_batch(run, dataset)
    return dataset


def _digest_of(folder: Path) -> str | None:
    if not (folder / DOCUMENT).is_file():
        return None
    found: str | None = load_document(folder).get("digest")
    return found


def _foreseen(dataset: Dataset, margin: float) -> str:
    """What can be proven at all, before anything is trained for it."""
    rows, positives = (dataset.manifest[key]["test"] for key in ("rows", "positives"))
    smallest = provable_margin(positives, rows - positives)
    text = (
        f"{rows:,} test rows, {positives:,} of them positive, can rule out a loss of AUC beyond {smallest:.2g} (with a "
        f"power of 80 %: two equally good models of AUC {ASSUMED_AUC} whose AUCs correlate by {ASSUMED_CORRELATION}; "
        "training seeds come on top)"
    )
    return text + (
        f": not the {margin:g} that is asked for"
        if smallest > margin
        else f", so the {margin:g} that is asked for"
    )


def _facts(
    comparison: Comparison, dataset: Dataset, digest: str, command: str, left_out: Sequence[str]
) -> dict[str, Any]:
    rows, positives = dataset.manifest["rows"], dataset.manifest["positives"]["test"]
    return {
        "name": comparison.name,
        "digest": digest,
        "command": command,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "rows": {part: rows[part] for part in ("train", "valid", "test")},
            "fields": len(dataset.fields),
            "features": dataset.features,
            "window": dataset.manifest.get("window"),
        },
        "grid": comparison.grid.model_dump(mode="json"),
        "rules": comparison.compare.model_dump(mode="json", exclude={"jobs"}),
        "cluster": comparison.compare.cluster,
        "margin": {
            "foreseen": provable_margin(positives, rows["test"] - positives),
            "assumed_auc": ASSUMED_AUC,
            "assumed_correlation": ASSUMED_CORRELATION,
        },
        "left_out": list(left_out),
        "walk_forward": None,
    }


def _shipped(command: str, chosen: Setting, comparison: Comparison, cells: Sequence[Cell]) -> str:
    """The command that trains, evaluates and exports the chosen set as a run of its own."""
    chooser = comparison.grid.choosers()[chosen.label]
    changes = [f"selector.{key}={value}" for key, value in chooser.items()]
    changes += [f"backbone.kind={chosen.backbone}", f"embedding.kind={chosen.embedding}"]
    changes += [f"selector.ratio={chosen.size:g}"] if chosen.size is not None else []
    place = ("selector", chosen.label, chosen.backbone, chosen.embedding)
    cell = next(c for c in cells if (c.role, c.label, c.config.backbone.kind, c.embedding) == place)
    # What the file states and the chosen set cannot have, such as the counts of a random choice, is taken back.
    for section in ("selector", "backbone", "embedding"):
        stated, own = (getattr(config, section).model_fields_set for config in (comparison.run, cell.config))
        changes += [f"{section}.{key}=" for key in sorted(stated - own)]
    return " ".join([command, *(f"--set {change}" for change in changes)])


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _write_table(table: pl.DataFrame, path: Path) -> None:
    scratch = path.with_name(f".{path.name}")
    table.write_parquet(scratch)
    scratch.replace(path)


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
