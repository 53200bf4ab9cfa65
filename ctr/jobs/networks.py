"""The networks of a job: over all features or compact, all from the same first weights."""

import numpy as np
import torch

from ctr.config import Config
from ctr.dataset.crosses import CrossKeys
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.layout import Layout
from ctr.dataset.placement import Placement, place
from ctr.dataset.shadow import ShadowLayout, Shadows, shadows
from ctr.dataset.store import Dataset
from ctr.jobs.limits import require_memory
from ctr.network.hashed_tables import HashedTable
from ctr.network.network import Architecture, Network, build, build_table
from ctr.selection.compaction import (
    compact_architecture,
    compact_layout,
    compact_network,
    compact_placement,
    feature_counts,
)
from ctr.selection.pair_space import cross_index
from ctr.selection.shadow import without_shadows


class Networks:
    """What networks of a job are built from.

    Args:
        config: the run's configuration.
        dataset: whose ids they read.
        device: where they are put.

    Raises:
        ConfigError: the embedding's budget does not hold the dataset's fields, no table can read the dataset, or the
            memory of the device does not hold the tables.
    """

    def __init__(self, config: Config, dataset: Dataset, device: torch.device) -> None:
        self._config, self._seed, self._dataset, self.device = config, config.seed, dataset, device
        backbone, embedding = config.backbone, config.embedding
        extra = {
            "layers": backbone.layers,
            "rank": backbone.rank,
            "subnet_units": backbone.subnet_units,
        }
        stated = Architecture(
            rows=0,
            fields=0,
            dim=embedding.dim,
            backbone=backbone.kind,
            hidden=tuple(backbone.hidden),
            dropout=backbone.dropout,
            norm=backbone.norm,
            first_order=backbone.first_order,
            init_scale=embedding.init_scale,
            extra=tuple((key, value) for key, value in extra.items() if value is not None),
        )
        self.placement: Placement | None = None
        if embedding.kind != "table":
            assert embedding.bytes is None or isinstance(embedding.bytes, int)
            self.placement = place(
                feature_counts(dataset),
                shared=embedding.kind == "unified",
                composition=embedding.composition,
                dim=stated.width,
                linear=stated.linear,
                lookups=embedding.lookups,
                field_lookups=embedding.field_lookups,
                bytes=embedding.bytes,
                rows=embedding.rows,
                collision_free=embedding.collision_free,
            )
        # A search tells every feature from every other.
        self.numbered = Layout(dataset, placement=self.placement)
        # Keep-all need not, where there is no vocabulary to tell them by: it reads whatever is there.
        self.everything = self.numbered
        if dataset.hashed:
            owners = sorted(set(self.numbered.owners))
            self.everything = Layout(dataset, placement=self.placement, kept=KeptValues.everything(owners))
        self.architecture = compact_architecture(stated, self.numbered)
        self.shadows: Shadows | None = None
        # What a search of values reads.
        self.searched, largest, read = self.numbered, self.architecture, dataset
        if config.selector.shadow:
            self.shadows = shadows(dataset, config.selector.shadow, config.seed)
            self.searched = ShadowLayout(self.shadows, self._with_copies(self.shadows))
            largest, read = compact_architecture(stated, self.searched), self.shadows.dataset
        self._largest = largest
        gates = read.features if config.selector.searches_features else 0
        require_memory(config, largest, device, read, gates)

    def _with_copies(self, shadows: Shadows) -> Placement | None:
        if self.placement is None:
            return None
        names = zip(shadows.copies, shadows.copied, strict=True)
        copies = {other.name: field.name for other, field in names}
        return self.placement.with_copies(feature_counts(self._dataset), copies)

    def fresh(self) -> Network:
        """Over all features."""
        return self._fresh(self.architecture, self._dataset)

    def shadowed(self, shadows: Shadows) -> Network:
        """Over all features and those of shadow fields, for a search."""
        return self._fresh(self._largest, shadows.dataset)

    def start(self, searched: Network, shadows: Shadows) -> Network:
        """Over all features, as the search of `shadowed` has left its weights to retrain from.

        NOTE[DIFF] Where rows are shared, the copies move them, and retraining starts from fresh weights: see `compact`.
        """
        # Weights that nothing was learned by yet are those of every other model of the job.
        rewound = self._config.selector.rewind_epoch and self.placement is None
        return without_shadows(searched, shadows) if rewound else self.fresh()

    def _fresh(self, architecture: Architecture, dataset: Dataset) -> Network:
        torch.manual_seed(self._seed)
        network = build(architecture)
        if self.placement is None:
            never = torch.from_numpy(np.flatnonzero(dataset.vocabulary["count"].to_numpy() == 0) + 1)
            # What no train row holds will never be trained: it must not add the noise of its first weights.
            network.table.weight.data[never] = 0.0
        network.dataset = dataset.digest
        return network.to(self.device)

    def layout(self, feature_set: FeatureSet) -> Layout:
        """What a compact network reads; hashed tables shrink with the features that are left."""
        smaller = None
        if self.placement is not None:
            smaller = compact_placement(self.placement, self._dataset, feature_set)
        return compact_layout(self._dataset, feature_set, smaller)

    def compact(self, feature_set: FeatureSet, layout: Layout, start: Network | None) -> Network:
        """What the retraining of a feature set begins with.

        Args:
            start: over all features, with the weights to go on from; fresh by default.

        NOTE[DIFF] Where rows are shared, a smaller table has other rows for the same values, and dense weights that fit
        the old ones are of no use: such a retraining starts from fresh weights, where OptFS takes an early copy.
        """
        if layout.placement == self.placement:  # every row is where it was
            return compact_network(start or self.fresh(), self._dataset, feature_set)
        whole = self.fresh()
        torch.manual_seed(self._seed)
        table = build_table(compact_architecture(self.architecture, layout))
        assert isinstance(table, HashedTable)
        return compact_network(whole, self._dataset, feature_set, table)

    def paired(self, layout: Layout, architecture: Architecture, keys: CrossKeys) -> Network:
        """A network that models pairs, with fresh weights, over the features that `layout` reads.

        Raises:
            ConfigError: the memory of the device does not hold the tables.
        """
        require_memory(self._config, architecture, self.device, self._dataset, index=keys.index_bytes)
        torch.manual_seed(self._seed)
        network = build(architecture, index=cross_index(keys))
        if layout.placement is None:
            # What no train row holds will never be trained: it must not add the noise of its first weights.
            never = layout.never_read()
            network.table.weight.data[torch.from_numpy(never)] = 0.0
            if network.crosses is not None and network.crosses.factors is not None:
                for slot, shift in network.crosses.layout.shifts:
                    own = layout.numbers_of(layout.fields[slot])
                    rows = torch.from_numpy(own[np.isin(own, never)] - shift)
                    network.crosses.factors.weight.data[rows] = 0.0
        network.dataset = self._dataset.digest
        return network.to(self.device)
