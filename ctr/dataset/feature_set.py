"""A feature set: which features of a dataset are kept, and what the selector thought of each."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.store import FIRST_VALUE, UNKNOWN, Dataset
from ctr.errors import CtrError, DataError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
DroppedReads = Literal["zero", "unknown"]


@dataclass(frozen=True)
class FeatureSet:
    """Kept features of one dataset.

    Attributes:
        features: one row per feature, by global id: field, role, value, id (local), count, gate, kept.
        provenance: dataset digest, selector and its settings, seed.
        interactions: one row per pair of fields: field_a, field_b, method (memorize, factorize, naive), a weight for
            each of the three, and strength, by how much the method leads, null of a pair that was screened out before
            the search; where pairs were screened, screened_nats. None where pairs were not chosen.
    """

    features: pl.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    interactions: pl.DataFrame | None = None

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        kept: Bools,
        gate: Floats,
        provenance: dict[str, Any],
        dropped_reads: DroppedReads = "zero",
    ) -> "FeatureSet":
        """The set with the given features (V,) of `dataset`, and those that the schema says to keep or to drop.

        The compact vocabulary cannot tell a dropped value from one that was never seen, so both must read the same
        row. Where dropped values read `zero`, the unknown of a field stays only if every value of the field does;
        where they read `unknown`, it stays as long as any value of the field does.

        Raises:
            CtrError: no feature is left.
        """
        kept = kept.copy()
        for info in dataset.fields:
            local = kept[info.offset : info.offset + info.features]  # a view
            if info.always or info.never:
                local[:] = info.always
            values = local[FIRST_VALUE:]
            if info.scaled or info.size:
                local[UNKNOWN] = False
            elif dropped_reads == "zero":
                local[UNKNOWN] &= values.all()
            else:
                local[UNKNOWN] = values.any()
        if not kept.any():
            raise CtrError(
                "the selector dropped every feature: lower selector.penalty, or state selector.ratio instead"
            )
        features = dataset.vocabulary.with_columns(pl.Series("gate", gate), pl.Series("kept", kept))
        return cls(features, {"dataset": dataset.digest, "dropped_reads": dropped_reads, **provenance})

    def reading(self, dataset: Dataset, dropped_reads: DroppedReads) -> "FeatureSet":
        """The same values kept, with dropped ones reading `zero` or `unknown`."""
        before = self.features
        kept, gate = before["kept"].to_numpy(), before["gate"].to_numpy()
        provenance = {key: value for key, value in self.provenance.items() if key != "dropped_reads"}
        # All are candidates for the rule of `of`: what an unknown was worth to the selector is in its gate.
        unknown = (before["role"] == "unknown").to_numpy() & (before["count"] > 0).to_numpy()
        found = FeatureSet.of(dataset, kept | unknown, gate, provenance, dropped_reads)
        return found if self.interactions is None else found.with_interactions(self.interactions)

    def with_interactions(self, interactions: pl.DataFrame, **provenance: Any) -> "FeatureSet":
        """The same features, with how pairs of their fields interact."""
        return replace(self, interactions=interactions, provenance={**self.provenance, **provenance})

    def pairs(self, method: str) -> list[tuple[str, str]]:
        """The pairs that are modelled by a method, in schema order."""
        if self.interactions is None:
            return []
        chosen = self.interactions.filter(pl.col("method") == method)
        return list(zip(chosen["field_a"], chosen["field_b"], strict=True))

    @property
    def dropped_reads(self) -> DroppedReads:
        """What a dropped value reads: a row of zeros, or its field's unknown."""
        return "unknown" if self.provenance.get("dropped_reads") == "unknown" else "zero"

    @property
    def kept(self) -> Bools:
        """(V,) by global id."""
        return self.features["kept"].to_numpy()

    def counts(self) -> dict[str, Any]:
        """kept, total, ratio and per field kept and total, in values: unknown and missing are not counted."""
        values = self.features.filter(pl.col("role") == "value")
        per_field = values.group_by("field", maintain_order=True).agg(
            pl.col("kept").sum(), pl.len().alias("total")
        )
        fields = {name: {"kept": kept, "total": total} for name, kept, total in per_field.iter_rows()}
        kept, total = int(values["kept"].sum()), values.height
        return {
            "kept": kept,
            "total": total,
            "ratio": kept / total,
            "fields": fields,
            "interactions": {
                method: None if self.interactions is None else len(self.pairs(method)) for method in METHODS
            },
        }

    def digest(self) -> str:
        """36 hexadecimal characters that change with the kept features and the interactions."""
        content = self.features.filter("kept").select("field", "role", pl.col("value").fill_null("")).rows()
        if self.interactions is not None:
            content += self.interactions.select("field_a", "field_b", "method").rows()
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:36]

    def save(self, folder: Path) -> None:
        """Write `feature_set.json`, `features.parquet` and, where pairs were chosen, `interactions.parquet`.

        The folder appears whole or not at all.
        """
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            self.features.write_parquet(scratch / "features.parquet")
            content = {**self.provenance, "digest": self.digest(), **self.counts()}
            content["features_sha256"] = _sha256(scratch / "features.parquet")
            if self.interactions is not None:
                self.interactions.write_parquet(scratch / INTERACTIONS)
                content["interactions_sha256"] = _sha256(scratch / INTERACTIONS)
            content["checksum"] = _checksum(content)
            (scratch / "feature_set.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            scratch.replace(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    @classmethod
    def load(cls, folder: Path) -> "FeatureSet":
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, broken or altered.
        """
        try:
            content = json.loads((folder / "feature_set.json").read_text(encoding="utf-8"))
            claimed = content.pop("checksum")
            if claimed != _checksum(content):
                raise ValueError("feature_set.json was altered after it was written")
            if content["features_sha256"] != _sha256(folder / "features.parquet"):
                raise ValueError("features.parquet was altered after it was written")
            features = pl.read_parquet(folder / "features.parquet")
            interactions = None
            if "interactions_sha256" in content:
                if content["interactions_sha256"] != _sha256(folder / INTERACTIONS):
                    raise ValueError(f"{INTERACTIONS} was altered after it was written")
                interactions = pl.read_parquet(folder / INTERACTIONS)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
            raise DataError(f'"{folder}": no readable feature set: {error}') from None
        provenance = {key: value for key, value in content.items() if key not in _COUNTS}
        return cls(features, provenance, interactions)


INTERACTIONS = "interactions.parquet"
METHODS = ("memorize", "factorize", "naive")
_COUNTS = frozenset({"digest", "kept", "total", "ratio", "fields", "interactions"})
_COUNTS |= {"features_sha256", "interactions_sha256"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
