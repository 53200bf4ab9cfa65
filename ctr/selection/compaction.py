"""Compaction: what a feature set leaves out is taken out, physically, of tables, backbone and batches."""

import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.kept_values import FILTER_ERROR, KeptValues
from ctr.dataset.layout import Layout
from ctr.dataset.placement import Placement
from ctr.dataset.store import FIRST_VALUE, MISSING, UNKNOWN, Dataset
from ctr.network.embeddings import Table
from ctr.network.hashed_tables import HashedTable
from ctr.network.network import Architecture, Network


def compact_layout(
    dataset: Dataset,
    feature_set: FeatureSet,
    placement: Placement | None = None,
    error: float = FILTER_ERROR,
) -> Layout:
    """Where the kept features stand in the compact table (row 0 is the dropped row), and which fields are left.

    Where dropped values read their field's unknown, they have its number.

    Args:
        placement: of the compact network, where features are hashed.
        error: largest share of dropped values that may pass for kept ones, where there is no vocabulary.
    """
    fields = _kept_fields(dataset, feature_set, placement is not None)
    if dataset.hashed:
        kept_values = _kept_values(dataset, feature_set, error)
        return Layout(dataset, None, fields, placement=placement, kept=kept_values)
    kept = feature_set.kept if placement is None else _read(dataset, feature_set)
    rows: npt.NDArray[np.int64] = np.where(kept, np.cumsum(kept), 0)
    if feature_set.dropped_reads == "unknown":
        for info in dataset.fields:
            own = rows[info.offset : info.offset + info.features]  # a view
            values = own[FIRST_VALUE:]
            values[values == 0] = own[UNKNOWN]
    return Layout(dataset, rows, fields, placement=placement)


def _kept_values(dataset: Dataset, feature_set: FeatureSet, error: float) -> KeptValues:
    """What is kept, by key. A field that keeps its unknown keeps what train has never seen, so whatever it holds."""
    kept, seen, whole = feature_set.kept.copy(), _seen(dataset), []
    for info in dataset.fields:
        own = kept[info.offset : info.offset + info.features]  # a view
        missing = own[MISSING] or not seen[info.offset + MISSING]
        if info.shares is None and missing and own[FIRST_VALUE:].all():
            whole.append(info.name)
    for info in dataset.fields:
        kept[info.offset + UNKNOWN] = False
        if info.name in whole:
            kept[info.offset : info.offset + info.features] = False
    unknown = [
        info.name
        for info in dataset.fields
        if info.shares is None and info.name not in whole and feature_set.kept[info.offset + UNKNOWN]
    ]
    return KeptValues.of(dataset.keys[kept], whole, error, unknown)


def _seen(dataset: Dataset) -> npt.NDArray[np.bool_]:
    seen: npt.NDArray[np.bool_] = dataset.vocabulary["count"].to_numpy() > 0
    return seen


def _read(dataset: Dataset, feature_set: FeatureSet) -> npt.NDArray[np.bool_]:
    """(V,) the kept features that train rows read: they hold them, or dropped values read the unknown."""
    read = feature_set.kept & _seen(dataset)
    if feature_set.dropped_reads == "unknown":
        for info in dataset.fields:
            own = feature_set.kept[info.offset : info.offset + info.features]
            read[info.offset + UNKNOWN] |= own[UNKNOWN] and not own[FIRST_VALUE:].all()
    return read


def feature_counts(dataset: Dataset, feature_set: FeatureSet | None = None) -> dict[str, int]:
    """Features of each field that train rows read, or those that they do of a set; missing among them."""
    there = _seen(dataset) if feature_set is None else _read(dataset, feature_set)
    return {
        info.name: int(there[info.offset : info.offset + info.features].sum())
        for info in dataset.fields
        if info.shares is None
    }


def compact_placement(placement: Placement, dataset: Dataset, feature_set: FeatureSet) -> Placement:
    """Smaller tables for what is kept, with as many features on a row as before."""
    return placement.kept(feature_counts(dataset), feature_counts(dataset, feature_set))


def _kept_fields(dataset: Dataset, feature_set: FeatureSet, placed: bool) -> list[str]:
    """The fields that are left; where features are placed, one of which train rows read nothing has no place."""
    kept = _read(dataset, feature_set) if placed else feature_set.kept
    return [info.name for info in dataset.fields if kept[info.offset : info.offset + info.features].any()]


def compact_network(
    network: Network, dataset: Dataset, feature_set: FeatureSet, table: HashedTable | None = None
) -> Network:
    """A network that holds nothing but kept features and what reads them, with copies of `network`'s weights.

    Equal, logit by logit, to `network` behind a gate that is 0 for dropped features and 1 for kept ones.

    Args:
        network: over all features of `dataset` (row = global id + 1). Its gate is left behind.
        table: of the compact network, where features are hashed: by default a copy of `network`'s, of the same size. A
            smaller one has other rows for the same features, so it cannot be filled from it; nor can one with fields
            that are free of collisions, whose rows follow the numbers of what is kept.
    """
    kept = feature_set.kept
    left = set(_kept_fields(dataset, feature_set, isinstance(network.table, HashedTable)))
    slots = [slot for slot, info in enumerate(dataset.fields) if info.name in left]
    compact_table: Table
    if isinstance(network.table, HashedTable):
        copied = copy.deepcopy(network.table) if table is None else table
        compact_table = _without_slots(copied, network.table, slots)
    else:
        rows = torch.from_numpy(np.concatenate([[0], np.flatnonzero(kept) + 1])).to(network.device)
        compact_table = Table(len(rows), network.table.weight.shape[1])
        compact_table.weight = torch.nn.Parameter(network.table.weight.detach()[rows].clone())
    lists = [info for info in dataset.fields if info.kind == "list"]
    pooling = tuple(info.pooling for info in lists if info.name in left)
    projections = network.projections
    if projections is not None:
        numbers = [number for number, (slot, _) in enumerate(projections.fields) if slot in slots]
        places = tuple(slots.index(projections.fields[number][0]) for number in numbers)
        projections = projections.keep(numbers, places)
    backbone = network.backbone.keep_fields(slots)
    compact = Network(compact_table, backbone, network.linear, pooling=pooling, projections=projections)
    if network.bias is not None and compact.bias is not None:
        compact.bias = torch.nn.Parameter(network.bias.detach().clone())
    compact.slope, compact.intercept = network.slope.clone(), network.intercept.clone()
    compact.dataset = network.dataset
    return compact.train(network.training)


def _without_slots(table: HashedTable, before: HashedTable, slots: list[int]) -> HashedTable:
    """`table` with the projections of the fields at `slots` of a network before, at their places now."""
    odd = [(number, slot) for number, slot in enumerate(before.slots) if slot in slots]
    table.slots = tuple(slots.index(slot) for _, slot in odd)
    table.projections = torch.nn.ParameterList(
        torch.nn.Parameter(before.projections[number].detach().clone()) for number, _ in odd
    )
    return table.to(before.weight.device)


def compact_architecture(architecture: Architecture, layout: Layout) -> Architecture:
    """The architecture that `compact_network` gives."""
    own = replace(architecture, fields=len(layout.fields), pooling=layout.pooling, vectors=layout.vectors)
    placement = layout.placement
    if placement is None:
        return replace(own, rows=layout.rows)
    odd = placement.odd_lookups
    return replace(
        own,
        rows=placement.rows,
        second_rows=placement.second_rows,
        composition=placement.composition,
        lookups=placement.second_width if placement.composition == "multi_hash" else placement.lookups,
        odd_lookups=tuple((slot, odd[owner]) for slot, owner in enumerate(layout.owners) if owner in odd),
    )
