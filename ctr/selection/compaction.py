"""Compaction: what a feature set leaves out is taken out, physically, of tables, backbone and batches."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.batches import Layout
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.network.embeddings import Table
from ctr.network.network import Architecture, Network


def compact_layout(dataset: Dataset, feature_set: FeatureSet) -> Layout:
    """Where the kept features stand in the compact table (row 0 is the dropped row), and which fields are left."""
    kept = feature_set.kept
    rows: npt.NDArray[np.int64] = np.where(kept, np.cumsum(kept), 0)
    fields = [info.name for info in dataset.fields if kept[info.offset : info.offset + info.features].any()]
    return Layout(dataset, rows, fields)


def compact_network(network: Network, dataset: Dataset, feature_set: FeatureSet) -> Network:
    """A network that holds nothing but kept features and what reads them, with copies of `network`'s weights.

    Equal, logit by logit, to `network` behind a gate that is 0 for dropped features and 1 for kept ones.

    Args:
        network: over all features of `dataset` (row = global id + 1). Its gate is left behind.
    """
    kept = feature_set.kept
    device = network.table.weight.device
    rows = torch.from_numpy(np.concatenate([[0], np.flatnonzero(kept) + 1])).to(device)
    slots = [
        slot
        for slot, info in enumerate(dataset.fields)
        if kept[info.offset : info.offset + info.features].any()
    ]
    table = Table(len(rows), network.table.weight.shape[1])
    table.weight = torch.nn.Parameter(network.table.weight.detach()[rows].clone())
    compact = Network(table, network.backbone.keep_fields(slots), network.linear)
    if network.bias is not None and compact.bias is not None:
        compact.bias = torch.nn.Parameter(network.bias.detach().clone())
    return compact.train(network.training)


def compact_architecture(architecture: Architecture, layout: Layout) -> Architecture:
    """The architecture that `compact_network` gives."""
    return replace(architecture, rows=layout.rows, fields=len(layout.fields))
