"""Promotion: the candidate of a registered model becomes its champion by a stated rule, and by nothing else.

    aliases -> evaluate champion and candidate on a labelled log -> rule -> aliases again -> tags, alias `champion`

The rule: the lower end of the 95 % interval of the difference in AUC is above 0 (a gain), or it is not below -margin
(no loss beyond the margin) and the candidate's bundle is smaller. Rows that one of the two was trained on flatter it,
so a log with such rows promotes nothing unless that is allowed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ctr.errors import ConfigError, CtrError, ThresholdError, shown_bytes
from ctr.jobs.evaluate import STORE, evaluate, write_document
from ctr.jobs.evaluation_settings import evaluation_settings
from ctr.registry import CANDIDATE, CHAMPION, Aliases, Version, aliases, crown, note
from ctr.report.units import signed
from ctr.tracking import asked


@dataclass(frozen=True)
class Promotion:
    """How a promotion ended: the champion now, a sentence about it, and the evaluation's folder, if there was one."""

    version: Version
    sentence: str
    folder: Path | None


def promote(
    name: str,
    data: Sequence[str],
    *,
    margin: float = 0.001,
    cluster: str | None = None,
    out: str | None = None,
    tracking: str | None = None,
    first: bool = False,
    overlap: bool = False,
    command: str = "",
    console: Console | None = None,
) -> Promotion:
    """Make the candidate the champion if the rule is met.

    The aliases are read again just before one is set; MLflow has no way to do both in one step.

    Args:
        name: of the registered model.
        data: labelled logs that neither of the two was trained on.
        margin: the loss of AUC that a smaller bundle may have.
        cluster: the key whose values are independent of each other, by default each row is.
        out: folder of the evaluation; by default in the runs' folder, named after the two versions.
        tracking: URI of the store; by default the SQLite file beside the runs.
        first: make the candidate the champion where there is none, which no rule can judge.
        overlap: promote although rows of the log lie in the time that one of the two was trained on.
        command: what the page says repeats it.
        console: where progress goes; by default standard error.

    Raises:
        ThresholdError: the rule is not met; everything is written.
        ConfigError: there is no such model, no candidate, or no champion and not `first`.
        CtrError: an alias was moved meanwhile, or the store does not answer.
    """
    what = f'registered model "{name}"'
    with asked(what, tracking, fallback=STORE) as (client, _):
        before = aliases(client, name)
        champion, candidate = before
        if candidate is None:
            raise ConfigError(
                f'{what}: no version has the alias "{CANDIDATE}"; a run with tracking.register = "{name}" sets it'
            )
        if champion is None:
            if not first:
                raise ConfigError(
                    f'{what}: no version has the alias "{CHAMPION}", so there is nothing to compare version '
                    f"{candidate.number} with; --first makes it the champion"
                )
            return _first(client, candidate)
        if champion.number == candidate.number:
            return Promotion(
                champion, f"version {champion.number} is both candidate and champion: nothing to do", None
            )
    if not data:
        raise ConfigError("--data: expected a labelled log to compare champion and candidate on")
    folder = out or str(STORE / f"{name}-promotion-{candidate.number}-over-{champion.number}")
    settings = evaluation_settings(
        None,
        {
            "models": [f"models:/{name}/{version.number}" for version in (champion, candidate)],
            "names": [CHAMPION, CANDIDATE],
            "data": list(data),
            "out": folder,
            "cluster": cluster,
            "tracking": tracking,
        },
    )
    rule = partial(judged, margin=margin, versions=before, overlap=overlap)
    report = evaluate(settings, command=command, console=console, rule=rule)
    decision = report["promotion"]
    with asked(what, tracking, fallback=STORE) as (client, _):
        now = aliases(client, name)
        if now.numbers != before.numbers:
            raise CtrError(
                f"{what}: while version {candidate.number} was compared with {champion.number}, the aliases were "
                f"moved: {CHAMPION} is now {_shown(now.champion)}, {CANDIDATE} {_shown(now.candidate)}; "
                f'nothing was changed, the evaluation is written to "{folder}", the same command compares them anew'
            )
        outcome = "promoted" if decision["passed"] else "not promoted"
        note(client, candidate, _tags(decision, report, outcome))
        if decision["passed"]:
            crown(client, candidate)
        decision["outcome"] = outcome
        write_document(report, Path(folder))
        # What was logged with the evaluation is from before the alias moved.
        client.log_artifact(report["mlflow_run"], str(Path(folder) / "evaluation.json"))
    if not decision["passed"]:
        raise ThresholdError(
            f"{what}: version {candidate.number} was not promoted. {decision['sentence']} Everything is written to "
            f'"{folder}"'
        )
    return Promotion(candidate, decision["sentence"], Path(folder))


def judged(
    report: Mapping[str, Any], *, margin: float, versions: Aliases, overlap: bool = False
) -> dict[str, Any]:
    """What the rule says of an evaluation of champion and candidate; `outcome` is not known yet."""
    seen = {entry["name"]: (entry["overlap"] or {}).get("rows") for entry in report["models"]}
    auc = report["differences"][0]["auc"]
    sizes = {entry["name"]: int(entry["bundle"]["bytes"]) for entry in report["models"]}
    low, smaller = auc["low"], sizes[CANDIDATE] < sizes[CHAMPION]
    gain = low is not None and low > 0.0
    even = low is not None and low >= -margin
    if low is None:
        why = "this log gives no interval of the difference in AUC"
    else:
        interval = f"AUC {signed(auc['value'])} (95 % interval {signed(low)} to {signed(auc['high'])})"
        held = (
            "a gain"
            if gain
            else f"no loss beyond {margin:g}"
            if even
            else f"a loss beyond {margin:g} is possible"
        )
        why = f"{interval}: {held}"
    change = "smaller" if smaller else "not smaller"
    why += f"; its bundle is {change} ({shown_bytes(sizes[CANDIDATE])}, was {shown_bytes(sizes[CHAMPION])})"
    trained_on = " and ".join(f"{rows:,} that {name} was trained on" for name, rows in seen.items() if rows)
    if trained_on:
        allowed = "which was allowed" if overlap else "judge on later rows, or allow it with --allow-overlap"
        why += f"; rows of this log lie in a training window, {trained_on}: {allowed}"
    passed = (gain or (even and smaller)) and (overlap or not trained_on)
    champion, candidate = versions.numbers
    return {
        "rule": f"low > 0, or low >= -{margin:g} and fewer bytes",
        "margin": margin,
        "champion": champion,
        "candidate": candidate,
        "auc_difference": auc,
        "bytes": sizes,
        "overlap": {"rows": seen, "allowed": overlap},
        "passed": passed,
        "sentence": f"The rule for promotion is {'met' if passed else 'not met'}: {why}.",
        "outcome": None,
    }


def _first(client: Any, candidate: Version) -> Promotion:
    sentence = f"Version {candidate.number} is the first champion, compared with nothing."
    note(
        client,
        candidate,
        {"promotion.outcome": "promoted", "promotion.sentence": sentence, "promotion.at": _now()},
    )
    crown(client, candidate)
    return Promotion(candidate, sentence, None)


def _tags(decision: Mapping[str, Any], report: Mapping[str, Any], outcome: str) -> dict[str, str]:
    auc, sizes = decision["auc_difference"], decision["bytes"]
    return {
        "promotion.outcome": outcome,
        "promotion.rule": decision["rule"],
        "promotion.sentence": decision["sentence"],
        "promotion.champion": str(decision["champion"]),
        "promotion.auc_difference": str(auc["value"]),
        "promotion.auc_difference.low": str(auc["low"]),
        "promotion.auc_difference.high": str(auc["high"]),
        "promotion.bundle_bytes": str(sizes[CANDIDATE]),
        "promotion.champion_bundle_bytes": str(sizes[CHAMPION]),
        "promotion.overlap_rows": ", ".join(
            f"{name} {'unknown' if rows is None else rows}"
            for name, rows in decision["overlap"]["rows"].items()
        ),
        "promotion.log": report["log"]["digest"],
        "promotion.at": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(version: Version | None) -> str:
    return "no version" if version is None else f"version {version.number}"
