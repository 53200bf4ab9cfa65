"""The cells of a comparison: ordinary run configurations that differ in what is compared, and in nothing else.

A cell is trained without a look at test (`ctr.jobs.sealed_cell`). Each is named by the digest of its configuration and
data, so that comparisons that share cells train them once.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from ctr.config import Config, SelectorConfig
from ctr.dataset.carried_set import NewValues
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.jobs.comparison_config import UNSIZED, Alternative, Comparison
from ctr.jobs.networks import Networks
from ctr.settings import check

Role = Literal["keep_all", "selector", "alternative"]
Where = tuple[str, str]  # backbone and embedding
_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class EarlierSet:
    """A feature set that was selected on earlier rows: where it is kept, its digest, and what becomes of new values."""

    folder: Path
    digest: str
    new_values: NewValues


@dataclass(frozen=True)
class Cell:
    """Some trainings of one configuration: keep-all, a selector at all sizes, or an alternative.

    label: who chose, or which alternative. embedding: of the keep-all that it is compared with.
    sizes: shares of the values; (None,) where sizes do not apply.
    for_trial: whether a trial of the same network and seed will choose (`Trainer.baseline`).
    earlier: the set that is trained as it is, instead of a search; sizes are then the one that it was selected for.
    """

    role: Role
    label: str
    embedding: str
    config: Config
    sizes: tuple[float | None, ...]
    earlier: EarlierSet | None = None
    for_trial: bool = False

    @property
    def asks_keep_all(self) -> bool:
        """Whether it needs the keep-all of its network and seed as it was trained."""
        return self.role == "selector" or self.config.export.dtype != "float32"

    def digest(self, data_digest: str) -> str:
        """12 characters that change with anything that can change what it trains."""
        found = self.config.digest(data_digest)
        if self.earlier is None:
            return found
        text = f"{found} {self.sizes[0]} {self.earlier.digest} {self.earlier.new_values}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, data_digest: str) -> Path:
        """Where it is trained and kept."""
        name = f"{self.config.name}-{self.digest(data_digest)}"
        return Path(self.config.output.folder) / "cells" / name


class Grid:
    """The cells of a comparison on a dataset.

    Args:
        comparison: what is compared.
        dataset: on which.
        device: where cells will be trained.
    """

    def __init__(self, comparison: Comparison, dataset: Dataset, device: torch.device) -> None:
        self._comparison, self._dataset, self._device = comparison, dataset, device
        self.left_out: list[str] = []  # alternatives that do not exist here, each with the reason

    def cells(self) -> list[Cell]:
        """Keep-all first, then selectors, then alternatives.

        Raises:
            ConfigError: a combination of the grid breaks the rules of a run, or does not fit the log or the machine.
        """
        found = [cell for pair in kinds(self._comparison) for cell in self._of(*pair)]
        order: list[Role] = ["keep_all", "selector", "alternative"]
        return sorted(found, key=lambda cell: order.index(cell.role))

    def _of(self, backbone: str, embedding: str) -> Iterator[Cell]:
        grid, where = self._comparison.grid, (backbone, embedding)
        for seed in grid.seeds:
            keep_all = self._cell("keep_all", "keep all", (None,), where, seed, {"kind": "none"})
            tried = any(chooser["kind"] == "trial" for chooser in grid.choosers().values())
            yield replace(keep_all, for_trial=tried)
            for label, chooser in grid.choosers().items():
                unsized = chooser["kind"] in UNSIZED
                sizes: tuple[float | None, ...] = (None,) if unsized else tuple(grid.sizes)
                asked = {} if unsized else {"ratio": list(grid.sizes)}
                yield self._cell("selector", label, sizes, where, seed, {**chooser, **asked})
            for alternative in self._comparison.compare.alternatives:
                yield from self._alternative(alternative, where, seed)

    def _alternative(self, kind: Alternative, where: Where, seed: int) -> Iterator[Cell]:
        """Those of one kind that exist here."""
        builders = {
            "dim": self._dim,
            "min_count": self._min_count,
            "unified": self._unified,
            "int8": self._int8,
        }
        try:
            yield from builders[kind](where, seed)
        except ConfigError as error:
            self._leave_out(str(error))

    def _dim(self, where: Where, seed: int) -> Iterator[Cell]:
        """Keep-all with a narrower row for each feature."""
        dim = self._comparison.run.embedding.dim
        for narrow in sorted({dim // 2, dim // 4} - {0, dim}, reverse=True):
            yield self._cell(
                "alternative",
                f"width {narrow}",
                (None,),
                where,
                seed,
                {"kind": "none"},
                {"dim": narrow},
            )

    def _min_count(self, where: Where, seed: int) -> Iterator[Cell]:
        """What a higher min_count leaves: values below it read their field's unknown, which is trained on them."""
        sizes = tuple(self._comparison.grid.sizes)
        asked = {"kind": "frequency", "ratio": list(sizes), "dropped_reads": "unknown"}
        yield self._cell("alternative", "min count", sizes, where, seed, asked)

    def _unified(self, where: Where, seed: int) -> Iterator[Cell]:
        """Keep-all in one hashed table of as many bytes as a table over the share that is kept."""
        if where[1] != "table":
            self._leave_out(f'unified: the table is "{where[1]}" already')
            return
        keep_all = self._cell("keep_all", "keep all", (None,), where, seed, {"kind": "none"})
        architecture = Networks(keep_all.config, self._dataset, self._device).architecture
        whole = (architecture.rows - 1) * (architecture.width + architecture.linear) * _FLOAT32
        for size in self._comparison.grid.sizes:
            embedding = {"kind": "unified", "bytes": max(1, round(size * whole))}
            yield self._cell("alternative", "unified", (size,), where, seed, {"kind": "none"}, embedding)

    def _int8(self, where: Where, seed: int) -> Iterator[Cell]:
        """Keep-all as it was trained, with its weights rounded."""
        found = self._cell("alternative", "int8", (None,), where, seed, {"kind": "none"})
        export = found.config.export.model_copy(update={"dtype": "int8"})
        yield replace(found, config=found.config.model_copy(update={"export": export}))

    def _leave_out(self, reason: str) -> None:
        if reason not in self.left_out:
            self.left_out.append(reason)

    def _cell(
        self,
        role: Role,
        label: str,
        sizes: tuple[float | None, ...],
        where: Where,
        seed: int,
        selector: dict[str, Any],
        embedding: dict[str, Any] | None = None,
    ) -> Cell:
        backbone, table = where
        name = re.sub("[ +]", "-", label)
        changes = {"selector": selector, "embedding": {"kind": table, **(embedding or {})}}
        try:
            run = self._comparison.run
            config = cell_config(run, f"{run.name}-{name}", backbone, seed, changes)
            if seed == self._comparison.grid.seeds[0]:
                Networks(config, self._dataset, self._device)  # refuses what does not fit
        except ConfigError as error:
            place = f'grid: "{label}" with backbone "{backbone}" and embedding "{table}"'
            raise ConfigError(f"{place}: {error}") from None
        return Cell(role, label, table, config, sizes)


def kinds(comparison: Comparison) -> list[tuple[str, str]]:
    """Every backbone with every embedding."""
    backbones = comparison.grid.backbones or [comparison.run.backbone.kind]
    embeddings = comparison.grid.embeddings or [comparison.run.embedding.kind]
    return [(backbone, embedding) for backbone in backbones for embedding in embeddings]


def cell_config(
    run: Config, name: str, backbone: str, seed: int, changes: dict[str, dict[str, Any]]
) -> Config:
    """The run with another backbone, seed, selector and embedding; everything else is the same budget.

    Raises:
        ConfigError: the result breaks the rules of a run.
    """
    content = run.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content |= {"name": name, "seed": seed, "export": {}, "tracking": {"uri": "off"}}
    content["backbone"] = {**content.get("backbone", {}), "kind": backbone}
    if backbone != run.backbone.kind:
        # What only the run's own backbone has.
        for key in ("layers", "rank", "subnet_units", "first_order"):
            content["backbone"].pop(key, None)
    content["embedding"] = {**content.get("embedding", {}), **changes["embedding"]}
    if content["embedding"]["kind"] != run.embedding.kind:
        kept = ("kind", "dim", *changes["embedding"])
        content["embedding"] = {key: value for key, value in content["embedding"].items() if key in kept}
    selector = changes["selector"]
    own = {k: v for k, v in content.get("selector", {}).items() if k not in ("ratio", "penalty", "kind")}
    asked = {"referees": [], "compare_dropped_reads": False, **selector}
    content["selector"] = {**_applicable(own, asked), **asked}
    training = content.get("training", {})
    content["training"] = {**training, "threads": training.get("threads") or 1}
    return check(content, Config, "run")


def _applicable(own: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of the run's selector that another one has as well; all of them where it has them all."""

    def valid(settings: dict[str, Any]) -> bool:
        try:
            SelectorConfig.model_validate({**settings, **asked})
        except ValidationError:
            return False
        return True

    if valid(own):
        return own
    # Some need another one, as random_counts needs choice.
    pairs = {key: [{key: value, other: own[other]} for other in own] for key, value in own.items()}
    return {key: value for key, value in own.items() if any(valid(pair) for pair in pairs[key])}
