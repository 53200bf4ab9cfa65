"""The models of a job: each is trained in a folder of its own and can be had again from there."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from ctr.config import Config, SelectorConfig
from ctr.dataset.batches import Batches
from ctr.dataset.crosses import CrossKeys
from ctr.dataset.feature_set import DroppedReads, FeatureSet
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import PairNames
from ctr.dataset.stacked import stacked
from ctr.dataset.store import Dataset, Part
from ctr.errors import CtrError, shown_bytes
from ctr.evaluation.metrics import measure
from ctr.jobs.networks import Networks
from ctr.network.crosses import table_parameters as pair_table_parameters
from ctr.network.network import Architecture, Network, build, sizes
from ctr.selection import optfs, optinter, trial
from ctr.selection.compaction import compact_architecture
from ctr.selection.field_referees import require
from ctr.selection.network_referees import NETWORK_REFEREES, KeepAll
from ctr.selection.optinter import CANDIDATES
from ctr.selection.pair_screen import Screen, screen
from ctr.selection.pair_space import LimitError, PairSpace, cross_index
from ctr.selection.referees import REFEREES, number_to_keep
from ctr.selection.saliency import Saliency
from ctr.selection.young_passes import YoungPasses
from ctr.serving.costs import weight_bytes
from ctr.serving.network_files import as_stored
from ctr.serving.storage import Dtype
from ctr.tracking import Job
from ctr.training.checkpoint import load_checkpoint, save_checkpoint, share_checkpoints
from ctr.training.fit import fit
from ctr.training.looks import Look, Result, Watcher, rates
from ctr.training.machine import bf16_speed, pick_threads
from ctr.training.predict import calibrate, predict
from ctr.training.progress import stage_progress

_FLOAT32 = 4  # bytes
_EVALUATION_ROWS = 8192  # rows in a batch where nothing is learned
_SEARCHED = ("optfs", "optfs+optinter")  # selectors whose feature set comes of a search with gates


@dataclass(frozen=True)
class Model:
    """A trained model: what it was built from, where its weights are, how training went.

    selector: "baseline", or who chose `feature_set`. ratio, penalty: what was asked for.
    parameters: learned numbers; the row that dropped features read is none. best_step: after which the weights were
        taken, by their AUC on valid. crosses: by which those of memorized pairs are found, where pairs are modelled.
    rival_history: how the trainings went that it was preferred to. dtype: in which a bundle stores its weights; what
        it predicts it predicts with weights that are rounded so.
    """

    selector: str
    architecture: Architecture
    layout: Layout
    folder: Path
    parameters: int
    history: list[Look]
    best_step: int
    feature_set: FeatureSet | None = None
    ratio: float | None = None
    penalty: float | None = None
    search_history: tuple[Look, ...] = ()
    crosses: CrossKeys | None = None
    rival_history: tuple[Look, ...] = ()
    dtype: Dtype = "float32"

    @property
    def name(self) -> str:
        """Unique within a job."""
        return self.folder.name

    @property
    def table_parameters(self) -> int:
        """Learned numbers in tables: embeddings, first-order weights and, of pairs, crosses and factors."""
        placement, pairs = self.layout.placement, self.architecture.pairs
        if placement is not None:
            own = placement.parameters
        else:
            own = (self.architecture.rows - 1) * (self.architecture.width + self.architecture.linear)
        if pairs is None:
            return own
        # Factors are read at the places of embeddings: as many rows, of another width.
        hashed = 0
        if placement is not None:
            each = placement.lookups if placement.composition == "lookup" else 1
            hashed = replace(placement, width=pairs.dim // each, linear=0).parameters
        return own + pair_table_parameters(pairs, hashed)

    @property
    def cross_rows(self) -> int | None:
        """Rows of the table of crosses; None where pairs are not modelled."""
        return None if self.architecture.pairs is None else self.architecture.pairs.cross_rows - 1

    @property
    def cross_index_bytes(self) -> int | None:
        """Memory of what finds the rows of crosses, beside the table; None where pairs are not modelled."""
        return None if self.crosses is None else self.crosses.index_bytes

    @cached_property
    def bytes(self) -> tuple[int, int]:
        """Of all weights and of those in tables, as they are stored."""
        if self.dtype == "float32":
            return self.parameters * _FLOAT32, self.table_parameters * _FLOAT32
        return weight_bytes(self.load(), self.dtype)

    def load(self) -> Network:
        """The network with its best weights as they were trained, on the CPU, ready to predict.

        Raises:
            CtrError: the weights are not there.
        """
        state = load_checkpoint(self.folder / "best")
        if state is None:
            raise CtrError(
                f'"{self.folder / "best"}": the weights are missing; use --force to start the run again'
            )
        network = build(self.architecture, index=None if self.crosses is None else cross_index(self.crosses))
        network.load_state_dict(state["network"])
        network.dataset = self.layout.digest
        return network.eval()

    def stored(self, device: torch.device) -> Network:
        """What `load` gives, rounded as a bundle stores it, on the device."""
        return as_stored(self.load(), self.dtype).to(device)

    def predict(
        self, part: Part, device: torch.device, *, serving: bool = False, network: Network | None = None
    ) -> npt.NDArray[np.float64]:
        """Click probabilities of the rows of `part`; with `serving`, with bias fields as they are at scoring.

        Args:
            network: what `stored` gave, for whoever asks often.
        """
        layout = self.layout.at_serving() if serving else self.layout
        return predict(network or self.stored(device), Batches(part, layout, _EVALUATION_ROWS))


class _Watchers:
    """Tells several watchers at once."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        for watcher in self._watchers:
            watcher.step(epoch, batch, batches, rows, loss)

    def look(self, record: Look) -> None:
        for watcher in self._watchers:
            watcher.look(record)


class _MetricsByStep:
    """Sends each look at valid to a nested MLflow run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """Only looks are sent."""

    def look(self, record: Look) -> None:
        values = record.flat()
        self._run.metrics(values, step=int(values.pop("step")))


class _Guard:
    """Makes sure at each look that the run is still ours; two processes must not write one training's checkpoints."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """Looks are often enough."""

    def look(self, record: Look) -> None:
        self._check()


class Trainer:
    """Trains the models of one job, all with the same budget and from the same first weights.

    Args:
        config: the run's configuration.
        dataset: train and valid are read, test never.
        networks: over its features.
        folder: for checkpoints, one folder per model.
        job: the MLflow run; each training becomes a nested one.
        console: for progress.
        check: raises where another process has taken the run over.
    """

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        networks: Networks,
        folder: Path,
        job: Job,
        console: Console,
        check: Callable[[], None],
    ) -> None:
        self.config, self.dataset, self.folder = config, dataset, folder
        self._job, self._console, self._guard = job, console, _Guard(check)
        self._stages: set[str] = set()
        self._searches: dict[tuple[float, str], optfs.Search] = {}
        self._contest: trial.Contest | None = None
        self._baseline: Model | None = None
        self._starts: dict[
            str, Network
        ] = {}  # over all features: what trainings begin with, where not afresh
        self.networks, self.device = networks, networks.device
        torch.set_num_threads(pick_threads(config.training.threads))
        self._warn_of_slow_products()
        self.train, self.valid = dataset.part("train"), dataset.part("valid")
        numbered = self._batches(self.train, networks.numbered)
        self._young = YoungPasses(folder / "baseline", numbered, dataset.features, trial.EPOCHS)
        for selector in (config.selector.kind, *config.selector.referees):
            require(selector)
        if config.selector.selects_pairs:
            self._pairs = optinter.stated_pairs(dataset.schema.fields, config.selector)
            self._require_limit()

    def _warn_of_slow_products(self) -> None:
        """Say so where bf16 was meant to be fast and is not: a processor without it can be sixty times as slow."""
        if self.config.training.precision == "bf16" and self.device.type == "cpu":
            speed = bf16_speed()
            if speed < 1.0:
                self._console.print(
                    f'warning: training.precision = "bf16": this processor multiplies it at {speed:.2g} of the speed '
                    'of float32; "float32" trains faster here',
                    style="yellow",
                    highlight=False,
                    soft_wrap=True,
                    markup=False,
                )

    def _require_limit(self) -> None:
        """Refuse stated methods that a stated limit of bytes does not hold, before anything is trained.

        Raises:
            LimitError: it does not.
        """
        settings = self.config.selector
        if (
            settings.kind == "optinter"
            and settings.max_cross_bytes
            and settings.choice in ("memorize", "random")
        ):
            self.choose_pairs(self._all_values())

    def _all_values(self) -> FeatureSet:
        return REFEREES["all"](self.dataset, 0, self.config.seed)

    @property
    def _numbered(self) -> bool:
        """Whether keep-all tells every feature from every other."""
        return self.networks.everything is self.networks.numbered

    def baseline(self, *, for_trial: bool = False) -> Model:
        """Keep all features; trained once.

        Args:
            for_trial: whether a trial will choose, though the configuration names none: the passes over train that it
                ranks by are then taken on the way, and count as time of this training.
        """
        if self._baseline is None:
            network, layout = self.networks.fresh(), self.networks.everything
            selector = self.config.selector
            asked = for_trial or "trial" in (selector.kind, *selector.referees)
            watchers = [self._young.watching(network)] if asked and self._numbered else []
            result = self._fit("baseline", "baseline", network, layout, watchers)
            self._baseline = Model(
                "baseline",
                self.networks.architecture,
                layout,
                self.folder / "baseline",
                sizes(network).parameters,
                result.history,
                result.best_step,
                # Where nothing is selected it is what the bundle holds; else it is what that is compared with.
                dtype=self.config.export.dtype if self.config.selector.kind == "none" else "float32",
            )
        return self._baseline

    def select(self, selector: str, *, ratio: float | None, penalty: float | None) -> Model:
        """Search with OptFS or OptInter, or ask a referee, and retrain what comes of it."""
        size = f"{ratio:g}" if ratio is not None else "all" if penalty is None else f"price-{penalty:g}"
        if selector == "optinter":
            return self._paired("optinter", "optinter-all", self._all_values())
        price = optfs.DEFAULT_PRICE if penalty is None else penalty
        known = (price, "value") in self._searches
        feature_set = self.choose(selector, ratio=ratio, penalty=penalty)
        if selector not in _SEARCHED:
            return self._retrain(f"{selector}-{size}", feature_set, selector=selector, ratio=ratio)
        found = self._searches[price, "value"]
        history = () if known else tuple(found.history)
        if selector == "optfs+optinter":
            name = f"{selector}-{size}"
            return self._paired(name, name, feature_set, ratio=ratio, penalty=penalty, search_history=history)
        return self._retrain(
            f"optfs-{size}",
            feature_set,
            selector="optfs",
            ratio=ratio,
            penalty=penalty,
            start=found.network,
            search_history=history,
        )

    def as_it_is(self, selector: str, feature_set: FeatureSet, *, ratio: float | None) -> Model:
        """Train a feature set that was selected elsewhere, by `selector` at `ratio`, and search for nothing."""
        size = "all" if ratio is None else f"{ratio:g}"
        return self._retrain(f"{selector}-{size}-as-it-is", feature_set, selector=selector, ratio=ratio)

    def choose(
        self, selector: str, *, ratio: float | None = None, penalty: float | None = None
    ) -> FeatureSet:
        """What a selector keeps, before anything is trained again; of pairs alone, every value."""
        if selector in _SEARCHED:
            found = self._search(optfs.DEFAULT_PRICE if penalty is None else penalty)
            return optfs.choose(found, self.dataset, self.valid, ratio)
        return self._refereed(selector, number_to_keep(self.dataset, 1.0 if ratio is None else ratio))

    def choose_pairs(self, feature_set: FeatureSet) -> FeatureSet:
        """A feature set with how the pairs of its fields interact, before anything is trained again."""
        return self._with_pairs("optinter", feature_set, self.config.selector)[0]

    def _paired(
        self,
        search_name: str,
        name: str,
        feature_set: FeatureSet,
        *,
        ratio: float | None = None,
        penalty: float | None = None,
        search_history: tuple[Look, ...] = (),
    ) -> Model:
        """The retrained network of a feature set whose pairs interact as chosen; of all choices the best on valid."""
        settings, models, aucs = self.config.selector, list[Model](), dict[str, float]()
        for choice in CANDIDATES if settings.choice == "best" else (settings.choice,):
            own = settings.model_copy(update={"choice": choice})
            try:
                found, looks = self._with_pairs(search_name, feature_set, own)
            except LimitError as error:
                if settings.choice != "best":
                    raise
                self._console.print(
                    f"  {name}-{choice} is left out: {error}", highlight=False, soft_wrap=True
                )
                continue
            model = self._retrain(
                name if choice == settings.choice else f"{name}-{choice}",
                found,
                selector=settings.kind,
                ratio=ratio,
                penalty=penalty,
                search_history=search_history + looks,
            )
            models.append(model)
            if settings.choice == "best":
                aucs[choice] = measure(
                    self.valid.labels, model.predict(self.valid, self.device), self.valid.weights
                ).auc
        if not aucs:
            return models[0]
        best = max(aucs, key=aucs.__getitem__)  # of equals, the first
        chosen = models.pop(list(aucs).index(best))
        assert chosen.feature_set is not None
        return replace(
            chosen,
            feature_set=replace(
                chosen.feature_set,
                provenance={
                    **chosen.feature_set.provenance,
                    "choice": "best",
                    "chosen": best,
                    "valid_auc": aucs,
                },
            ),
            search_history=models[0].search_history if best != "search" else chosen.search_history,
            rival_history=tuple(look for model in models for look in model.history),
        )

    def _with_pairs(
        self, name: str, feature_set: FeatureSet, settings: SelectorConfig
    ) -> tuple[FeatureSet, tuple[Look, ...]]:
        """A feature set with how the pairs of its fields interact, and how the search for that went."""
        seed = self.config.seed
        if feature_set.dropped_reads != settings.dropped_reads:
            feature_set = feature_set.reading(self.dataset, settings.dropped_reads)
        layout = self.networks.layout(feature_set)
        space, looks = self._space(layout), list[Look]()
        screened = self._screened(name, space) if settings.choice == "search" else None
        if screened is not None:
            space = self._space(layout, screened.kept)
        if settings.choice == "search":
            architecture = compact_architecture(self.networks.architecture, layout)
            with self._stage(f"{name}-pairs", "search-pairs") as watcher:
                found = optinter.search(
                    lambda pairs, keys: self.networks.paired(
                        layout, replace(architecture, pairs=pairs), keys
                    ),
                    space,
                    self._batches(self.train, layout, learning=True),
                    self._batches(self.valid, layout),
                    settings,
                    self.config.training,
                    folder=self.folder / f"{name}-pairs",
                    seed=seed,
                    least_dim=max(2, architecture.lookups),
                    watcher=watcher,
                )
            gains, looks = found.gains, found.history
        elif settings.choice == "random":
            assert settings.random_counts is not None
            gains = optinter.drawn(space, settings.random_counts, seed)
        else:
            gains = optinter.one_for_all(space, settings.choice)
        interactions = optinter.choose(gains, space, settings)
        if screened is not None:
            interactions = screened.with_all(interactions)
        return feature_set.with_interactions(
            interactions, selector=settings.kind, **optinter.shown(settings)
        ), tuple(looks)

    def _screened(self, name: str, space: PairSpace) -> Screen | None:
        """Which pairs are worth a search; None where it looks at all of them."""
        number = self.config.selector.screened_pairs
        if number is None or number >= len(space.pairs):
            return None
        started = time.perf_counter()
        found = screen(space, self.train.labels, self.train.weights, number, self.config.seed)
        self._console.print(
            f"  {name}: {len(space.pairs)} pairs screened to {number} "
            f"({time.perf_counter() - started:.1f} s)",
            highlight=False,
            soft_wrap=True,
        )
        return found

    def _space(self, layout: Layout, pairs: Sequence[PairNames] = (), *, final: bool = False) -> PairSpace:
        """The given pairs, by default all; `final` once they are chosen, within a limit of bytes."""
        settings = self.config.selector
        assert settings.sketch_bytes is None or isinstance(settings.sketch_bytes, int)
        assert settings.max_cross_bytes is None or isinstance(settings.max_cross_bytes, int)
        budget = settings.cross_budget
        if final and budget is not None and settings.max_cross_bytes is not None:
            budget = min(budget, settings.max_cross_bytes)  # the choice went by what a sketch estimates
        return PairSpace(
            self.dataset,
            layout,
            pairs or self._pairs,
            min_count=settings.min_count,
            dim=settings.pair_dim,
            cross_bytes=budget,
            sketch_bytes=settings.sketch_bytes,
        )

    def _search(self, price: float, grain: Literal["value", "field"] = "value") -> optfs.Search:
        """One search for each price; the sizes that a list of ratios asks for share it."""
        if (price, grain) not in self._searches:
            name = f"search-{price:g}" if grain == "value" else f"search-fields-{price:g}"
            shadows = self.networks.shadows if grain == "value" else None
            layout = self.networks.searched if grain == "value" else self.networks.numbered
            with self._stage(name, "search" if grain == "value" else "search-fields") as watcher:
                found = optfs.search(
                    self.networks.fresh() if shadows is None else self.networks.shadowed(shadows),
                    self.dataset if shadows is None else shadows.dataset,
                    self._batches(self.train, layout, learning=True),
                    self._batches(self.valid, layout),
                    self.config.selector,
                    self.config.training,
                    price=price,
                    folder=self.folder / name,
                    watcher=watcher,
                    grain=grain,
                )
            if shadows is not None:
                found = found.without(shadows, self.networks.start(found.network, shadows))
            self._searches[price, grain] = found
        return self._searches[price, grain]

    def referee(self, selector: str, like: Model) -> Model:
        """Retrain what a referee keeps at the size of `like`."""
        assert like.feature_set is not None
        counts = like.feature_set.counts()
        feature_set = self._refereed(selector, counts["kept"])
        name = f"{selector}-{like.name.split('-', 1)[1]}"
        return self._retrain(name, feature_set, selector=selector, ratio=counts["ratio"])

    def _refereed(self, selector: str, count: int) -> FeatureSet:
        """What a referee keeps of `count` values."""
        if selector == "field_gates":
            found = self._search(optfs.DEFAULT_PRICE, "field")
            return optfs.choose_fields(found, self.dataset, self.valid, count)
        if selector in REFEREES:
            return REFEREES[selector](self.dataset, count, self.config.seed)
        layout = self.networks.numbered
        if selector == "trial":
            return trial.choose(self._tried(), self.dataset, count)
        keep_all = KeepAll(
            self.baseline().load().to(self.device),
            self._batches(self.train, layout),
            self._batches(self.valid, layout),
            self.config.selector,
        )
        return NETWORK_REFEREES[selector](self.dataset, count, self.config.seed, keep_all)

    def _tried(self) -> trial.Contest:
        """The rankings of a trial, and the network that they are tried on; once for all sizes."""
        if self._contest is None:
            keep_all = self.baseline()
            layout, covered = self.networks.numbered, optfs.coverage(self.dataset, self.valid)
            self._contest = trial.Contest(
                trial.rankings(
                    self.dataset, self._young.all_known() or self._passes_again(keep_all), covered
                ),
                keep_all.load().to(self.device),
                self._batches(self.valid, layout),
            )
        return self._contest

    def _passes_again(self, keep_all: Model) -> Sequence[Saliency]:
        """The same of a network trained for that alone, where keep-all was not asked on the way.

        It goes the same way: from the same first weights, through the same batches.
        """
        network, folder = self.networks.fresh(), self.folder / "trial-network"
        learning = self._batches(self.train, self.networks.numbered, learning=True)
        torch.manual_seed(self.config.seed)  # dropout, as in `_fit`
        for epoch in range(1, self._young.epochs + 1):
            if self._young.known(epoch) is None:
                name, steps = f"trial-pass-{epoch}", epoch * len(learning)
                if self._numbered and keep_all.history[-1].step < steps:
                    # Where keep-all stopped is where to go on from.
                    share_checkpoints(keep_all.folder / "last", folder / "last")
                with self._stage(name, name) as watcher:
                    training = self.config.training
                    fit(network, learning, None, training, folder=folder, steps=steps, watcher=watcher)
                self._young.take(network, epoch)
        found = self._young.all_known()
        assert found is not None, "each was taken"
        return found

    def other_reading(self, model: Model) -> Model | None:
        """The set of `model` with dropped values reading unknown instead of zeros, or the other way round.

        None where that is the same, because fields keep all of their values or none.
        """
        assert model.feature_set is not None
        other: DroppedReads = "zero" if model.feature_set.dropped_reads == "unknown" else "unknown"
        feature_set = model.feature_set.reading(self.dataset, other)
        if np.array_equal(feature_set.kept, model.feature_set.kept):
            return None
        return self._retrain(
            f"{model.name}-reads-{other}",
            feature_set,
            selector=model.selector,
            ratio=model.ratio,
            penalty=model.penalty,
            start=self._starts.get(model.name),
            reading=other,
        )

    def refit(self, model: Model, parts: Sequence[Part]) -> Model:
        """Train `model` again, from the same first weights and for the steps that valid chose, on all of `parts`."""
        torch.manual_seed(self.config.seed)
        network, evaluated = self._start(model), model.load()
        name = f"{model.name}-refit"
        with self._stage(name, "refit") as watcher:
            result = fit(
                network,
                self._batches(stacked(parts), model.layout, learning=True),
                None,
                self.config.training,
                folder=self.folder / name,
                steps=model.best_step,
                rates=rates(model.history),
                watcher=watcher,
            )
        # No rows are left that it was not trained on: the calibration of the model that was evaluated stands in.
        network.slope.copy_(evaluated.slope)
        network.intercept.copy_(evaluated.intercept)
        save_checkpoint(self.folder / name / "best", {"network": network.state_dict()})
        return replace(model, folder=self.folder / name, history=result.history)

    def _retrain(
        self,
        name: str,
        feature_set: FeatureSet,
        *,
        selector: str,
        ratio: float | None = None,
        penalty: float | None = None,
        start: Network | None = None,
        search_history: tuple[Look, ...] = (),
        reading: DroppedReads | None = None,
    ) -> Model:
        reading = reading or self.config.selector.dropped_reads
        if feature_set.dropped_reads != reading:
            feature_set = feature_set.reading(self.dataset, reading)
        if start is not None:
            self._starts[name] = start
        layout = self.networks.layout(feature_set)
        architecture, crosses = compact_architecture(self.networks.architecture, layout), None
        if feature_set.interactions is not None:
            memorized = feature_set.pairs("memorize")
            space = self._space(layout, memorized, final=True)  # no others have crosses to count
            crosses = space.keys(memorized)
            architecture = replace(
                architecture, pairs=space.layout(memorized, feature_set.pairs("factorize"))
            )
        model = Model(
            selector,
            architecture,
            layout,
            self.folder / name,
            0,
            [],
            0,
            feature_set,
            ratio,
            penalty,
            search_history,
            crosses,
            dtype=self.config.export.dtype,
        )
        self._tell_index(name, model)
        network = self._start(model)
        stage = "retrain" if selector == self.config.selector.kind and "-reads-" not in name else name
        result = self._fit(name, stage, network, layout)
        return replace(
            model, parameters=sizes(network).parameters, history=result.history, best_step=result.best_step
        )

    def _tell_index(self, name: str, model: Model) -> None:
        """Say it where finding crosses takes more memory than the budget of their table."""
        found, budget = model.cross_index_bytes, self.config.selector.cross_budget
        if found and budget is not None and found > budget:
            self._console.print(
                f"  {name}: crosses are found by {shown_bytes(found)} beside the {shown_bytes(budget)} of their table; "
                "selector.sketch_bytes, or a larger min_count, makes that less",
                highlight=False,
                soft_wrap=True,
            )

    def _start(self, model: Model) -> Network:
        """The network that the training of `model` begins with."""
        if model.feature_set is None:
            return self.networks.fresh()
        if model.crosses is not None:
            return self.networks.paired(model.layout, model.architecture, model.crosses)
        return self.networks.compact(model.feature_set, model.layout, self._starts.get(model.name))

    def _fit(
        self, name: str, stage: str, network: Network, layout: Layout, watchers: Sequence[Watcher] = ()
    ) -> Result:
        torch.manual_seed(self.config.seed)  # dropout: the same stream whether or not a search ran before
        with self._stage(name, stage, watchers) as watcher:
            train = self._batches(self.train, layout, learning=True)
            valid = self._batches(self.valid, layout)
            result = fit(
                network, train, valid, self.config.training, folder=self.folder / name, watcher=watcher
            )
        if self.dataset.schema.keep_rate < 1.0:
            # Undoing the sampling multiplies odds: what is wrong with them must be put right before.
            calibrate(network, valid)
            save_checkpoint(self.folder / name / "best", {"network": network.state_dict()})
        return result

    def _batches(self, part: Part, layout: Layout, learning: bool = False) -> Batches:
        if learning:
            training = self.config.training
            return Batches(part, layout, training.batch_size, self.config.seed, training.order)
        return Batches(part, layout, _EVALUATION_ROWS)

    @contextmanager
    def _stage(self, name: str, stage: str, watchers: Sequence[Watcher] = ()) -> Iterator[Watcher]:
        # A second size must not write into the nested run of the first: it is called after its model.
        stage = name if stage in self._stages else stage
        self._stages.add(stage)
        with self._job.stage(stage) as run, stage_progress(self._console, name) as bar:
            yield _Watchers([self._guard, bar, _MetricsByStep(run), *watchers])
