"""How long, and in how much memory, many scored rows are evaluated, beside sorting them once."""

import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from ctr.evaluation.intervals import auc_difference
from ctr.evaluation.metrics import Floats
from ctr.evaluation.metrics import measure as metrics_of
from ctr.evaluation.paired import measured
from ctr.jobs.score_file import ScoreFile
from pipelines.benchmarks.memory import in_own_process, peak_rss_bytes
from pipelines.benchmarks.steps import Setting


def measure(setting: Setting) -> dict[str, float]:
    """Metrics of one model and the paired AUC difference to another, on 10 million rows.

    Returns:
        evaluation_seconds_10m (of both), evaluation_over_sort (over the seconds of one `np.argsort` of the scores), its
        two terms metrics_over_sort and difference_over_sort, peak_rss_bytes_evaluation (of a process of its own; the
        labels and two columns of scores are in it, 24 bytes a row). Of `ctr evaluate` on both models' scores on disk,
        all metrics and their intervals: offline_seconds_10m, exact, and offline_histogram_seconds_10m, as of rows that
        do not fit; peak_rss_bytes_offline, of the larger one of the two, each in a process of its own.
    """
    rows = setting.rows_evaluated
    sort, metrics, difference, peak = in_own_process(_seconds_and_peak, rows)
    (exact, most), (binned, least) = (in_own_process(_offline, rows, held) for held in (rows, 0))
    return {
        "evaluation_seconds_10m": metrics + difference,
        "evaluation_over_sort": (metrics + difference) / sort,
        "metrics_over_sort": metrics / sort,
        "difference_over_sort": difference / sort,
        "peak_rss_bytes_evaluation": float(peak),
        "offline_seconds_10m": exact,
        "offline_histogram_seconds_10m": binned,
        "peak_rss_bytes_offline": float(max(most, least)),
    }


def scored_rows(rows: int) -> tuple[Floats, Floats, Floats]:
    """Labels (B,) drawn with the click probabilities that the second model gives, about 0.15; the first one is noisier.

    Returns:
        labels, probabilities of the first and of the second model.
    """
    generator = np.random.default_rng(0)
    logits = generator.standard_normal(rows) - 2.0
    second = 1.0 / (1.0 + np.exp(-logits))
    labels = (generator.random(rows) < second).astype(np.float64)
    first = 1.0 / (1.0 + np.exp(-logits - 0.5 * generator.standard_normal(rows)))
    return labels, first, second


def _offline(rows: int, held: int) -> tuple[float, int]:
    """Seconds and peak of what `ctr evaluate` does with scored rows, of which so many fit into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evaluation.parquet"
        labels, first, second = scored_rows(rows)
        columns = {"label": labels.astype(np.uint8), "first": first, "second": second}
        pl.DataFrame(columns).write_parquet(path, row_group_size=131_072)
        del labels, first, second, columns
        started = time.perf_counter()
        file = ScoreFile(path, ["first", "second"], 1.0, False, None, None, exact_rows=held)
        measured(file.rows(rows))
        return time.perf_counter() - started, peak_rss_bytes()


def _seconds_and_peak(rows: int) -> tuple[float, float, float, int]:
    """Seconds of one sort, of the metrics and of the difference; peak memory in bytes."""
    metrics_of([0.0, 1.0], [0.25, 0.75])  # imports scikit-learn
    labels, first, second = scored_rows(rows)
    moments = [time.perf_counter()]
    np.argsort(second)
    moments.append(time.perf_counter())
    metrics_of(labels, second)
    moments.append(time.perf_counter())
    auc_difference(labels, first, second)
    moments.append(time.perf_counter())
    sort, metrics, difference = np.diff(moments).tolist()
    return sort, metrics, difference, peak_rss_bytes()
