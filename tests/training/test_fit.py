"""The training loop: resumable to the bit, stops when it should, keeps the best weights, and learns."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.errors import CtrError
from ctr.evaluation.metrics import Metrics
from ctr.network.backbones import BACKBONES
from ctr.network.gates import SoftGate
from ctr.training import fit as loop
from ctr.training import looks
from ctr.training.checkpoint import load_checkpoint, save_checkpoint
from ctr.training.feeding import to_inputs
from ctr.training.fit import fit
from ctr.training.looks import look_points, look_rows, rates
from ctr.training.optimizers import Optimizers
from ctr.training.predict import predict


class StopError(Exception):
    pass


class Stopper:
    """Raises after `epochs` epochs, or at the `steps`-th look at the loss."""

    def __init__(self, epochs: int = 10**9, steps: int = 10**9) -> None:
        self.epochs, self.steps = epochs, steps

    def step(self, epoch, batch, batches, rows, loss) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise StopError

    def look(self, record) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            raise StopError


class Gates:
    """A small companion: it closes gates by what it has seen so far, so that losing its memory shows."""

    def __init__(self, network) -> None:
        network.gate = SoftGate(len(network.table.weight))
        self.network, self.seen, self.calls = network, torch.zeros(len(network.table.weight)), []
        self.progress: list[float] = []

    def before_step(self, inputs, labels, weights, progress: float) -> None:
        self.progress.append(progress)
        self.seen[inputs.ids.flatten()] += labels.mean()
        self.network.gate.temperature.fill_(1 + progress)

    def after_backward(self) -> None:
        assert self.network.table.weight.grad is not None
        self.network.gate.logits[:, 0] = 0.5 - self.seen / 100

    def before_look(self) -> dict[str, float]:
        self.calls.append(len(self.progress))
        return {"open": float((self.network.gate.logits > 0).float().mean())}

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state) -> None:
        self.seen = state["seen"]


TIMES = ("seconds", "rows_per_second")


def numbers(history) -> list[dict]:
    return [{key: value for key, value in asdict(record).items() if key not in TIMES} for record in history]


def weights(network) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(left, right) -> None:
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def train(tmp_path, fresh, batches, settings):
    """Trains in a folder of the test and returns result and network."""

    def run(folder="run", *, network=None, companion=False, watcher=None, data=None, gates=None, **keys):
        build = {key: keys.pop(key) for key in ("backbone", "dropout", "norm", "seed") if key in keys}
        network = network or fresh(**build)
        beside = gates or (Gates(network) if companion else None)
        result = fit(
            network,
            *(data or batches()),
            settings(**keys),
            folder=tmp_path / folder,
            companion=beside,
            watcher=watcher,
        )
        return result, network

    return run


VARIANTS = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "batch norm": {"norm": "batch"},
    "decay and plateau": {"weight_decay": 0.5, "network_weight_decay": 1e-3, "plateau": 0.5},
    "companion": {"companion": True, "dropout": 0.2},
    "no dense weights": {"backbone": "fm", "weight_decay": 0.1},
    "bfloat16": {"precision": "bf16"},
}


@pytest.mark.parametrize("stop", [{"epochs": 1}, {"epochs": 3}, {"steps": 1}, {"steps": 4}, {"steps": 8}])
@pytest.mark.parametrize("variant", VARIANTS)
def test_interrupted_and_resumed_is_uninterrupted(train, monkeypatch, variant, stop):
    monkeypatch.setattr(loop, "_LOSS_CHECK", 3)  # three looks at the loss in an epoch of seven batches
    keys = VARIANTS[variant]
    straight, expected = train("straight", **keys)
    with pytest.raises(StopError):
        train("resumed", watcher=Stopper(**stop), **keys)
    resumed, found = train("resumed", **keys)
    assert_same(weights(found), weights(expected))
    assert numbers(resumed.history) == numbers(straight.history)
    assert (resumed.best_epoch, resumed.steps) == (straight.best_epoch, straight.steps)


def test_interrupted_again_and_again_is_uninterrupted(train):
    straight, expected = train("straight", dropout=0.3)
    for _ in range(3):
        with pytest.raises(StopError):
            train("resumed", watcher=Stopper(epochs=1), dropout=0.3)
    resumed, found = train("resumed", dropout=0.3)
    assert_same(weights(found), weights(expected))
    assert numbers(resumed.history) == numbers(straight.history)


def test_large_weights_of_the_best_look_wait_on_disk_and_are_the_same(train, monkeypatch):
    keys = {"dropout": 0.3, "eval_every": 2}
    straight, expected = train("straight", **keys)
    copies, clone = [], torch.Tensor.clone
    monkeypatch.setattr(loop, "BEST_IN_MEMORY", 100)
    monkeypatch.setattr(torch.Tensor, "clone", lambda own, **how: copies.append(own) or clone(own, **how))
    with pytest.raises(StopError):
        train("resumed", watcher=Stopper(epochs=6), **keys)  # inside the second epoch, past its best look
    resumed, found = train("resumed", **keys)
    assert not any(copy.shape == found.table.weight.shape for copy in copies)
    assert_same(weights(found), weights(expected))
    assert numbers(resumed.history) == numbers(straight.history)


def test_a_crash_between_best_and_last_checkpoint_is_made_good(train, monkeypatch):
    straight, expected = train("straight", dropout=0.3)
    saves = []

    def crash_after_the_third(folder, state):
        save_checkpoint(folder, state)
        saves.append(folder.name)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_checkpoint", crash_after_the_third)
        with pytest.raises(KeyboardInterrupt):
            train("resumed", dropout=0.3)
    assert saves == ["best", "last", "best"]
    resumed, found = train("resumed", dropout=0.3)
    assert_same(weights(found), weights(expected))
    assert numbers(resumed.history) == numbers(straight.history)


def test_a_finished_training_is_not_repeated(train):
    first, network = train()
    again, restored = train(watcher=Stopper(epochs=1, steps=1))
    assert again == first
    assert_same(weights(restored), weights(network))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(train, batches):
    _, first = train("first", dropout=0.3)
    _, second = train("second", dropout=0.3)
    assert_same(weights(first), weights(second))
    _, other = train("other", dropout=0.3, seed=1)
    assert not torch.equal(first.table.weight, other.table.weight)
    _, shuffled = train("shuffled", dropout=0.3, data=batches(seed=4))
    assert not torch.equal(first.table.weight, shuffled.table.weight)


def test_products_in_bfloat16_train_float32_weights_to_about_the_same(train):
    exact, reference = train("exact")
    rough, network = train("rough", precision="bf16")
    assert all(
        tensor.dtype == torch.float32 for tensor in weights(network).values() if tensor.is_floating_point()
    )
    assert not torch.equal(network.table.weight, reference.table.weight)
    for one, other in zip(exact.history, rough.history, strict=False):
        assert one.train_logloss == pytest.approx(other.train_logloss, abs=0.01)
        assert one.valid_auc == pytest.approx(other.valid_auc, abs=0.02)


def test_a_network_handed_over_in_evaluation_mode_is_trained_all_the_same(train, fresh):
    _, expected = train("first", dropout=0.3)
    _, found = train("second", network=fresh(dropout=0.3).eval())
    assert_same(weights(found), weights(expected))


def test_every_epoch_has_an_order_of_its_own(train, batches, monkeypatch):
    train_batches, valid = batches()
    asked, original = [], train_batches.epoch
    monkeypatch.setattr(
        train_batches, "epoch", lambda number, start: asked.append(number) or original(number, start)
    )
    train(data=(train_batches, valid), epochs=3)
    assert asked == [0, 1, 2]


def test_rows_that_no_batch_reads_have_decayed_when_an_epoch_ends(train, fresh):
    network = fresh("fm")
    before = weights(network)["table.weight"]
    train(network=network, epochs=1, learning_rate=0.1, weight_decay=0.5)
    unread = [17, 18]  # unknown and missing of "x"
    torch.testing.assert_close(network.table.weight[unread], before[unread] * 0.95**7)


def test_every_step_sees_what_a_decay_of_all_rows_in_every_step_would_have_left(
    train, fresh, batches, monkeypatch
):
    lazy, dense = fresh(), fresh()
    # Batches of four rows of fields with eight values; the rate falls while rows owe decay of the old one.
    own = {"data": batches(rows=400, batch_size=4), "epochs": 3, "weight_decay": 3.0, "plateau": 0.5}
    scripted(monkeypatch, [0.6, 0.5, 0.7] * 2)
    train("lazy", network=lazy, **own)
    step = Optimizers.step
    monkeypatch.setattr(Optimizers, "step", lambda moving: (step(moving), moving.settle()))
    train("dense", network=dense, **own)
    torch.testing.assert_close(weights(lazy), weights(dense), rtol=1e-4, atol=1e-6)


def test_rows_decay_at_the_rate_of_the_steps_that_they_missed(fresh):
    network = fresh("fm")
    optimizers = Optimizers(network, 0.1, 0.5, 0.0)
    before = weights(network)["table.weight"]
    for rate in (0.1, 0.1, 0.01):
        optimizers.learning_rate = rate
        network.table(torch.tensor([1])).sum().backward()
        optimizers.step()
    found = weights(network)["table.weight"][2:]  # whoever asks for the weights gets them without debts
    torch.testing.assert_close(found, before[2:] * (0.95**2 * 0.995))


def test_after_training_nobody_listens_to_the_tables(train, fresh):
    network = fresh()
    train(network=network, weight_decay=0.5)
    assert not network.table.asked._forward_hooks
    assert not network._state_dict_pre_hooks


class Weights:
    """Keeps the weights after each epoch."""

    def __init__(self, network) -> None:
        self.network, self.kept = network, []

    def step(self, *arguments) -> None:
        pass

    def look(self, record) -> None:
        self.kept.append(weights(self.network))


def scripted(monkeypatch, aucs: list[float]) -> None:
    """Lets valid AUC be what the script says, epoch by epoch."""
    left = iter(aucs)
    monkeypatch.setattr(loop, "measure", lambda *_: Metrics(next(left), 0.5, 0.0, 1.0, 1, 1))


@pytest.mark.parametrize("every", [1, 2, 3, 6])
@pytest.mark.parametrize("variant", ["dropout", "batch norm", "decay and plateau", "companion"])
def test_interrupted_inside_an_epoch_and_resumed_is_uninterrupted(train, monkeypatch, variant, every):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    keys = {**VARIANTS[variant], "eval_every": every}
    straight, expected = train("straight", **keys)
    for count in (1, 2, 3):  # further and further inside of epochs
        with pytest.raises(StopError):
            train("resumed", watcher=Stopper(epochs=count), **keys)
    resumed, found = train("resumed", **keys)
    assert_same(weights(found), weights(expected))
    assert numbers(resumed.history) == numbers(straight.history)
    assert (resumed.best_step, resumed.steps) == (straight.best_step, straight.steps)


def test_inside_an_epoch_a_checkpoint_is_saved_only_after_a_while(train, monkeypatch):
    saves, clock = [], [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "save_checkpoint", lambda folder, state: saves.append((folder.name, state)))
    monkeypatch.setattr(loop, "load_checkpoint", lambda folder, device: None)

    class Hand:
        def step(self, *arguments) -> None:
            pass

        def look(self, record) -> None:
            clock[0] += 25.0

    with pytest.raises(CtrError, match="is missing"):
        train(watcher=Hand(), epochs=2, eval_every=1)
    # Every look takes 25 seconds: after 75 there is a checkpoint, and one at the end of each epoch of seven batches.
    assert [state["progress"][0] for name, state in saves if name == "last"] == [4, 7, 10, 13, 14]


def test_checkpoints_inside_an_epoch_are_as_rare_as_they_are_slow(train, batches, monkeypatch):
    saved, clock = [], [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(loop, "load_checkpoint", lambda folder, device: None)

    def slow(folder, state) -> None:
        if folder.name == "last":
            saved.append(state["progress"][0])
            clock[0] += 6.0

    class Hand:
        def step(self, *arguments) -> None:
            pass

        def look(self, record) -> None:
            clock[0] += 25.0

    monkeypatch.setattr(loop, "save_checkpoint", slow)
    with pytest.raises(CtrError, match="is missing"):
        train(watcher=Hand(), epochs=1, eval_every=1, data=batches(batch_size=16))
    # Every look takes 25 seconds. After 75 comes a first checkpoint, which takes 6; the next one, which 60 seconds
    # would allow after 3 more looks, only 200 seconds later; the last one at the end of the 25 batches.
    assert saved == [4, 13, 22, 25]


def test_valid_is_looked_at_ten_times_an_epoch_and_after_its_last_batch():
    assert look_points(100, None) == list(range(10, 101, 10))
    assert look_points(7, None) == [1, 2, 3, 4, 5, 6, 7]
    assert look_points(14, None) == [2, 3, 5, 6, 7, 9, 10, 12, 13, 14]
    assert look_points(1, None) == [1]
    assert look_points(7, 3) == [3, 6, 7]
    assert look_points(7, 9) == [7]


def test_an_epoch_has_ten_looks_by_default(train, batches):
    result, _ = train(data=batches(rows=1280), epochs=2, eval_every=None)
    assert [look.step for look in result.history] == list(range(2, 41, 2))
    assert [look.epoch for look in result.history] == [1] * 10 + [2] * 10
    assert [look.passes for look in result.history] == [number / 10 for number in range(1, 21)]
    assert [look.ends_epoch for look in result.history] == ([False] * 9 + [True]) * 2


def test_seconds_add_up_to_the_whole_training_and_speed_is_that_of_training_alone(train, monkeypatch):
    clock, judged, saved = [0.0], loop.predict, []
    monkeypatch.setattr(loop.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(loop.time, "monotonic", lambda: 0.0)
    step = loop.Optimizers.step

    def taking(seconds, call):
        def slow(*arguments):
            clock[0] += seconds
            return call(*arguments)

        return slow

    def save(folder, state):
        saved.append(folder.name)
        clock[0] += 100.0
        save_checkpoint(folder, state)

    monkeypatch.setattr(loop.Optimizers, "step", taking(1.0, step))
    monkeypatch.setattr(loop, "predict", taking(10.0, judged))
    monkeypatch.setattr(loop, "save_checkpoint", save)
    scripted(monkeypatch, [0.6, 0.5, 0.5, 0.5, 0.5, 0.5])
    result, _ = train(epochs=2, eval_every=3)  # looks after 3, 6 and 7 batches of 64 rows; the last has 16
    assert saved == ["best", "last", "last"]
    assert [look.seconds for look in result.history] == [13.0, 13.0, 11.0, 213.0, 13.0, 11.0]
    assert [look.rows_per_second for look in result.history] == [64.0, 64.0, 16.0] * 2


def test_patience_below_one_stops_inside_an_epoch(train, fresh, batches, monkeypatch):
    scripted(monkeypatch, [0.5, 0.6, 0.7, 0.6, 0.65, 0.6, 0.9])
    network = fresh()
    watcher = Weights(network)
    keys = {"epochs": 3, "eval_every": None, "patience": 0.3}
    result, _ = train(network=network, watcher=watcher, data=batches(rows=1280), **keys)
    assert [look.step for look in result.history] == [2, 4, 6, 8, 10, 12]
    assert (result.best_step, result.best_epoch, result.steps) == (6, 1, 12)
    assert_same(weights(network), watcher.kept[2])
    again, restored = train(data=batches(rows=1280), **keys)
    assert again == result
    assert_same(weights(restored), watcher.kept[2])


def test_the_learning_rate_drops_only_where_an_epoch_ends_without_a_better_look(train, batches, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.45, 0.6, 0.55, 0.5, 0.5, 0.5])
    result, _ = train(data=batches(rows=256), epochs=4, eval_every=2, learning_rate=0.016, plateau=0.5)
    # Two looks an epoch; the third epoch (.55, .5) is the first without a better one.
    assert [look.learning_rate for look in result.history] == [0.016] * 6 + [0.008] * 2


def test_looks_read_a_sample_of_a_large_valid_and_always_the_same(batches, monkeypatch):
    _, valid = batches()
    monkeypatch.setattr(looks, "_FEWEST_ROWS", 50)
    assert look_rows(valid, 12_500, 10) is valid
    some = look_rows(valid, 2500, 10)
    assert len(some.part) == 60  # a quarter of the train rows, nearly, over ten looks
    assert len(look_rows(valid, 5000, 10, fast=True).part) == 60
    assert len(look_rows(valid, 100, 10).part) == 50
    np.testing.assert_array_equal(some.part.rows, look_rows(valid, 2500, 10).part.rows)
    assert len(set(some.part.rows.tolist())) == 60
    rare = replace(
        valid.part, labels=np.where(np.isin(valid.part.rows, some.part.rows), 0, valid.part.labels)
    )
    unclicked = loop.Batches(rare, valid.layout, 128)
    assert look_rows(unclicked, 2500, 10) is unclicked  # a sample without a click tells nothing
    unweighted = (1 - some.part.labels).astype(np.float32)
    light = np.ones(300, np.float32)
    light[some.part.rows] = unweighted
    weightless = loop.Batches(replace(valid.part, weights=light), valid.layout, 128)
    assert look_rows(weightless, 2500, 10) is weightless
    whole = valid.layout.gather(valid.part, some.part.rows)
    part = next(loop.Batches(some.part, some.layout, 60).epoch())
    for name in ("ids", "values", "list_ids", "list_slots", "list_lengths", "labels"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(part, name))


def weighted(batches, factors):
    """The batches of train with the given weights of rows."""
    train_batches, valid = batches(rows=len(factors))
    part = replace(train_batches.part, weights=np.asarray(factors, np.float32))
    return loop.Batches(part, train_batches.layout, 64, 3), valid


def test_weights_of_one_train_exactly_as_none(train, batches):
    _, plain = train("plain", data=batches(rows=200))
    _, ones = train("ones", data=weighted(batches, np.ones(200)))
    assert_same(weights(plain), weights(ones))


def test_a_row_of_weight_zero_teaches_nothing(train, batches, fresh):
    factors = np.where(np.arange(200) % 2, 1.0, 0.0)
    data = weighted(batches, factors)
    flipped = replace(
        data[0].part, labels=np.where(factors > 0, data[0].part.labels, 1 - data[0].part.labels)
    )
    other = loop.Batches(flipped, data[0].layout, 64, 3), data[1]
    first, left = train("first", data=data)
    second, right = train("second", data=other)
    assert_same(weights(left), weights(right))
    assert numbers(first.history) == numbers(second.history)


def test_the_mean_loss_is_weighted(train, batches, fresh):
    network, factors = fresh(), np.arange(65) / 32.0
    data = weighted(batches, factors)
    result, _ = train(network=network, data=data, epochs=1, learning_rate=1e-30)
    chances = predict(network, loop.Batches(data[0].part, data[0].layout, 10))
    labels = data[0].part.labels
    expected = -np.average(np.log(np.where(labels == 1, chances, 1 - chances)), weights=factors)
    assert result.history[0].train_logloss == pytest.approx(expected, rel=1e-6)


def test_predictions_and_looks_are_those_of_the_unsampled_world(fresh, batches, train):
    train_batches, valid = batches()
    sampled = loop.Batches(replace(valid.part, keep_rate=0.1), valid.layout, 128)
    network = fresh()
    q, p = predict(network, valid), predict(network, sampled)
    np.testing.assert_allclose(p, q / (q + (1 - q) / 0.1), rtol=1e-12)
    plain, _ = train("plain", data=(train_batches, valid), epochs=1)
    shifted, _ = train("shifted", data=(train_batches, sampled), epochs=1)
    assert shifted.history[0].valid_auc == pytest.approx(plain.history[0].valid_auc, abs=1e-12)
    assert shifted.history[0].valid_logloss < plain.history[0].valid_logloss


# Refits


def test_a_refit_runs_exactly_its_steps_and_keeps_the_last_weights(train, fresh, batches, tmp_path, settings):
    _, expected = train("watched", epochs=2)  # 14 steps; the last look is the best where valid says so
    network, (train_batches, _) = fresh(), batches()
    result = fit(network, train_batches, None, settings(), folder=tmp_path / "refit", steps=10)
    assert (result.steps, result.best_step, result.best_epoch) == (10, 10, 2)
    assert [look.valid_auc for look in result.history] == [None, None]
    assert "valid_auc" not in result.history[0].flat()
    half = fresh()
    fit(half, train_batches, None, settings(), folder=tmp_path / "again", steps=10)
    assert_same(weights(half), weights(network))
    assert not torch.equal(network.table.weight, expected.table.weight)
    assert_same(weights(network), load_checkpoint(tmp_path / "refit" / "best")["network"])


def test_a_refit_on_the_same_rows_is_the_training_again(
    train, fresh, batches, tmp_path, settings, monkeypatch
):
    scripted(monkeypatch, [0.5, 0.4, 0.6, 0.5, 0.5, 0.7])
    keys = {"plateau": 0.5, "learning_rate": 0.016, "epochs": 6, "weight_decay": 0.1}
    result, expected = train("first", **keys)
    assert rates(result.history) == [(0, 0.016), (14, 0.008), (28, 0.004), (35, 0.002)]
    network, (train_batches, _) = fresh(), batches()
    again = fit(
        network,
        train_batches,
        None,
        settings(**keys),
        folder=tmp_path / "refit",
        steps=result.best_step,
        rates=rates(result.history),
    )
    assert again.steps == result.best_step == 42
    assert_same(weights(network), weights(expected))


def test_an_interrupted_refit_goes_on(fresh, batches, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    data, keys = batches()[0], {"steps": 12, "rates": [(0, 0.02), (5, 0.001)]}
    straight = fresh(dropout=0.3)
    fit(straight, data, None, settings(eval_every=2), folder=tmp_path / "a", **keys)
    for count in (1, 2):
        stopper, half = Stopper(epochs=count), fresh(dropout=0.3)
        with pytest.raises(StopError):
            fit(half, data, None, settings(eval_every=2), folder=tmp_path / "b", watcher=stopper, **keys)
    found = fresh(dropout=0.3)
    fit(found, data, None, settings(eval_every=2), folder=tmp_path / "b", **keys)
    assert_same(weights(found), weights(straight))


@pytest.mark.parametrize(
    ("aucs", "patience", "epochs", "best"),
    [
        ([0.5, 0.6, 0.7, 0.8, 0.9], 1, 5, 5),
        ([0.5, 0.6, 0.55, 0.9], 1, 3, 2),
        ([0.5, 0.6, 0.55, 0.58, 0.9], 2, 4, 2),
        ([0.5, 0.6, 0.55, 0.61, 0.6, 0.6], 2, 6, 4),  # an improvement wins patience back
        ([0.5, 0.5, 0.5, 0.9], 2, 3, 1),  # equal is no improvement
    ],
)
def test_training_stops_when_patience_is_lost(train, fresh, monkeypatch, aucs, patience, epochs, best):
    scripted(monkeypatch, aucs)
    network = fresh()
    watcher = Weights(network)
    result, _ = train(network=network, watcher=watcher, patience=patience, epochs=len(aucs))
    assert len(result.history) == epochs
    assert result.best_epoch == best
    assert_same(weights(network), watcher.kept[best - 1])
    assert result.steps == epochs * 7


def test_resuming_after_patience_was_lost_stops_at_once(train, monkeypatch):
    scripted(monkeypatch, [0.5, 0.6, 0.55, 0.58])
    first, _ = train(patience=2, epochs=9)
    again, _ = train(patience=2, epochs=9)
    assert numbers(again.history) == numbers(first.history)


def test_the_learning_rate_drops_after_each_epoch_that_is_no_better(train, monkeypatch):
    scripted(monkeypatch, [0.5, 0.4, 0.6, 0.55, 0.5, 0.7])
    result, _ = train(epochs=6, plateau=0.5, learning_rate=0.016)
    rates = [record.learning_rate for record in result.history]
    assert rates == [0.016, 0.016, 0.008, 0.008, 0.004, 0.002]


def test_a_dropped_learning_rate_holds_for_tables_and_dense_weights(train, fresh, monkeypatch):
    scripted(monkeypatch, [0.9, 0.4, 0.4])
    network = fresh()
    watcher = Weights(network)
    train(network=network, watcher=watcher, epochs=3, plateau=1e-9, learning_rate=0.01)
    moved = [
        max(float((late[name] - early[name]).abs().max()) for name in early)
        for early, late in zip(watcher.kept, watcher.kept[1:], strict=False)
    ]
    assert moved[0] > 1e-3
    assert moved[1] < 1e-8


def test_with_a_companion_all_epochs_run_and_the_last_weights_stay(train, fresh, monkeypatch):
    scripted(monkeypatch, [0.9, 0.4, 0.4, 0.4])
    network = fresh()
    watcher, gates = Weights(network), Gates(network)
    result, _ = train(network=network, gates=gates, watcher=watcher, patience=1)
    assert len(result.history) == result.best_epoch == 4
    assert_same(weights(network), watcher.kept[-1])
    assert gates.calls == [7, 14, 21, 28]
    assert gates.progress == [step / 28 for step in range(28)]
    assert "open" in result.history[0].flat()
    assert "extra" not in result.history[0].flat()


def poison(network, step: int) -> None:
    """Makes the loss of training step `step` (from 1) NaN."""
    seen = [0]

    def spoil(module, arguments):
        if module.training:
            seen[0] += 1
            if seen[0] == step:
                module.table.weight.data.fill_(float("nan"))

    network.register_forward_pre_hook(spoil)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7, 8, 13])
@pytest.mark.parametrize("look", [1, 3, 50])
def test_a_loss_that_is_no_number_stops_with_its_step(train, fresh, monkeypatch, step, look):
    monkeypatch.setattr(loop, "_LOSS_CHECK", look)
    network = fresh()
    poison(network, step)
    message = rf"loss became NaN or infinite at step {step}; lower training.learning_rate \(now 0.01\)"
    with pytest.raises(CtrError, match=message):
        train(network=network)


def test_a_huge_learning_rate_stops_with_a_step(train):
    with pytest.raises(CtrError, match=r"NaN or infinite at step [2-7]; lower .* \(now 1e\+30\)"):
        train(learning_rate=1e30)


def test_weights_that_the_last_step_of_an_epoch_ruined_are_noticed_on_valid(train, batches):
    with pytest.raises(CtrError, match=r"predictions became NaN or infinite at step 1; lower") as error:
        train(learning_rate=1e30, data=batches(batch_size=400))
    assert type(error.value) is CtrError


def test_a_run_that_diverged_can_be_resumed_from_the_epoch_before(train, fresh, tmp_path):
    network = fresh()
    poison(network, 9)
    with pytest.raises(CtrError, match="step 9"):
        train("resumed", network=network)
    _, expected = train("straight")
    _, found = train("resumed")
    assert_same(weights(found), weights(expected))


@pytest.mark.parametrize("rows", [1, 2, 65, 129])
def test_a_last_batch_of_one_row_trains_with_batch_norm(train, batches, rows):
    result, network = train(data=batches(rows=rows), norm="batch", epochs=2)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert np.isfinite([record.train_logloss for record in result.history]).all()


def test_the_mean_loss_weighs_rows_and_not_batches(train, batches, fresh):
    network = fresh()
    train_batches, valid = batches(rows=65)  # 64 rows and 1 row
    frozen = {"learning_rate": 1e-30}
    result, _ = train(network=network, data=(train_batches, valid), epochs=1, **frozen)
    with torch.no_grad():
        chances = predict(network, loop.Batches(train_batches.part, train_batches.layout, 10))
    labels = np.asarray(train_batches.part.labels)
    expected = -np.mean(np.log(np.where(labels == 1, chances, 1 - chances)))
    assert result.history[0].train_logloss == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backbone", ["fm", "deepfm", "dcnv2"])
def test_a_checkerboard_is_learned_by_backbones_that_see_pairs(train, batches, backbone):
    result, _ = train(backbone=backbone, data=batches(rows=4000), epochs=15, learning_rate=0.03)
    assert result.history[result.best_epoch - 1].valid_auc > 0.9


def test_a_checkerboard_is_beyond_logistic_regression(train, batches):
    result, _ = train(backbone="lr", data=batches(rows=4000), epochs=10, learning_rate=0.03)
    assert result.history[result.best_epoch - 1].valid_auc < 0.65


@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_moves_every_parameter_of_every_backbone(train, fresh, backbone):
    network = fresh(backbone)
    before = weights(network)
    train(network=network, epochs=2)
    for name, parameter in network.named_parameters():
        assert not torch.equal(parameter, before[name]), name
    assert torch.equal(network.table.weight[0], torch.zeros_like(network.table.weight[0]))


def test_gates_are_in_no_optimizer(train, fresh):
    network = fresh()
    network.gate = SoftGate(len(network.table.weight))
    network.gate.logits.requires_grad_()
    train(network=network, weight_decay=0.5, epochs=2)
    assert torch.equal(network.gate.logits, torch.full_like(network.gate.logits, 0.5))


def test_predict_keeps_the_order_of_rows_whatever_the_batch_and_the_mode(fresh, batches):
    network = fresh(dropout=0.5).train()
    _, valid = batches()
    whole = predict(network, loop.Batches(valid.part, valid.layout, 1000))
    pieces = predict(network, loop.Batches(valid.part, valid.layout, 7))
    np.testing.assert_allclose(whole, pieces, atol=1e-6)
    assert network.training
    network.eval()
    with torch.no_grad():
        for row in (0, 150, 299):
            batch = valid.layout.gather(valid.part, np.array([row]))
            logit = network(to_inputs(batch, torch.device("cpu")))
            assert whole[row] == pytest.approx(float(torch.sigmoid(logit)), abs=1e-6)


def test_predict_of_no_rows_is_empty_and_of_shuffled_rows_refused(fresh, batches):
    train_batches, _ = batches(rows=0)
    network = fresh()
    assert predict(network, loop.Batches(train_batches.part, train_batches.layout, 8)).shape == (0,)
    with pytest.raises(ValueError, match="another order"):
        predict(network, train_batches)


@pytest.mark.parametrize("name", ["last", "best"])
def test_an_altered_checkpoint_is_one_message(train, tmp_path, name):
    with pytest.raises(StopError):
        train(watcher=Stopper(epochs=4))
    file = next((tmp_path / "run" / name).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(CtrError, match=rf'checkpoint ".*{name}" is damaged .* use --force'):
        train()


def test_a_missing_best_checkpoint_is_one_message(train, tmp_path):
    train()
    for file in (tmp_path / "run" / "best").iterdir():
        file.unlink()
    with pytest.raises(CtrError, match=r'checkpoint ".*best" is missing; use --force'):
        train()


@pytest.mark.parametrize("other", [{"backbone": "fm"}, {"backbone": "dcn"}])
def test_a_checkpoint_of_another_network_is_one_message(train, other):
    train()
    with pytest.raises(CtrError, match=r'checkpoint ".*last" is damaged'):
        train(**other)


def test_a_checkpoint_that_lacks_a_part_is_one_message(train, tmp_path):
    train()
    state = load_checkpoint(tmp_path / "run" / "last")
    del state["progress"]
    save_checkpoint(tmp_path / "run" / "last", state)
    with pytest.raises(CtrError, match=r'checkpoint ".*last" is damaged'):
        train()


def test_the_watcher_hears_of_every_row(train, monkeypatch):
    monkeypatch.setattr(loop, "_LOSS_CHECK", 3)
    heard = []

    class Ear:
        def step(self, *arguments) -> None:
            heard.append(arguments[:4])

        def look(self, record) -> None:
            heard.append(record.epoch)

    train(watcher=Ear(), epochs=2)
    looks = [(3, 7, 192), (6, 7, 384), (7, 7, 400)]
    assert heard == [(1, *look) for look in looks] + [1] + [(2, *look) for look in looks] + [2]


def test_rows_and_loss_are_told_since_the_last_look(train, monkeypatch):
    monkeypatch.setattr(loop, "_LOSS_CHECK", 2)
    heard = []

    class Ear:
        def step(self, *arguments) -> None:
            heard.append(arguments[:4])

        def look(self, record) -> None:
            heard.append(record.step)

    train(watcher=Ear(), epochs=1, eval_every=3)
    assert heard == [(1, 2, 7, 128), (1, 3, 7, 192), 3, (1, 5, 7, 128), (1, 6, 7, 192), 6, (1, 7, 7, 16), 7]


def test_a_run_folder_is_made_where_there_is_none(train, tmp_path):
    train(Path("deep") / "run", epochs=1)
    assert (tmp_path / "deep" / "run" / "best" / "state.json").is_file()
