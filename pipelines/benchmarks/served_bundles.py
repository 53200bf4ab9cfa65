"""Bundles of the Criteo-shaped synthetic log, with random weights: what these say costs no time."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.jobs.networks import Networks
from ctr.network.network import Network
from ctr.selection.compaction import compact_architecture
from ctr.selection.referees import REFEREES
from ctr.serving.export import export_bundle
from ctr.settings import check

KEPT = 0.3
ROWS = 4096  # of the log, in `rows.parquet`
_NOTHING = {"trained_on": ["train"], "steps": 0, "window": None, "metrics": None}


def exported(folder: Path, rows: int, hidden: tuple[int, ...]) -> None:
    """Write a log, and two bundles of it with a DeepFM of width 16, `keep_all` (float32) and `selected` (int8).

    Args:
        folder: gets `log/`, both bundles, and the first rows of the log as `rows.parquet`.
        rows: of the log.
        hidden: widths of the MLP.
    """
    torch.set_num_threads(1)
    write_log("criteo", folder / "log", rows=rows)
    source = folder / "log" / "log.parquet"
    dataset = Dataset(ingest(load_schema(folder / "log" / "schema.toml"), source, folder / "datasets"))
    pl.scan_parquet(source).head(ROWS).collect().write_parquet(folder / "rows.parquet")
    keys: dict[str, Any] = {
        "name": "served",
        "data": {"schema": str(folder / "log" / "schema.toml"), "input": str(source)},
        "embedding": {"dim": 16},
        "backbone": {"kind": "deepfm", "hidden": list(hidden)},
    }
    networks = Networks(check(keys, Config, "config"), dataset, torch.device("cpu"))
    total = FeatureSet.of(dataset, np.ones(dataset.features, np.bool_), np.ones(dataset.features), {})
    kept = REFEREES["frequency"](dataset, round(KEPT * total.counts()["total"]), 0)
    layout = networks.layout(kept)
    _export(folder / "keep_all", dataset, source, networks, networks.fresh(), networks.everything, None)
    _export(
        folder / "selected", dataset, source, networks, networks.compact(kept, layout, None), layout, kept
    )


def _export(
    folder: Path,
    dataset: Dataset,
    source: Path,
    networks: Networks,
    network: Network,
    layout: Layout,
    feature_set: FeatureSet | None,
) -> None:
    export_bundle(
        folder,
        dataset=dataset,
        source=source,
        network=network,
        architecture=compact_architecture(networks.architecture, layout),
        layout=layout,
        feature_set=feature_set,
        metrics={},
        model={"refit": "none", "evaluated": _NOTHING, "shipped": _NOTHING},
        provenance={"selector": "frequency", "seed": 0},
        dtype="float32" if feature_set is None else "int8",
    )
