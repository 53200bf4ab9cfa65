"""OptInter: how each pair of fields is modelled - memorized, factorized, or not at all.

Lyu et al., "Memorize, Factorize, or be Naive: Learning Optimal Feature Interaction Methods for CTR Prediction", ICDE
2022 (arXiv 2108.01265). `search_rows = "train"` is the published search: weights and choices in one backward pass,
tempered softmax, arg-max. `search_rows = "held_out"` judges pairs by rows that the weights never see
(`ctr.selection.pair_evidence`), in rounds: pairs that save nothing leave, and the rest is searched again from fresh
weights, on other rows. Either way the network that is retrained holds only what the chosen methods need.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches, shuffled
from ctr.dataset.crosses import CrossKeys
from ctr.dataset.feature_set import METHODS
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.pairs import PairNames, chosen_pairs
from ctr.dataset.stacked import subset
from ctr.dataset.store import Part
from ctr.errors import ConfigError
from ctr.network.crosses import PairLayout
from ctr.network.network import Network
from ctr.selection.pair_choice import ChoiceTraining, choice_of
from ctr.selection.pair_evidence import DrawnPaths, pair_evidence
from ctr.selection.pair_space import FLOAT32, LimitError, PairSpace, too_small
from ctr.training.fit import fit
from ctr.training.looks import Companion, Look, Watcher

CANDIDATES = ("search", "memorize", "factorize", "naive")  # of which choice = "best" takes one
ROUNDS = 3
HELD_OUT = 4  # every fourth row of train judges
THRESHOLD = (
    2.5  # nats on held-out rows that any pair must save: z = 2.2, about one empty pair in eighty gets past it
)
CROWDED = 1600  # floats of all pair vectors together, past which a search has narrower ones
Floats = npt.NDArray[np.float64]
Fresh = Callable[[PairLayout, CrossKeys], Network]


@dataclass(frozen=True)
class PairSearch:
    """What a search comes to. gains: (P, 3) of each method; the largest is the best one."""

    gains: Floats
    history: list[Look]


def search(
    fresh: Fresh,
    space: PairSpace,
    train: Batches,
    valid: Batches,
    settings: SelectorConfig,
    training: Training,
    *,
    folder: Path,
    seed: int,
    least_dim: int = 2,
    watcher: Watcher | None = None,
) -> PairSearch:
    """Find out what each way to model each pair is worth.

    Args:
        fresh: builds a network with fresh weights that models pairs.
        space: the pairs.
        folder: for checkpoints; an interrupted search goes on from there.
        least_dim: what the width of a pair's vector is a multiple of, where a search narrows it.
    """
    if settings.search_rows == "train":
        network = fresh(_both(space, space.pairs, space.dim), space.keys(space.pairs))
        companion = ChoiceTraining(
            network,
            learning_rate=settings.pair_learning_rate,
            final_temperature=settings.pair_temperature,
            prices=_prices(space, settings.price_of_a_cross / len(train.part)),
        )
        history = _fitted(network, train, valid, settings, training, folder, companion, watcher)
        return PairSearch(choice_of(network).logits.detach().cpu().double().numpy(), history)
    pairs, looks = list(space.pairs), list[Look]()
    gains = np.zeros((len(pairs), 3))
    for number in range(ROUNDS):
        learned, judging = _apart(train.part, seed, number)
        dim = searched_dim(len(pairs), space.dim, least_dim)
        network = fresh(_both(space, pairs, dim), space.keys(pairs))
        batches = Batches(learned, train.layout, train.batch_size, train.seed)
        own = folder / f"round-{number + 1}"
        paths = DrawnPaths(network, seed, naive=dim < space.dim)
        looks += _fitted(network, batches, valid, settings, training, own, paths, watcher)
        evidence = pair_evidence(network, Batches(judging, train.layout, valid.batch_size)).numpy()
        found = _gains(evidence, space, pairs, settings.price_of_a_cross / HELD_OUT)
        gains[[space.pairs.index(pair) for pair in pairs]] = found
        left = [
            pair for pair, method in zip(pairs, _best(found), strict=True) if method != METHODS.index("naive")
        ]
        if not left or len(left) == len(pairs):
            break
        pairs = left
    return PairSearch(gains, looks)


def _best(gains: Floats) -> npt.NDArray[np.int64]:
    """(P,) column of the largest gain (P, M); of equals the last one, since methods stand from the dearest on."""
    found: npt.NDArray[np.int64] = gains.shape[1] - 1 - gains[:, ::-1].argmax(1)
    return found


def _prices(space: PairSpace, price: float) -> torch.Tensor | None:
    """(P,) of memorizing each pair; None where crosses cost nothing."""
    return torch.tensor([price * space.rows(pair) for pair in space.pairs]) if price else None


def _gains(evidence: Floats, space: PairSpace, pairs: Sequence[PairNames], price: float) -> Floats:
    """(P, 3) nats on the rows that judge, less the price of crosses; to be naive saves what any pair must."""
    rows = np.array([space.rows(pair) for pair in pairs])
    return np.stack([evidence[:, 0] - price * rows, evidence[:, 1], np.full(len(pairs), THRESHOLD)], 1)


def _both(space: PairSpace, pairs: Sequence[PairNames], dim: int) -> PairLayout:
    return replace(space.layout(pairs, pairs, dim), searched=True)


def searched_dim(pairs: int, dim: int, least: int) -> int:
    """Width of the vectors of so many pairs in a round of a search: narrower where many pairs crowd the MLP's input.

    The first layer of the MLP is most of what a step costs. That a pair is worth something shows in two floats as
    well; in a later round, with fewer pairs, they have their usual width again.
    """
    return min(dim, max(least, CROWDED // pairs // least * least))


def _apart(part: Part, seed: int, number: int) -> tuple[Part, Part]:
    """The rows that weights learn from, and those that judge: another quarter in each round."""
    rows = np.arange(len(part))
    judging = shuffled(rows, len(part), seed, epoch=1_000) % HELD_OUT == number
    return subset(part, np.flatnonzero(~judging)), subset(part, np.flatnonzero(judging))


def _fitted(
    network: Network,
    train: Batches,
    valid: Batches,
    settings: SelectorConfig,
    training: Training,
    folder: Path,
    companion: Companion,
    watcher: Watcher | None,
) -> list[Look]:
    return fit(
        network,
        train,
        valid,
        training,
        folder=folder,
        epochs=settings.epochs,
        companion=companion,
        watcher=watcher,
    ).history


def stated_pairs(specs: Sequence[FieldSpec], settings: SelectorConfig) -> list[PairNames]:
    """The pairs that a configuration means, before anything is read.

    Raises:
        ConfigError: see `chosen_pairs`; or there are fewer pairs than `random_counts` says.
        LimitError: the budget of crosses does not hold what is memorized at once.
    """
    pairs, counts = chosen_pairs(specs, settings.pairs), settings.random_counts or (0, 0)
    if sum(counts) > len(pairs):
        raise ConfigError(f"selector.random_counts: {list(counts)} of {len(pairs)} pairs")
    at_once = {"memorize": len(pairs), "random": counts[0], "factorize": 0, "naive": 0}
    searched = min(len(pairs), settings.screened_pairs or len(pairs))
    number, budget = at_once.get(settings.choice, searched), settings.cross_budget
    small = budget is not None and budget // (settings.pair_dim * FLOAT32) < number + 1
    # Where values are dropped first, fields go, and pairs with them.
    if settings.kind == "optinter" and number and small:
        raise LimitError(too_small(budget or 0, settings.pair_dim, number))
    return pairs


def one_for_all(space: PairSpace, method: str) -> Floats:
    """(P, 3) gains that choose one method for every pair."""
    gains = np.zeros((len(space.pairs), 3))
    gains[:, METHODS.index(method)] = 1.0
    return gains


def drawn(space: PairSpace, counts: Sequence[int], seed: int) -> Floats:
    """(P, 3) gains that choose, at random, so many pairs to memorize and so many to factorize.

    Raises:
        ConfigError: dropped fields have left fewer pairs.
    """
    pairs = len(space.pairs)
    if sum(counts) > pairs:
        raise ConfigError(f"selector.random_counts: {list(counts)} of the {pairs} pairs that are left")
    methods = np.full(pairs, METHODS.index("naive"))
    methods[: counts[0]] = METHODS.index("memorize")
    methods[counts[0] : sum(counts)] = METHODS.index("factorize")
    gains: Floats = np.eye(3)[np.random.default_rng(seed).permutation(methods)]
    return gains


def choose(gains: Floats, space: PairSpace, settings: SelectorConfig) -> pl.DataFrame:
    """The best method of each pair, within the limits of the configuration.

    Where limits do not hold all pairs that would be memorized, those that gain most for a byte come first; the others
    get their second best method.

    Returns:
        field_a, field_b, method, memorize, factorize, naive (weights, which add up to 1) and strength: by how much the
        better of memorizing and factorizing exceeds to be naive, in the unit of the search (nats on held-out rows, or
        logits).

    Raises:
        LimitError: methods were stated, and what they memorize exceeds `cross_bytes`, `max_cross_bytes` or
            `max_memorized`.
    """
    methods = _best(gains)
    memorized = methods == 0
    if settings.choice in ("memorize", "random"):
        _require(space, np.flatnonzero(memorized), settings)
    else:
        allowed = np.zeros(len(gains), np.bool_)
        allowed[_within(gains, space, settings, np.flatnonzero(memorized))] = True
        methods = np.where(memorized & ~allowed, 1 + _best(gains[:, 1:]), methods)
    shifted = np.exp(gains - gains.max(1, keepdims=True))
    weights = shifted / shifted.sum(1, keepdims=True)
    names = {"field_a": [a for a, _ in space.pairs], "field_b": [b for _, b in space.pairs]}
    return pl.DataFrame(
        {
            **names,
            "method": [METHODS[method] for method in methods],
            **{name: weights[:, number] for number, name in enumerate(METHODS)},
            "strength": gains[:, :2].max(1) - gains[:, 2],
        }
    )


def _within(
    gains: Floats, space: PairSpace, settings: SelectorConfig, candidates: npt.NDArray[np.int64]
) -> list[int]:
    """The pairs that may be memorized, those that gain most for a byte first."""
    lead = gains[:, 0] - gains[:, 1:].max(1)
    order = sorted(candidates.tolist(), key=lambda pair: -lead[pair] / space.rows(space.pairs[pair]))
    limit = settings.max_cross_bytes
    assert limit is None or isinstance(limit, int)
    found: list[int] = []
    for pair in order:
        more = [*found, pair]
        names = [space.pairs[number] for number in more]
        fits = space.holds(names) and (limit is None or space.bytes(names) <= limit)
        if fits and (settings.max_memorized is None or len(more) <= settings.max_memorized):
            found = more
    return found


def _require(space: PairSpace, memorized: npt.NDArray[np.int64], settings: SelectorConfig) -> None:
    limit = settings.max_cross_bytes
    assert limit is None or isinstance(limit, int)
    space.require([space.pairs[number] for number in memorized])
    if settings.max_memorized is not None and len(memorized) > settings.max_memorized:
        raise LimitError(f"it memorizes {len(memorized)} pairs, expected at most {settings.max_memorized}")
    if limit is None:
        return  # nothing need be counted
    needed = space.bytes([space.pairs[number] for number in memorized])
    if needed > limit:
        raise LimitError(
            f"selector.max_cross_bytes = {limit:,} does not hold the {len(memorized)} pairs that "
            f'choice = "{settings.choice}" memorizes: state {needed:,} or more, other pairs, or a cross_bytes that is '
            "no larger, a budget that crosses share"
        )


def shown(settings: SelectorConfig) -> dict[str, object]:
    """What a feature set says of how its interactions were chosen."""
    return {
        "choice": settings.choice,
        "search_rows": settings.search_rows,
        "cross_price": settings.price_of_a_cross,
        "screened_pairs": settings.screened_pairs,
    }
