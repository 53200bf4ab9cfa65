"""How gates learn, held against loops over rows and occurrences, and what the price must not depend on."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.network.backbones import BACKBONES
from ctr.network.gates import SoftGate
from ctr.selection import evidence
from ctr.selection.evidence import EvidenceGates, Schedule, evidence_of
from ctr.training.feeding import to_inputs
from tests.reference.evidence import DenseGates, contributions, in_float64
from tests.selection.conftest import PLANTED_FIELDS, planted_log

EACH = pytest.mark.parametrize("backbone", BACKBONES)
CPU = torch.device("cpu")


def gates_of(network, folder, *, steps, steps_per_epoch, price=1.0, rate=1.0, values=None, hot=20.0):
    """EvidenceGates on a network that gets a SoftGate."""
    rows = len(network.table.weight)
    network.gate = SoftGate(rows)
    values = torch.ones(rows - 1, dtype=torch.bool) if values is None else values
    return EvidenceGates(
        network,
        Schedule(steps, steps_per_epoch, hot),
        price=price,
        values=values,
        rate=rate,
        rewind_epoch=0,
        folder=folder,
    )


def batches_of(dataset, size, seed=0):
    return Batches(dataset.part("train"), Layout(dataset), size, seed)


def one_step(network, gates, batch, progress=0.0, weights=None):
    """Forward, backward and evidence, as the training loop does them; no weight moves."""
    inputs, labels = to_inputs(batch, CPU), torch.from_numpy(batch.labels)
    gates.before_step(inputs, labels, weights, progress)
    network.zero_grad()
    F.binary_cross_entropy_with_logits(network(inputs), labels, weight=weights).backward()
    gates.after_backward()
    return inputs, labels


def wiggle(network, seed):
    """Move the weights, as an optimizer would, but for the dropped row."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if not name.startswith("gate."):
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    network.table.weight.data[0] = 0.0


def dense_gates(network, schedule, price, rate=1.0):
    return DenseGates(
        len(network.table.weight),
        window=schedule.window,
        steps_per_epoch=schedule.steps_per_epoch,
        steps=schedule.steps,
        final_temperature=schedule.final_temperature,
        price=price,
        rate=rate,
    )


def close(found, expected, rtol=2e-3, atol=2e-4):
    torch.testing.assert_close(found.detach().double(), torch.tensor(expected).double(), rtol=rtol, atol=atol)


@EACH
def test_evidence_and_gates_equal_the_dense_reference(backbone, mixed, make_network, tmp_path):
    network, steps = make_network(mixed, backbone), 7
    gates = gates_of(network, tmp_path, steps=steps, steps_per_epoch=3, price=1.0)
    assert gates.schedule.window == pytest.approx(7 / 3)
    dense = dense_gates(network, gates.schedule, 1.0)
    seen, factors = set(), []
    network.gate.register_forward_hook(lambda gate, ids, found: factors.append(found.detach().flatten()))
    for number, batch in zip(range(steps), batches_of(mixed, 9).epoch(), strict=False):
        inputs, labels = one_step(network, gates, batch, number / steps)
        opened = torch.cat(factors)  # of the step; the reference looks at a network of its own
        expected = dense.step(in_float64(network), inputs, labels)
        factors.clear()
        read = torch.cat([inputs.ids.flatten(), inputs.list_ids])
        close(opened, [expected[feature] for feature in read])
        seen |= set(read.tolist())
        wiggle(network, number)
    assert len(seen) < len(network.table.weight) - 1  # some features were in no batch
    assert len(read) > len(set(read.tolist()))  # and some in a batch more than once
    gates.before_look()
    close(gates.sums[:, 0], dense.slope)
    close(gates.sums[:, 1], dense.curvature)
    close(evidence_of(gates.sums[:, 0], gates.sums[:, 1]), dense.evidence())
    close(network.gate.logits[:, 0], dense.logits())
    close(gates.scores(), dense.evidence()[1:])


@pytest.mark.parametrize("backbone", ["fm", "deepfm"])
def test_weighted_rows_give_the_evidence_of_the_dense_reference(backbone, mixed, make_network, tmp_path):
    network, steps = make_network(mixed, backbone), 4
    gates = gates_of(network, tmp_path, steps=steps, steps_per_epoch=2, price=1.0)
    dense, draw = dense_gates(network, gates.schedule, 1.0), np.random.default_rng(0)
    for number, batch in zip(range(steps), batches_of(mixed, 9).epoch(), strict=False):
        weights = torch.from_numpy(draw.choice([0.0, 0.5, 2.0, 3.0], 9).astype(np.float32))
        inputs, labels = one_step(network, gates, batch, number / steps, weights)
        dense.step(in_float64(network), inputs, labels, weights)
        wiggle(network, number)
    gates.before_look()
    close(gates.sums[:, 0], dense.slope)
    close(gates.sums[:, 1], dense.curvature)


def test_a_row_of_weight_two_is_the_evidence_of_the_row_twice(mixed, make_network, tmp_path):
    layout, part = Layout(mixed), mixed.part("train")
    found = []
    for rows, weights in (([3, 5, 5, 8], None), ([3, 5, 8], torch.tensor([1.0, 2.0, 1.0]))):
        network = make_network(mixed)
        gates = gates_of(network, tmp_path, steps=1, steps_per_epoch=1)
        if weights is not None:
            weights = weights * 3 / 4  # the loss is a mean over three rows instead of four
        one_step(network, gates, layout.gather(part, np.array(rows)), weights=weights)
        found.append(gates.sums * (1.0 if weights is None else 4 / 3))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


def test_gates_of_ruled_features_do_not_listen_to_evidence(mixed, make_network, tmp_path):
    network = make_network(mixed)
    always, never = (
        torch.zeros(mixed.features, dtype=torch.bool),
        torch.zeros(mixed.features, dtype=torch.bool),
    )
    always[[2, 3]], never[[4, 9]] = True, True
    network.gate = SoftGate(mixed.features + 1)
    values = torch.ones(mixed.features, dtype=torch.bool)
    keys = {"price": 1e6, "values": values, "rate": 1.0, "rewind_epoch": 0, "folder": tmp_path}
    gates = EvidenceGates(network, Schedule(9, 3, 20.0), always=always, never=never, **keys)
    for number, batch in zip(range(9), batches_of(mixed, 40).epoch(), strict=False):
        one_step(network, gates, batch, number / 9)
    gates.before_look()
    logits = network.gate.logits[1:, 0]
    assert logits[[2, 3]].tolist() == [1.0, 1.0]
    assert logits[[4, 9]].tolist() == [-1.0, -1.0]
    assert float(logits[~(always | never)].max()) < 0.0


@pytest.mark.parametrize(
    ("rewind", "steps_per_epoch", "steps", "at"),
    [
        (0, 7, 7, 0),
        (0.5, 10, 10, 5),
        (0.3, 10, 10, 3),  # 0.3 * 10 is no whole number in floating point
        (0.3, 7, 7, 3),  # 2 of 7 is less than 0.3
        (0.99, 7, 7, 6),  # only the end of the search has so much: the last step then
        (1, 7, 21, 7),
        (1.5, 4, 12, 6),
    ],
)
def test_weights_are_put_aside_before_the_first_step_that_reaches_the_rewind_epoch(
    rewind, steps_per_epoch, steps, at, planted, make_network, tmp_path, monkeypatch
):
    network, saved = make_network(planted, "lr"), []
    network.gate = SoftGate(planted.features + 1)
    values = torch.ones(planted.features, dtype=torch.bool)
    schedule = Schedule(steps, steps_per_epoch, 20.0)
    gates = EvidenceGates(
        network, schedule, price=1.0, values=values, rate=1.0, rewind_epoch=rewind, folder=tmp_path
    )
    monkeypatch.setattr(evidence, "save_checkpoint", lambda folder, state: saved.append(gates.step))
    batch = next(batches_of(planted, 64).epoch())
    for number in range(steps):
        one_step(network, gates, batch, number / steps)
    assert saved == [at]


@EACH
def test_a_gradient_over_the_residual_is_what_an_occurrence_adds_to_the_logit(
    backbone, mixed, make_network, tmp_path
):
    network = make_network(mixed, backbone)
    network.gate = SoftGate(len(network.table.weight))
    generator = torch.Generator().manual_seed(1)
    network.gate.logits.data = torch.randn(network.gate.logits.shape, generator=generator)
    gates = gates_of(network, tmp_path, steps=3, steps_per_epoch=1)
    network.gate.judge = None
    batch = next(batches_of(mixed, 6).epoch())
    inputs, labels = to_inputs(batch, CPU), torch.from_numpy(batch.labels)
    gates.before_step(inputs, labels, None, 0.0)
    F.binary_cross_entropy_with_logits(network(inputs), labels).backward()
    gates.detach()
    residual = (torch.sigmoid(gates._logits) - labels).detach()
    single, lists = gates._read
    vectors, listed = single.vectors, lists.vectors
    ones = (single.gradient * (vectors - vectors.mean(0))).sum(-1) * len(labels) / residual[:, None]
    row, field = inputs.list_slots // 3, inputs.list_slots % 3
    apart = listed - torch.stack([listed[field == f].mean(0) for f in range(3)])[field]
    many = (lists.gradient * apart).sum(-1) * len(labels) / residual[row]
    gate = network.gate(torch.arange(len(network.table.weight)))[:, 0].tolist()
    for number, (entries, logit) in enumerate(contributions(in_float64(network), inputs, gate)):
        found = [*ones[number].tolist(), *many[row == number].tolist()]
        expected = [change for _, _, change in entries]
        assert logit == pytest.approx(float(gates._logits[number]), rel=1e-4, abs=1e-5)
        assert sorted(found) == pytest.approx(sorted(expected), rel=5e-3, abs=1e-4)


def test_evidence_is_the_fall_in_loss_that_the_best_scale_of_a_feature_brings_over_dropping_it():
    # loss(t) = S (t - 1) + H (t - 1)^2 / 2, by brute force over t >= 0
    scales = np.linspace(0.0, 40.0, 400_001)
    for slope, curvature in ((-3.0, 2.0), (0.0, 2.0), (1.0, 2.0), (5.0, 2.0), (-0.1, 0.01)):
        loss = slope * (scales - 1) + curvature * (scales - 1) ** 2 / 2
        found = float(evidence_of(torch.tensor(slope), torch.tensor(curvature)))
        assert found == pytest.approx(loss[0] - loss.min(), rel=1e-3, abs=1e-6)
    assert float(evidence_of(torch.tensor(0.0), torch.tensor(0.0))) == 0.0


def test_a_step_leaves_everything_that_the_batch_does_not_hold_as_it_was(mixed, make_network, tmp_path):
    network = make_network(mixed)
    gates = gates_of(network, tmp_path, steps=50, steps_per_epoch=10)
    batches = batches_of(mixed, 4).epoch()
    one_step(network, gates, next(batches))
    sums = gates._sums.clone()
    inputs, _ = one_step(network, gates, next(batches))
    held = torch.zeros(len(sums), dtype=torch.bool)
    held[torch.cat([inputs.ids.flatten(), inputs.list_ids])] = True
    assert 0 < int(held.sum()) < len(sums) - 1
    assert bool((gates._sums[held] != sums[held]).any())
    assert torch.equal(gates._sums[~held], sums[~held])


def frozen_evidence(network, dataset, folder, *, batch_size, epochs, extra_rows=0, price=1.0):
    """Evidence (V,) of a network whose weights stand still."""
    network.load_state_dict({**network.state_dict()})
    if extra_rows:
        wider = torch.cat([network.table.weight.data, torch.randn(extra_rows, network.table.weight.shape[1])])
        network.table.weight = torch.nn.Parameter(wider)
    batches = batches_of(dataset, batch_size)
    steps = epochs * len(batches)
    gates = gates_of(network, folder, steps=steps, steps_per_epoch=len(batches), price=price, hot=1.0)
    for epoch in range(epochs):
        for number, batch in enumerate(batches.epoch(epoch)):
            one_step(network, gates, batch, (epoch * len(batches) + number) / steps)
        gates.before_look()
    return gates


def informed(dataset, make_network, effect=1.2):
    """A logistic regression that knows the planted log: its first-order weights are the planted effects."""
    network = make_network(dataset, "lr")
    values = dataset.vocabulary["value"].to_list()
    effects = [0.0 if not v or v[0] != "v" else (effect if int(v[1:]) % 2 else -effect) for v in values]
    network.table.weight.data[1:, 0] = torch.tensor(effects)
    noise = np.random.default_rng(0).normal(0, 0.1, len(effects)) * (np.array(effects) == 0)
    network.table.weight.data[1:, 0] += torch.from_numpy(noise).float()
    network.bias.data.zero_()
    return network


def test_evidence_is_the_log_loss_that_the_feature_saves_on_train(make_dataset, make_network, tmp_path):
    planted = make_dataset(planted_log(effect=0.5), PLANTED_FIELDS)
    network = informed(planted, make_network, effect=0.5)
    found = frozen_evidence(network, planted, tmp_path, batch_size=64, epochs=5).scores().numpy()
    network.gate = None
    part = planted.part("train")
    batch = next(Batches(part, Layout(planted), len(part)).epoch())
    labels = torch.from_numpy(batch.labels)

    def loss(weights):
        network.table.weight.data = weights
        with torch.no_grad():
            return float(
                F.binary_cross_entropy_with_logits(network(to_inputs(batch, CPU)), labels, reduction="sum")
            )

    weights = network.table.weight.data.clone()
    useful = np.flatnonzero((planted.vocabulary["field"] == "useful").to_numpy())[2:]
    total = 0.0
    for feature in useful:
        changed = weights.clone()
        changed[feature + 1] = 0.0
        rise = loss(changed) - loss(weights)
        assert rise > 5
        # An exponential window counts a row between 0.6 and 1.6 times: evidence has about sqrt(rise) of noise.
        assert found[feature] == pytest.approx(rise, abs=2 * rise**0.5)
        total += rise
    assert found[useful].sum() == pytest.approx(total, rel=0.1)


def test_batch_size_number_of_epochs_and_unread_vocabulary_leave_evidence_as_it_is(
    planted, make_network, tmp_path
):
    base = frozen_evidence(
        informed(planted, make_network), planted, tmp_path, batch_size=64, epochs=4
    ).scores()
    useful = torch.from_numpy((planted.vocabulary["field"] == "useful").to_numpy()).nonzero()[2:, 0]
    assert float(base[useful].min()) > 30
    for keys in (
        {"batch_size": 256, "epochs": 4},
        {"batch_size": 64, "epochs": 16},
    ):
        found = frozen_evidence(informed(planted, make_network), planted, tmp_path, **keys).scores()
        torch.testing.assert_close(found[useful], base[useful], rtol=0.2, atol=0.0)
        assert float(torch.corrcoef(torch.stack([found, base]))[0, 1]) > 0.98
    wider = frozen_evidence(
        informed(planted, make_network),
        planted,
        tmp_path,
        batch_size=64,
        epochs=4,
        extra_rows=planted.features,
    )
    torch.testing.assert_close(wider.scores()[: planted.features], base)
    assert bool((wider.scores()[planted.features :] == 0).all())


@pytest.mark.parametrize("price", [0.0, 1e-3, 2.5, 100.0])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_feature_that_no_row_holds_ends_closed_whatever_the_price(
    price, epochs, planted, make_network, tmp_path
):
    network = make_network(planted, "fm")
    gates = frozen_evidence(
        network, planted, tmp_path, batch_size=256, epochs=epochs, extra_rows=5, price=price
    )
    assert bool((gates.scores()[-5:] <= gates.price).all())
    assert bool((network.gate.logits[-5:] <= 0).all())


def test_before_anything_is_learned_every_gate_is_as_open_as_at_the_start(planted, make_network, tmp_path):
    network = make_network(planted)
    gates = gates_of(network, tmp_path, steps=3000, steps_per_epoch=1000, price=2.0)
    factors = []
    network.gate.register_forward_hook(lambda gate, ids, found: factors.append(found.detach()))
    one_step(network, gates, next(batches_of(planted, 64).epoch()))
    torch.testing.assert_close(factors[0], torch.ones_like(factors[0]), rtol=0.01, atol=0.0)
    gates.before_look()  # what a step without a batch would see of features that no batch held
    unseen = gates.sums[1:, 1] == 0
    with torch.no_grad():
        closed = network.gate(torch.arange(1, planted.features + 1)[unseen])
    torch.testing.assert_close(closed, torch.ones_like(closed), rtol=0.01, atol=0.0)


def test_gates_need_a_network_with_a_soft_gate(planted, make_network, tmp_path):
    schedule = Schedule(10, 5, 2.0)
    with pytest.raises(TypeError, match="SoftGate"):
        EvidenceGates(
            make_network(planted),
            schedule,
            price=1.0,
            values=torch.ones(planted.features, dtype=torch.bool),
            rate=1.0,
            rewind_epoch=0,
            folder=tmp_path,
        )


def test_after_detaching_the_network_runs_as_without_a_companion(mixed, make_network, tmp_path):
    network = make_network(mixed)
    gates = gates_of(network, tmp_path, steps=4, steps_per_epoch=2)
    one_step(network, gates, next(batches_of(mixed, 8).epoch()))
    gates.detach()
    network(to_inputs(next(batches_of(mixed, 8).epoch()), CPU))
    assert gates._read == []


def test_what_a_saturated_row_adds_is_finite(planted, make_network, tmp_path):
    network = make_network(planted, "lr")
    network.table.weight.data[1:] *= 200.0  # probabilities of exactly 0 and 1 in float32
    gates = gates_of(network, tmp_path, steps=4, steps_per_epoch=2)
    for batch in list(batches_of(planted, 64).epoch())[:2]:
        one_step(network, gates, batch)
    assert bool(torch.isfinite(gates.sums).all())
