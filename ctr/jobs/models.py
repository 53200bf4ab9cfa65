"""The models of a job: each is trained in a folder of its own and can be had again from there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from ctr.config import Config
from ctr.dataset.batches import Batches, Layout
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset, Part
from ctr.errors import CtrError
from ctr.network.network import Architecture, Network, build
from ctr.selection import optfs
from ctr.selection.compaction import compact_architecture, compact_layout, compact_network
from ctr.selection.referees import REFEREES, number_to_keep
from ctr.tracking import Job
from ctr.training.checkpoint import load_checkpoint
from ctr.training.fit import Epoch, Watcher, fit, pick_device, predict
from ctr.training.progress import stage_progress

_EVALUATION_ROWS = 8192  # rows in a batch where nothing is learned


@dataclass(frozen=True)
class Model:
    """A trained model: what it was built from, where its weights are, how training went.

    selector: "baseline", or who chose `feature_set`. ratio, penalty: what was asked for.
    parameters: learned numbers; the row that dropped features read is none.
    """

    selector: str
    architecture: Architecture
    layout: Layout
    folder: Path
    parameters: int
    history: list[Epoch]
    feature_set: FeatureSet | None = None
    ratio: float | None = None
    penalty: float | None = None
    search_history: tuple[Epoch, ...] = ()

    @property
    def name(self) -> str:
        """Unique within a job."""
        return self.folder.name

    @property
    def row_width(self) -> int:
        """Floats in a table row, the first-order weight included."""
        return self.architecture.width + self.architecture.linear

    @property
    def table_parameters(self) -> int:
        """Learned numbers in tables: embeddings and first-order weights."""
        return (self.architecture.rows - 1) * self.row_width

    def load(self) -> Network:
        """The network with its best weights, on the CPU, ready to predict.

        Raises:
            CtrError: the weights are not there.
        """
        state = load_checkpoint(self.folder / "best")
        if state is None:
            raise CtrError(
                f'"{self.folder / "best"}": the weights are missing; use --force to start the run again'
            )
        network = build(self.architecture)
        network.load_state_dict(state["network"])
        return network.eval()

    def predict(self, part: Part, device: torch.device) -> npt.NDArray[np.float64]:
        """Click probabilities of the rows of `part`."""
        return predict(self.load().to(device), Batches(part, self.layout, _EVALUATION_ROWS))


class _Watchers:
    """Tells several watchers at once."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        for watcher in self._watchers:
            watcher.step(epoch, batch, batches, rows, loss)

    def epoch(self, record: Epoch) -> None:
        for watcher in self._watchers:
            watcher.epoch(record)


class _MetricsByStep:
    """Sends each epoch to a nested MLflow run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """Only epochs are sent."""

    def epoch(self, record: Epoch) -> None:
        values = record.flat()
        self._run.metrics(values, step=int(values.pop("step")))


def _parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters()) - network.table.weight.shape[1]


class Trainer:
    """Trains the models of one job, all with the same budget and from the same first weights.

    Args:
        config: the run's configuration.
        dataset: train and valid are read, test never.
        folder: for checkpoints, one folder per model.
        job: the MLflow run; each training becomes a nested one.
        console: for progress.
    """

    def __init__(self, config: Config, dataset: Dataset, folder: Path, job: Job, console: Console) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        self._job, self._console = job, console
        self._stages: set[str] = set()
        self._searches: dict[float, optfs.Search] = {}
        self.device = pick_device(config.training.device)
        torch.set_num_threads(config.training.threads or os.cpu_count() or 1)
        self.train, self.valid = dataset.part("train"), dataset.part("valid")
        self._full = Layout(dataset)
        backbone = config.backbone
        extra = {"layers": backbone.layers, "rank": backbone.rank}
        self.architecture = Architecture(
            rows=self._full.rows,
            fields=len(self._full.fields),
            dim=config.embedding.dim,
            backbone=backbone.kind,
            hidden=tuple(backbone.hidden),
            dropout=backbone.dropout,
            norm=backbone.norm,
            first_order=backbone.first_order,
            init_scale=config.embedding.init_scale,
            extra=tuple((key, value) for key, value in extra.items() if value is not None),
        )

    def baseline(self) -> Model:
        """Keep all features."""
        network = self._fresh()
        history = self._fit("baseline", "baseline", network, self._full)
        folder = self.folder / "baseline"
        return Model("baseline", self.architecture, self._full, folder, _parameters(network), history)

    def select(self, selector: str, *, ratio: float | None, penalty: float | None) -> Model:
        """Search with OptFS, or ask a referee, and retrain what it keeps."""
        size = f"{ratio:g}" if ratio is not None else "all" if penalty is None else f"price-{penalty:g}"
        if selector != "optfs":
            count = number_to_keep(self.dataset, 1.0 if ratio is None else ratio)
            feature_set = REFEREES[selector](self.dataset, count, self.config.seed)
            return self._retrain(feature_set, selector, size, ratio)
        price = optfs.DEFAULT_PRICE if penalty is None else penalty
        known = price in self._searches
        found = self._search(price)
        feature_set = optfs.choose(found, self.dataset, self.valid, ratio)
        history = () if known else tuple(found.history)
        return self._retrain(feature_set, "optfs", size, ratio, penalty, found.network, history)

    def _search(self, price: float) -> optfs.Search:
        """One search for each price; the sizes that a list of ratios asks for share it."""
        if price not in self._searches:
            name = f"search-{price:g}"
            with self._stage(name, "search") as watcher:
                self._searches[price] = optfs.search(
                    self._fresh(),
                    self.dataset,
                    self._batches(self.train, self._full, shuffle=True),
                    self._batches(self.valid, self._full),
                    self.config.selector,
                    self.config.training,
                    price=price,
                    folder=self.folder / name,
                    watcher=watcher,
                )
        return self._searches[price]

    def referee(self, selector: str, like: Model) -> Model:
        """Retrain what a referee keeps at the size of `like`."""
        assert like.feature_set is not None
        counts = like.feature_set.counts()
        feature_set = REFEREES[selector](self.dataset, counts["kept"], self.config.seed)
        return self._retrain(feature_set, selector, like.name.split("-", 1)[1], counts["ratio"])

    def _retrain(
        self,
        feature_set: FeatureSet,
        selector: str,
        size: str,
        ratio: float | None,
        penalty: float | None = None,
        network: Network | None = None,
        search: tuple[Epoch, ...] = (),
    ) -> Model:
        layout = compact_layout(self.dataset, feature_set)
        compact = compact_network(network or self._fresh(), self.dataset, feature_set)
        name = f"{selector}-{size}"
        history = self._fit(
            name, "retrain" if selector == self.config.selector.kind else name, compact, layout
        )
        return Model(
            selector,
            compact_architecture(self.architecture, layout),
            layout,
            self.folder / name,
            _parameters(compact),
            history,
            feature_set,
            ratio,
            penalty,
            search,
        )

    def _fresh(self) -> Network:
        torch.manual_seed(self.config.seed)
        network = build(self.architecture)
        never = torch.from_numpy(np.flatnonzero(self.dataset.vocabulary["count"].to_numpy() == 0) + 1)
        # What no train row holds will never be trained: it must not add the noise of its first weights.
        network.table.weight.data[never] = 0.0
        return network.to(self.device)

    def _fit(self, name: str, stage: str, network: Network, layout: Layout) -> list[Epoch]:
        torch.manual_seed(self.config.seed)  # dropout: the same stream whether or not a search ran before
        with self._stage(name, stage) as watcher:
            train = self._batches(self.train, layout, shuffle=True)
            valid = self._batches(self.valid, layout)
            result = fit(
                network, train, valid, self.config.training, folder=self.folder / name, watcher=watcher
            )
        return result.history

    def _batches(self, part: Part, layout: Layout, shuffle: bool = False) -> Batches:
        if shuffle:
            return Batches(part, layout, self.config.training.batch_size, self.config.seed)
        return Batches(part, layout, _EVALUATION_ROWS)

    @contextmanager
    def _stage(self, name: str, stage: str) -> Iterator[Watcher]:
        # A second size must not write into the nested run of the first: it is called after its model.
        stage = name if stage in self._stages else stage
        self._stages.add(stage)
        with self._job.stage(stage) as run, stage_progress(self._console, name) as bar:
            yield _Watchers([bar, _MetricsByStep(run)])
