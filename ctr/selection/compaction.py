"""Compaction: what a feature set leaves out is taken out, physically, of tables, backbone and batches."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.batches import Layout
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import FIRST_VALUE, UNKNOWN, Dataset
from ctr.network.embeddings import Table
from ctr.network.network import Architecture, Network


def compact_layout(dataset: Dataset, feature_set: FeatureSet) -> Layout:
    """Where the kept features stand in the compact table (row 0 is the dropped row), and which fields are left.

    Where dropped values read their field's unknown, they have its row.
    """
    kept = feature_set.kept
    rows: npt.NDArray[np.int64] = np.where(kept, np.cumsum(kept), 0)
    if feature_set.dropped_reads == "unknown":
        for info in dataset.fields:
            own = rows[info.offset : info.offset + info.features]  # a view
            values = own[FIRST_VALUE:]
            values[values == 0] = own[UNKNOWN]
    return Layout(dataset, rows, _kept_fields(dataset, feature_set))


def _kept_fields(dataset: Dataset, feature_set: FeatureSet) -> list[str]:
    kept = feature_set.kept
    return [info.name for info in dataset.fields if kept[info.offset : info.offset + info.features].any()]


def compact_network(network: Network, dataset: Dataset, feature_set: FeatureSet) -> Network:
    """A network that holds nothing but kept features and what reads them, with copies of `network`'s weights.

    Equal, logit by logit, to `network` behind a gate that is 0 for dropped features and 1 for kept ones.

    Args:
        network: over all features of `dataset` (row = global id + 1). Its gate is left behind.
    """
    kept = feature_set.kept
    device = network.table.weight.device
    rows = torch.from_numpy(np.concatenate([[0], np.flatnonzero(kept) + 1])).to(device)
    left = set(_kept_fields(dataset, feature_set))
    slots = [slot for slot, info in enumerate(dataset.fields) if info.name in left]
    table = Table(len(rows), network.table.weight.shape[1])
    table.weight = torch.nn.Parameter(network.table.weight.detach()[rows].clone())
    lists = [info for info in dataset.fields if info.kind == "list"]
    pooling = tuple(info.pooling for info in lists if info.name in left)
    projections = network.projections
    if projections is not None:
        numbers = [number for number, (slot, _) in enumerate(projections.fields) if slot in slots]
        places = tuple(slots.index(projections.fields[number][0]) for number in numbers)
        projections = projections.keep(numbers, places)
    backbone = network.backbone.keep_fields(slots)
    compact = Network(table, backbone, network.linear, pooling=pooling, projections=projections)
    if network.bias is not None and compact.bias is not None:
        compact.bias = torch.nn.Parameter(network.bias.detach().clone())
    compact.slope, compact.intercept = network.slope.clone(), network.intercept.clone()
    return compact.train(network.training)


def compact_architecture(architecture: Architecture, layout: Layout) -> Architecture:
    """The architecture that `compact_network` gives."""
    return replace(
        architecture,
        rows=layout.rows,
        fields=len(layout.fields),
        pooling=layout.pooling,
        vectors=layout.vectors,
    )
