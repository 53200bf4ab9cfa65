"""What the report says of hashed embeddings: who shares rows, what it does to the rows, and how the network copes."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ctr.dataset.collisions import field_collisions, reads
from ctr.jobs.models import Model
from ctr.network.backbones.backbone import Part
from ctr.network.network import Architecture, Network, build

Floats = npt.NDArray[np.float64]

_WORST = 10  # fields named
_MOST_FIELDS = 60  # of which all angles are kept
_EDGES = (1, 2, 3, 5, 9, 17, 33, 65, 1 << 62)  # values on a row, in bins


def collisions(model: Model) -> dict[str, Any] | None:
    """Collisions of one model's fields, squared norms of its rows, angles of its first layer; None without hashing.

    Per field what `ctr.dataset.collisions.field_collisions` counts, with squared_norm, the mean over the rows that its
    values read, and angle, the mean over all other fields (see `first_layer_angles`).
    """
    placement = model.layout.placement
    if placement is None:
        return None
    network, owners = model.load(), model.layout.owners
    features = model.layout.placed()
    long = reads(features, placement)
    found = field_collisions(model.layout, features, long)
    weight = network.table.weight.detach()
    squares = weight[:, : weight.shape[1] - network.linear].double().square().sum(1).numpy()  # (rows,)
    long = long.filter(pl.col("row") < len(squares))  # a second table has no embeddings of its own
    long = long.with_columns(pl.Series("squared_norm", squares[long["row"].to_numpy()]))
    norms = dict(long.group_by("field", maintain_order=True).agg(pl.col("squared_norm").mean()).iter_rows())
    angles = first_layer_angles(network, model.architecture)
    at_start = first_layer_angles(_untrained(model.architecture), model.architecture)
    means = None if angles is None else _off_diagonal(angles)
    fields = {}
    for row in found.iter_rows(named=True):
        slot = owners.index(row["field"])
        fields[row.pop("field")] = {
            **row,
            "squared_norm": norms.get(owners[slot]),
            "angle": None if means is None else means[slot],
        }
    worst = found.sort("own_noise", "field", descending=[True, False]).filter(pl.col("own_noise") > 0)
    return {
        "composition": placement.composition,
        "shared": placement.shared,
        "values": int(found["values"].sum()),
        "rows": placement.rows - 1,
        "load": float(found["values"].sum()) / (placement.rows - 1),
        "squared_norm": float(long["squared_norm"].mean() or 0.0),  # type: ignore[arg-type]
        "fields": fields,
        "worst": worst["field"].head(_WORST).to_list(),
        "by_load": _by_load(long),
        "angles": _angles(model.layout.fields, angles, at_start),
    }


def _by_load(long: pl.DataFrame) -> list[dict[str, float]]:
    """Rows by the number of values that read them, in bins: values (mean), rows, squared_norm (mean)."""
    rows = long.group_by("row", maintain_order=True).agg(
        pl.len().alias("values"), pl.col("squared_norm").first()
    )
    found = []
    for low, high in pairwise(_EDGES):
        here = rows.filter(pl.col("values").is_between(low, high, closed="left"))
        if here.height:
            means = here.select(
                pl.col("values").mean(), pl.lit(here.height).alias("rows"), pl.col("squared_norm").mean()
            )
            found.append(means.row(0, named=True))
    return found


def first_layer_angles(network: Network, architecture: Architecture) -> Floats | None:
    """Angles (F, F) in degrees between the first layer's weights of two fields; None where no layer has any.

    The weights of a field's chunk (the part of its vector that one lookup fills) are one vector; chunks of two fields
    that hold the same row disturb each other by the cosine of their angle (Coleman et al. 2023, section 4.2, where the
    layer is a logistic regression). The angle of two fields is that of the mean absolute cosine over their chunks: 90
    where none disturbs the other.

    NOTE[DIFF] First layers are matrices here; the cosine is that of the Frobenius product.
    """
    backbone, width = network.backbone, architecture.width
    layer = next(
        (name for name in ("mlp", *backbone.reads) if Part.FIELDS in backbone.reads.get(name, ())), None
    )
    if layer is None:
        return None
    parameter, axes = next(iter(getattr(backbone, layer).input_axes.items()))
    weight = getattr(backbone, layer).get_parameter(parameter).detach().double()
    weight = weight.movedim(axes[-1], 0).flatten(1) if weight.dim() > 1 else weight.unsqueeze(1)  # (N, H)
    before = 0
    for part in backbone.reads[layer]:
        if part is Part.FIELDS:
            break
        before += len(part.spread(torch.ones(architecture.fields, dtype=torch.bool), backbone.settings))
    lookups = architecture.lookups if architecture.composition in ("lookup", "robe") else 1
    fields = weight[before : before + architecture.fields * width]  # (F * D, H)
    chunks = fields.reshape(architecture.fields * lookups, -1)  # (F * K, D / K * H)
    chunks = chunks / chunks.norm(dim=1, keepdim=True).clamp(min=1e-30)
    cosines = (chunks @ chunks.T).abs().reshape(architecture.fields, lookups, architecture.fields, lookups)
    found: Floats = torch.rad2deg(torch.arccos(cosines.mean((1, 3)).clamp(max=1.0))).numpy()
    return found


def _untrained(architecture: Architecture) -> Network:
    """A network of that kind with fresh weights, its tables left out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alone = replace(architecture, rows=1, second_rows=min(1, architecture.second_rows), pairs=None)
        return build(alone)


def _off_diagonal(angles: Floats) -> list[float | None]:
    """Mean of each row, its diagonal left out."""
    if len(angles) < 2:
        return [None] * len(angles)
    return [float(mean) for mean in (angles.sum(1) - np.diag(angles)) / (len(angles) - 1)]


def _angles(fields: list[str], trained: Floats | None, start: Floats | None) -> dict[str, Any] | None:
    """Angles of all pairs of fields after training, and how they were spread before it."""
    if trained is None or start is None or len(fields) < 2:
        return None
    above = np.triu_indices(len(fields), 1)
    nearest = int(np.argmin(trained[above]))
    return {
        "fields": fields,
        "mean": float(trained[above].mean()),
        "mean_at_start": float(start[above].mean()),
        "smallest": {
            "angle": float(trained[above][nearest]),
            "fields": [fields[above[0][nearest]], fields[above[1][nearest]]],
        },
        "trained": trained.tolist() if len(fields) <= _MOST_FIELDS else None,
        "at_start": start.tolist() if len(fields) <= _MOST_FIELDS else None,
    }
