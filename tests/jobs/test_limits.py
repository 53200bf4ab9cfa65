"""How much memory the tables of a network take in training, against what training really keeps."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ctr.config import Config
from ctr.errors import ConfigError
from ctr.jobs import limits
from ctr.jobs.limits import batch_bytes, require_memory, training_bytes
from ctr.network.crosses import PairLayout
from ctr.network.gates import SoftGate
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.network.network import Architecture, build
from ctr.selection.evidence import EvidenceGates, Schedule
from ctr.training.looks import BEST_IN_MEMORY
from ctr.training.optimizers import LazyAdam, table_parameters


def test_a_table_counts_its_weights_four_times_and_eight_bytes_for_each_row():
    architecture = Architecture(rows=101, fields=3, dim=4)  # four floats and a first-order weight
    assert training_bytes(architecture) == 4 * (101 * 5 * 4) + 101 * 8


def test_gates_count_where_they_are_more_than_the_best_weights():
    architecture = Architecture(rows=101, fields=3, dim=4)
    assert training_bytes(architecture, gates=155) == training_bytes(architecture)
    assert training_bytes(architecture, gates=156) == 3 * (101 * 5 * 4) + 101 * 8 + 156 * 13


def test_crosses_and_factors_count_and_a_search_of_them_keeps_no_best_weights():
    pairs = PairLayout(dim=2, memorized=((0, 1),), factorized=((0, 2),), cross_rows=31, factor_rows=11)
    plain = Architecture(rows=101, fields=3, dim=4)
    found = training_bytes(Architecture(rows=101, fields=3, dim=4, pairs=pairs))
    assert found == training_bytes(plain) + 4 * (30 + 10) * 2 * 4 + (31 + 11) * 8
    searched = PairLayout(**{**vars(pairs), "factorized": ((0, 1),), "searched": True})
    assert training_bytes(Architecture(rows=101, fields=3, dim=4, pairs=searched)) == found - (505 + 80) * 4


@pytest.mark.parametrize("composition", ["", *COMPOSITIONS])
def test_it_is_what_the_optimizer_keeps(composition):
    keys = {"composition": composition, "second_rows": 7, "lookups": 2} if composition else {}
    architecture = Architecture(rows=20, fields=2, dim=4, **keys)
    tables = table_parameters(build(architecture))
    optimizer = LazyAdam(tables)
    for table in tables:
        table.grad = torch.ones_like(table).to_sparse(1)
    optimizer.step()
    kept = [tensor for table in tables for tensor in [table, *optimizer.state[table].values()]]
    kept = [tensor for tensor in kept if isinstance(tensor, torch.Tensor)]
    assert training_bytes(architecture) == sum(tensor.nbytes for tensor in [*kept, *tables])


def test_it_is_what_the_gates_of_a_search_keep(tmp_path):
    network = build(Architecture(rows=20, fields=2, dim=4))
    network.gate = SoftGate(20)
    schedule = Schedule(steps=2, steps_per_epoch=1, final_temperature=2.0)
    gates = EvidenceGates(
        network,
        schedule,
        price=1.0,
        values=torch.ones(19, dtype=torch.bool),
        rate=1.0,
        rewind_epoch=0,
        folder=tmp_path,
    )
    kept = [network.gate.logits, gates.sums, gates._ruled]
    without, found = (training_bytes(Architecture(rows=1, fields=2, dim=4), gates=n) for n in (1000, 1020))
    assert found - without == sum(tensor.nbytes for tensor in kept)


def test_tables_of_any_size_are_counted_without_building_them_and_large_ones_have_their_best_weights_on_disk():
    assert training_bytes(Architecture(rows=10**12, fields=2, dim=16)) == 10**12 * (3 * 17 * 4 + 8)
    most = BEST_IN_MEMORY // (17 * 4)
    held, beyond = (training_bytes(Architecture(rows=most + more, fields=2, dim=16)) for more in (0, 1))
    assert held - beyond == most * 17 * 4 - (3 * 17 * 4 + 8)


def test_the_vectors_of_a_batch_count_and_are_what_to_lower_where_tables_alone_fit(monkeypatch):
    config = Config(name="log", data={"schema": "schema.toml", "input": "log.csv"})
    architecture = Architecture(rows=101, fields=3, dim=1000)
    dataset = SimpleNamespace(
        manifest={"rows": {"train": 50}}, features=100
    )  # fewer rows than a usual batch has
    assert batch_bytes(architecture, 50) == 50 * 4 * (8 * 3 * 1001 + 2 * (256 + 128 + 1))
    alone = replace(architecture, backbone="fm", first_order=False)
    assert batch_bytes(alone, 50) == 50 * 4 * 8 * 3 * 1000  # nothing but vectors
    needed = training_bytes(architecture) + batch_bytes(architecture, 50)
    monkeypatch.setattr(limits, "free_memory", lambda device: needed)
    require_memory(config, architecture, torch.device("cpu"), dataset)
    monkeypatch.setattr(limits, "free_memory", lambda device: needed - 1)
    with pytest.raises(
        ConfigError, match=r"^training.batch_size = 50: .* smaller batch, or a smaller embedding.dim$"
    ):
        require_memory(config, architecture, torch.device("cpu"), dataset)
    monkeypatch.setattr(limits, "free_memory", lambda device: 1)
    with pytest.raises(ConfigError, match=r'rows for 100 features .* use embedding.kind = "unified"'):
        require_memory(config, architecture, torch.device("cpu"), dataset)
