"""`ctr`: the command line. Imports stay inside the commands, so that `ctr --help` is instant."""

import errno
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ctr.errors import CtrError, printable

app = typer.Typer(
    name="ctr",
    help="Find out which feature values of a click log pay, and ship a compact model of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes would wrap messages, and other programs read them
)
schema_app = typer.Typer(help="Schemas of click logs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(schema_app, name="schema")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="Run configuration (TOML).")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="section.key=value",
            help="Change one key; repeatable. Without a value: take it back.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Redo a run that is finished or half done.")] = False,
) -> None:
    """Run the main job: ingest, baseline, search, retrain, evaluate, export, report."""
    from ctr.config import load_config
    from ctr.jobs.train import load_report
    from ctr.jobs.train import train as run_job
    from ctr.report.looks import looks_sentence

    settings = load_config(config, set_ or [])
    changes = [word for change in set_ or [] for word in ("--set", change)]
    try:
        run = run_job(settings, force=force, command=shlex.join(["ctr", "train", str(config), *changes]))
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    report = load_report(run)
    typer.echo(report["verdict"])
    typer.echo(f"report: {run / 'report.html'}")
    typer.echo(f"bundle: {run / 'bundle'}")
    typer.echo(looks_sentence(report))


@app.command()
def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG | RUN...", help="A comparison (TOML), or finished runs: folders, MLflow run ids."
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write the comparison to.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="section.key=value",
            help="Change one key of CONFIG; repeatable. Without a value: take it back.",
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            "--tracking-uri",
            help="The MLflow store that knows the run ids, and gets the comparison of finished runs.",
        ),
    ] = None,
    max_auc_loss: Annotated[
        float | None,
        typer.Option(
            "--max-auc-loss",
            min=0.0,
            help="Of finished runs: the loss of AUC that may be had; 0.001 unless stated.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Judge CONFIG again; cells that are done stay.")
    ] = False,
) -> None:
    """Compare feature sets: selectors, sizes and cheap alternatives, judged on test once, all together."""
    from ctr.jobs.compare import compare_config, compare_runs, load_document

    of_file = len(what) == 1 and what[0].endswith(".toml")
    _require_applies(of_file, set_ or [], force=force, margin=max_auc_loss, uri=tracking_uri)
    changes = [word for change in set_ or [] for word in ("--set", change)]
    place = ["--out", str(out)] if out else []
    if max_auc_loss is not None:
        place += ["--max-auc-loss", f"{max_auc_loss:g}"]
    if tracking_uri is not None:
        place += ["--tracking-uri", tracking_uri]
    command = shlex.join(["ctr", "compare", *what, *place, *changes])
    try:
        if of_file:
            folder = compare_config(Path(what[0]), out, set_ or [], force=force, command=command)
        else:
            folder = compare_runs(
                what,
                out,
                margin=0.001 if max_auc_loss is None else max_auc_loss,
                tracking=tracking_uri,
                command=command,
            )
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on where it was", err=True)
        raise typer.Exit(130) from None
    document = load_document(folder)
    for warning in document.get("warnings", []):  # what was judged by an earlier version has none
        typer.echo(f"warning: {warning}", err=True)
    for reason in (
        [] if of_file else document["left_out"]
    ):  # of a file's it was told before anything was trained
        typer.echo(f"left out: {reason}", err=True)
    typer.echo(document["verdict"])
    for walked in (document.get("walk_forward") or {}).get("sets", []):
        typer.echo(walked["sentence"])
    typer.echo(f"comparison: {folder / 'comparison.html'}")


def _require_applies(
    of_file: bool, changes: list[str], *, force: bool, margin: float | None, uri: str | None
) -> None:
    """Refuse an option of `compare` that would change nothing."""
    from ctr.errors import ConfigError

    if of_file and margin is not None:
        raise ConfigError(
            "--max-auc-loss is for finished runs, found a comparison (.toml), which states its own; use --set "
            f"compare.max_auc_loss={margin:g}"
        )
    if of_file and uri is not None:
        raise ConfigError(
            "--tracking-uri is for finished runs, found a comparison (.toml), which states its own; use --set "
            f"run.tracking.uri={uri}"
        )
    if not of_file and changes:
        raise ConfigError(
            f'--set "{changes[0]}" changes a comparison (.toml), found finished runs, which stay as they were trained; '
            "use --max-auc-loss for the margin, and leave --set out"
        )
    if not of_file and force:
        raise ConfigError(
            "--force judges a comparison (.toml) again, found finished runs, which are judged each time; leave it out"
        )


@app.command()
def diff(
    first: Annotated[Path, typer.Argument(help="A feature set, run or bundle.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Print what two feature sets disagree on: fields, values, pairs, whom that touches, bytes and AUC."""
    from rich.console import Console

    from ctr.jobs.set_difference import difference, facts
    from ctr.report.set_difference import shown

    found = difference(first, second)
    Console().print(
        shown(
            (first, second),
            added=found.added,
            dropped=found.dropped,
            fields=found.fields,
            facts=facts(found),
            pairs=list(found.pairs),
        )
    )


@app.command()
def score(
    bundle: Annotated[Path, typer.Argument(help="Folder of an exported bundle.")],
    file: Annotated[str, typer.Argument(help="Raw rows: path, glob or URL.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write, with a column `probability`.")],
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Let the bundle read side tables from paths that it states.")
    ] = False,
) -> None:
    """Give each raw row its click probability, in input order."""
    from ctr.serving.scorer import score_file

    summary = score_file(bundle, file, out, allow_paths=allow_paths)
    typer.echo(f"{summary.rows:,} rows scored in {summary.seconds:.1f} s: {out}")
    if summary.null_rows:
        typer.echo(f"{summary.null_rows:,} rows break the schema and have no probability", err=True)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of an exported bundle.")],
    file: Annotated[str | None, typer.Argument(help="Raw rows to score in more than one way.")] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", metavar="RUN", help="The run that made it; by default the one it lies in."),
    ] = None,
    against_log: Annotated[
        str | None,
        typer.Option(
            "--against-log", metavar="FILE", help="Raw rows with the ids and scores that a server logged."
        ),
    ] = None,
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Let the bundle read side tables from paths that it states.")
    ] = False,
) -> None:
    """Prove that a bundle is as it was exported, and scores as in training; exit code 4 where it does not."""
    from ctr.jobs.verify import verify as run_job

    run_job(bundle, file, run=against, log=against_log, allow_paths=allow_paths, tell=typer.echo)


@app.command()
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Bundles, runs, or MLflow references such as models:/NAME@champion; the first is the baseline."
        ),
    ] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help="A labelled log; repeatable.")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder to write evaluation.* to.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML with the same keys, and [[guardrail]] bounds.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Of a model, in their order; repeatable.")
    ] = None,
    slice_: Annotated[
        list[str] | None, typer.Option("--slice", help="A field to look at value by value; repeatable.")
    ] = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="The key of gAUC, such as a user.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="The key whose rows are alike: wider, honest intervals.")
    ] = None,
    min_auc: Annotated[
        float | None, typer.Option("--min-auc", help="Exit code 4 where a candidate's AUC is below.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", help="Exit code 4 where a candidate loses more AUC.")
    ] = None,
    exact_rows: Annotated[
        int | None, typer.Option("--exact-rows", help="Rows up to which AUC is exact, not of a histogram.")
    ] = None,
    tracking: Annotated[
        str | None, typer.Option("--tracking", help='MLflow URI, or "none"; by default runs/mlflow.db.')
    ] = None,
    experiment: Annotated[str | None, typer.Option("--experiment", help="Of MLflow.")] = None,
    allow_paths: Annotated[
        bool, typer.Option("--allow-paths", help="Let the bundle read side tables from paths that it states.")
    ] = False,
) -> None:
    """Measure models on a labelled log, each against the first one, and write evaluation.json, .parquet and .html."""
    from ctr.jobs.evaluate import evaluate as run_job
    from ctr.jobs.evaluation_settings import evaluation_settings

    given = list(models or [])
    if config is None and len(given) == 1 and given[0].endswith(".toml"):
        config, given = Path(given[0]), []
    options = {
        "models": given,
        "data": data,
        "out": out,
        "names": name,
        "slices": slice_,
        "group_by": group_by,
        "cluster": cluster,
        "min_auc": min_auc,
        "max_drop": max_drop,
        "exact_rows": exact_rows,
        "tracking": tracking,
        "experiment": experiment,
        "allow_paths": allow_paths or None,
    }
    settings = evaluation_settings(config, options)
    report = run_job(settings, command=shlex.join(["ctr", *sys.argv[1:]]))
    typer.echo(report["verdict"])
    typer.echo(f"page: {Path(settings.out) / 'evaluation.html'}")


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="A registered model with a candidate.")],
    data: Annotated[list[str] | None, typer.Option("--data", help="A labelled log; repeatable.")] = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, help="The loss of AUC that a smaller bundle may have.")
    ] = 0.001,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="The key whose rows are alike: wider, honest intervals.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder to write evaluation.* to.")] = None,
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="MLflow URI; by default runs/mlflow.db.")
    ] = None,
    first: Annotated[
        bool, typer.Option("--first", help="Where there is no champion, the candidate becomes it.")
    ] = False,
    allow_overlap: Annotated[
        bool,
        typer.Option("--allow-overlap", help="Also on rows from a time that one of the two was trained on."),
    ] = False,
) -> None:
    """Make the candidate the champion, if it gains AUC, or loses none beyond the margin and is smaller."""
    from ctr.jobs.promote import promote as run_job

    found = run_job(
        name,
        data or [],
        margin=margin,
        cluster=cluster,
        out=out,
        tracking=tracking,
        first=first,
        overlap=allow_overlap,
        command=shlex.join(["ctr", *sys.argv[1:]]),
    )
    typer.echo(found.sentence)
    typer.echo(f"champion: models:/{name}/{found.version.number}")
    if found.folder is not None:
        typer.echo(f"page: {found.folder / 'evaluation.html'}")


@app.command()
def sync(
    folder: Annotated[
        Path, typer.Argument(help="Of runs, or of a run, a comparison or an evaluation.")
    ] = Path("runs"),
    tracking: Annotated[
        str | None, typer.Option("--tracking", help="MLflow URI, instead of the one that did not answer.")
    ] = None,
) -> None:
    """Send to MLflow what was kept on disk because it did not answer."""
    from ctr.jobs.sync import sync as run_job

    sent = run_job(folder, uri=tracking, tell=typer.echo)
    if not sent:
        typer.echo(f'nothing to send: neither "{folder}" nor a folder below it keeps anything for MLflow')


@app.command()
def show(path: Annotated[Path, typer.Argument(help="A dataset, run, feature set or bundle.")]) -> None:
    """Print what a folder holds."""
    from rich.console import Console

    from ctr.report.show import show as render

    Console().print(render(path))


@app.command()
def doctor(
    dataset: Annotated[
        Path, typer.Argument(help="A dataset's folder, a run's folder or a run configuration.")
    ],
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with code 4 where there is an error.")
    ] = False,
) -> None:
    """Warn of what makes a dataset's numbers lie; the labels of test stay sealed."""
    import json
    from dataclasses import asdict

    from ctr.errors import ThresholdError
    from ctr.jobs.doctor import dataset_at, examine

    with dataset_at(dataset) as found:
        findings = examine(found)
    if json_:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2, allow_nan=False))
    else:
        for finding in findings:
            typer.echo(finding.line())
        typer.echo("the labels of test were not read; this was no look at them")
    errors = sum(finding.severity == "error" for finding in findings)
    if strict and errors:
        raise ThresholdError(f'"{dataset}": {errors} of {len(findings)} findings are errors (--strict)')


@app.command()
def synthetic(
    preset: Annotated[str, typer.Argument(help="demo, drift, pairs or criteo.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write log, schema and truth to.")],
    rows: Annotated[int, typer.Option("--rows", help="Impressions to draw.")] = 200_000,
    seed: Annotated[int, typer.Option("--seed", help="Of everything drawn.")] = 0,
    format: Annotated[str, typer.Option("--format", help="parquet or csv.")] = "parquet",
    base_rate: Annotated[
        float | None, typer.Option("--base-rate", help="Share of clicks, before any row is left out.")
    ] = None,
    negative_keep_rate: Annotated[
        float | None, typer.Option("--negative-keep-rate", help="Share of the rows with label 0 to keep.")
    ] = None,
    delay_hours: Annotated[
        float | None, typer.Option("--delay-hours", help="Some clicks come up to so much later.")
    ] = None,
    delayed_share: Annotated[float, typer.Option("--delayed-share", help="Share of clicks to delay.")] = 0.3,
    positions: Annotated[
        int | None, typer.Option("--positions", help="Show rows at positions 1 to N, better ones higher.")
    ] = None,
    weights: Annotated[bool, typer.Option("--weights", help="Give each row a weight.")] = False,
) -> None:
    """Write a synthetic click log whose truth is known."""
    from ctr.dataset.synthetic import write_log
    from ctr.errors import ConfigError, nearest

    if format not in ("parquet", "csv"):
        raise ConfigError(f'--format "{format}"{nearest(format, ["parquet", "csv"])}')
    truth = write_log(
        preset,
        out,
        rows=rows,
        seed=seed,
        format="csv" if format == "csv" else "parquet",
        base_rate=base_rate,
        negative_keep_rate=negative_keep_rate,
        delay_hours=delay_hours,
        delayed_share=delayed_share,
        positions=positions,
        weights=weights,
    )
    best = f", best reachable AUC {truth.best_auc:.4f}" if truth.best_auc is not None else ""
    kept = truth.logged_rows if truth.logged_rows is not None else rows
    of = f" of {rows:,} impressions" if kept < rows else ""
    typer.echo(f"{kept:,} rows{of}{best}: {out}")


@schema_app.command()
def infer(
    file: Annotated[str, typer.Argument(help="A click log.")],
    label: Annotated[str, typer.Option("--label", help="The column that says clicked or not.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write here instead of to standard output.")
    ] = None,
) -> None:
    """Write a schema that works as it is."""
    from ctr.dataset.infer import infer_schema
    from ctr.errors import ConfigError

    text = infer_schema(file, label)
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists():
        raise ConfigError(f'--out "{out}": the file is already there')
    scratch = out.with_name(f".{out.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(out)


def main() -> None:
    """Run the command line; a user's mistake ends in one message and its exit code, without a traceback."""
    try:
        app(prog_name="ctr")
    except CtrError as error:
        fail(error)
    except Exception as error:
        if not _environment(error):
            raise
        where = f'"{error.filename}": ' if isinstance(error, OSError) and error.filename else ""
        what = error.strerror if isinstance(error, OSError) and error.strerror else error
        fail(CtrError(f"{where}{what}; make room or allow writing there, and run the same command again"))


def _environment(error: Exception) -> bool:
    """Whether the disk is full or writing is forbidden: Python, Arrow and Polars each have errors of their own."""
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
    return getattr(error, "errno", None) in codes or "No space left on device" in str(error)


def fail(error: CtrError) -> None:
    """Print a message to standard error, unwrapped, and leave with the error's exit code."""
    sys.stderr.write(f"error: {printable(str(error))}\n")
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
