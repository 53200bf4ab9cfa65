"""The training loop: resumable to the bit, stops when it should, keeps the best weights, and learns."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ctr.errors import ConfigError, CtrError
from ctr.evaluation.metrics import Metrics
from ctr.network.backbones import BACKBONES
from ctr.network.gates import SoftGate
from ctr.training import fit as loop
from ctr.training.checkpoint import load_checkpoint, save_checkpoint
from ctr.training.fit import fit, pick_device, predict, to_inputs


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

    def epoch(self, record) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            raise StopError


class Gates:
    """A small companion: it closes gates by what it has seen so far, so that losing its memory shows."""

    def __init__(self, network) -> None:
        network.gate = SoftGate(len(network.table.weight))
        self.network, self.seen, self.calls = network, torch.zeros(len(network.table.weight)), []
        self.progress: list[float] = []

    def start_epoch(self, number: int) -> None:
        self.calls.append(("start", number))

    def before_step(self, inputs, labels, progress: float) -> None:
        self.progress.append(progress)
        self.seen[inputs.ids.flatten()] += labels.mean()
        self.network.gate.temperature.fill_(1 + progress)

    def after_backward(self) -> None:
        assert self.network.table.weight.grad is not None
        self.network.gate.logits[:, 0] = 0.5 - self.seen / 100

    def end_epoch(self) -> dict[str, float]:
        self.calls.append(("end", len(self.calls)))
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


def test_a_network_handed_over_in_evaluation_mode_is_trained_all_the_same(train, fresh):
    _, expected = train("first", dropout=0.3)
    _, found = train("second", network=fresh(dropout=0.3).eval())
    assert_same(weights(found), weights(expected))


def test_every_epoch_has_an_order_of_its_own(train, batches, monkeypatch):
    train_batches, valid = batches()
    asked, original = [], train_batches.epoch
    monkeypatch.setattr(train_batches, "epoch", lambda number: asked.append(number) or original(number))
    train(data=(train_batches, valid), epochs=3)
    assert asked == [0, 1, 2]


def test_rows_that_no_batch_reads_have_decayed_when_an_epoch_ends(train, fresh):
    network = fresh("fm")
    before = weights(network)["table.weight"]
    train(network=network, epochs=1, learning_rate=0.1, weight_decay=0.5)
    unread = [17, 18]  # unknown and missing of "x"
    torch.testing.assert_close(network.table.weight[unread], before[unread] * 0.95**7)


class Weights:
    """Keeps the weights after each epoch."""

    def __init__(self, network) -> None:
        self.network, self.kept = network, []

    def step(self, *arguments) -> None:
        pass

    def epoch(self, record) -> None:
        self.kept.append(weights(self.network))


def scripted(monkeypatch, aucs: list[float]) -> None:
    """Lets valid AUC be what the script says, epoch by epoch."""
    left = iter(aucs)
    monkeypatch.setattr(loop, "measure", lambda *_: Metrics(next(left), 0.5, 0.0, 1.0, 1, 1))


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
    assert [name for name, _ in gates.calls] == ["start", "end"] * 4
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
    with pytest.raises(ValueError, match="shuffled"):
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
    del state["best"]
    save_checkpoint(tmp_path / "run" / "last", state)
    with pytest.raises(CtrError, match=r'checkpoint ".*last" is damaged'):
        train()


def test_the_watcher_hears_of_every_row(train, monkeypatch):
    monkeypatch.setattr(loop, "_LOSS_CHECK", 3)
    heard = []

    class Ear:
        def step(self, *arguments) -> None:
            heard.append(arguments[:4])

        def epoch(self, record) -> None:
            heard.append(record.epoch)

    train(watcher=Ear(), epochs=2)
    looks = [(3, 7, 192), (6, 7, 384), (7, 7, 400)]
    assert heard == [(1, *look) for look in looks] + [1] + [(2, *look) for look in looks] + [2]


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(("name", "gpus"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 0)])
def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch, name, gpus):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=f'training.device: "{name}" is not available here; use "auto"'):
        pick_device(name)


def test_a_device_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")


def test_a_run_folder_is_made_where_there_is_none(train, tmp_path):
    train(Path("deep") / "run", epochs=1)
    assert (tmp_path / "deep" / "run" / "best" / "state.json").is_file()
