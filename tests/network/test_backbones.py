import ast
from itertools import combinations
from pathlib import Path

import pytest
import torch

import ctr.network
from ctr.errors import ConfigError
from ctr.network.backbones import BACKBONES, Backbone
from tests.reference import layers as reference

FIELDS, WIDTH = 4, 3
SOURCES = sorted(Path(ctr.network.__file__).parent.rglob("*.py"))
EACH = pytest.mark.parametrize("kind", BACKBONES)
EACH_NORM = pytest.mark.parametrize("norm", ["none", "batch", "layer"])
EACH_HIDDEN = pytest.mark.parametrize("hidden", [(), (7,), (8, 5)])


def build(
    kind, fields=FIELDS, width=WIDTH, hidden=(8, 5), dropout=0.0, norm="none", seed=0, **own
) -> Backbone:
    torch.manual_seed(seed)
    return BACKBONES[kind](fields, width, hidden, dropout, norm, **own)


def train_like(backbone: Backbone) -> Backbone:
    """Float64, random weights and random statistics; in evaluation mode."""
    backbone.double().eval()
    for parameter in backbone.parameters():
        parameter.data = torch.randn_like(parameter) * 0.5
    for name, statistic in backbone.named_buffers():
        if name.endswith("running_mean"):
            statistic.copy_(torch.randn_like(statistic))
        if name.endswith("running_var"):
            statistic.copy_(torch.rand_like(statistic) + 0.5)
    return backbone


def draw(rows=6, fields=FIELDS, width=WIDTH, dtype=torch.float64):
    return torch.randn(rows, fields, width, dtype=dtype, generator=torch.Generator().manual_seed(5))


def assert_removed_fields_leave_nothing(backbone: Backbone) -> None:
    for size in range(1, FIELDS + 1):
        for kept in combinations(range(FIELDS), size):
            embeddings = draw()
            embeddings[:, [field for field in range(FIELDS) if field not in kept]] = 0.0
            smaller = backbone.keep_fields(kept)
            assert smaller.fields == size
            found = smaller(embeddings[:, list(kept)])
            torch.testing.assert_close(found, backbone(embeddings), rtol=1e-11, atol=1e-11)


@EACH_HIDDEN
@EACH_NORM
@EACH
def test_without_its_zero_fields_a_backbone_gives_the_same_logits(kind, norm, hidden):
    assert_removed_fields_leave_nothing(train_like(build(kind, norm=norm, hidden=hidden)))


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("dcn", {"layers": 1}),
        ("dcn", {"layers": 5}),
        ("dcnv2", {"rank": 2}),
        ("dcnv2", {"rank": 2, "layers": 1}),
        ("pin", {"subnet_units": 2}),
        ("pin", {"subnet_units": 7, "norm": "layer"}),
    ],
)
def test_without_its_zero_fields_a_backbone_with_settings_of_its_own_gives_the_same_logits(kind, own):
    backbone = train_like(build(kind, **own))
    assert_removed_fields_leave_nothing(backbone)
    assert backbone.keep_fields([1]).settings == backbone.settings


@EACH
def test_without_zero_fields_logits_agree_in_float32_too(kind):
    backbone = train_like(build(kind)).float()
    embeddings = draw(dtype=torch.float32)
    embeddings[:, 1] = 0.0
    found = backbone.keep_fields([0, 2, 3])(embeddings[:, [0, 2, 3]])
    torch.testing.assert_close(found, backbone(embeddings), rtol=1e-5, atol=1e-5)


@EACH
def test_keeping_fields_leaves_the_original_its_mode_and_the_random_numbers_alone(kind):
    backbone = train_like(build(kind, norm="batch", dropout=0.5)).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    draws = torch.get_rng_state()
    smaller = backbone.keep_fields([0, 2])
    assert torch.equal(torch.get_rng_state(), draws)
    assert smaller.training
    assert not backbone.eval().keep_fields([0]).training
    for parameter in smaller.state_dict().values():
        parameter.fill_(7)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@EACH
def test_a_backbone_with_fewer_fields_can_be_trained_on_and_cut_again(kind):
    backbone = train_like(build(kind))
    once = backbone.keep_fields([0, 2, 3])
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in once.parameters())
    embeddings = draw(fields=1)
    assert torch.equal(once.keep_fields([2])(embeddings), backbone.keep_fields([3])(embeddings))


@pytest.mark.parametrize("kept", [[], [2, 1], [1, 1], [-1, 0], [FIELDS]])
@EACH
def test_positions_that_are_no_ascending_choice_of_fields_are_refused(kind, kept):
    with pytest.raises(ValueError, match="ascending positions below 4"):
        build(kind).keep_fields(kept)


@EACH_NORM
@EACH
def test_gradient_reaches_every_parameter_and_every_embedding(kind, norm):
    backbone = build(kind, hidden=(16, 8), norm=norm)
    embeddings = draw(rows=64, dtype=torch.float32).requires_grad_()
    logits = backbone(embeddings)
    if kind in ("lr", "poly2"):  # all of it is the network's first-order term
        assert not list(backbone.parameters())
        assert not logits.requires_grad
        return
    (logits * torch.randn(64)).sum().backward()
    assert embeddings.grad.abs().amax(dim=(0, 2)).min() > 0
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 1e-4, name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("rows", "fields", "width"), [(0, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1), (0, 1, 1)]
)
@EACH_HIDDEN
@EACH_NORM
@EACH
def test_every_shape_gives_one_finite_logit_per_row(kind, norm, hidden, rows, fields, width, training):
    backbone = build(kind, fields, width, hidden=hidden, norm=norm).train(training)
    embeddings = draw(rows, fields, width, torch.float32).requires_grad_()
    logits = backbone(embeddings)
    assert logits.shape == (rows,)
    assert logits.isfinite().all()
    if logits.requires_grad:
        logits.sum().backward()
        assert embeddings.grad.isfinite().all()


@EACH
def test_a_row_scores_alike_alone_and_in_a_batch(kind):
    backbone = train_like(build(kind, norm="batch"))
    embeddings = draw()
    alone = torch.cat([backbone(embeddings[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(alone, backbone(embeddings))


@EACH_NORM
@EACH
def test_forward_changes_no_parameter_and_no_buffer_and_not_its_input(kind, norm):
    backbone = train_like(build(kind, norm=norm, dropout=0.5))
    embeddings = draw()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    first = backbone(embeddings)
    assert torch.equal(first, backbone(embeddings))
    assert torch.equal(embeddings, draw())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@EACH
def test_one_seed_gives_one_network_and_another_seed_another(kind):
    embeddings = draw(dtype=torch.float32)
    first, again, other = (build(kind, seed=seed)(embeddings) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (not list(build(kind).parameters()))


def test_names_in_the_state_are_those_that_stored_weights_rely_on():
    mlp = ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "mlp.4.weight", "mlp.4.bias"]
    vector = ["cross.weight", "cross.bias", "cross_head.weight"]
    subnets = ["subnets.weight", "subnets.bias"]
    expected = {
        "lr": [],
        "poly2": [],
        "fm": [],
        "fnn": sorted(mlp),
        "ipnn": sorted(mlp),
        "pin": sorted(mlp + subnets),
        "deepfm": sorted(mlp),
        "dcn": sorted(mlp + vector),
        "dcnv2": sorted(mlp + vector),
    }
    assert {kind: sorted(build(kind).state_dict()) for kind in expected} == expected
    normed = ["subnets.norm_weight", "subnets.norm_bias"]
    assert {*subnets, *normed} <= {*build("pin", norm="layer").state_dict()}
    low = ["cross.bias", "cross.down", "cross.up", "cross_head.weight"]
    assert sorted(build("dcnv2", rank=2).state_dict()) == sorted(mlp + low)


def test_the_first_order_term_belongs_to_lr_fm_and_deepfm():
    usual = {
        "lr": True,
        "poly2": True,
        "fm": True,
        "fnn": False,
        "ipnn": False,
        "pin": False,
        "deepfm": True,
        "dcn": False,
        "dcnv2": False,
    }
    assert {kind: BACKBONES[kind].first_order for kind in usual} == usual


def test_lr_is_zero_and_needs_no_embeddings():
    assert build("lr", width=0)(torch.empty(3, FIELDS, 0)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["fm", "fnn", "ipnn", "pin", "deepfm", "dcn", "dcnv2"])
def test_logits_equal_nested_loops(kind):
    backbone = train_like(build(kind))
    state = {name: tensor.tolist() for name, tensor in backbone.state_dict().items()}
    layers = [
        (state[f"mlp.{n}.weight"], state[f"mlp.{n}.bias"]) for n in (0, 2, 4) if f"mlp.{n}.bias" in state
    ]

    def logit(row):
        flat = [number for field in row for number in field]
        products = reference.inner_products(row)
        if kind == "fm":
            return sum(products)
        if kind == "ipnn":
            return reference.mlp(flat + products, layers)
        if kind == "pin":
            own = state["subnets.weight"], state["subnets.bias"]
            return reference.mlp(flat + reference.subnets(row, *own), layers)
        deep = reference.mlp(flat, layers)
        if kind == "deepfm":
            return sum(products) + deep
        if kind == "fnn":
            return deep
        cross = reference.vector_cross if kind == "dcn" else reference.matrix_cross
        crossed = cross(flat, state["cross.weight"], state["cross.bias"])
        return reference.dot(state["cross_head.weight"][0], crossed) + deep

    embeddings = draw()
    expected = torch.tensor([logit(row) for row in embeddings.tolist()], dtype=torch.float64)
    torch.testing.assert_close(backbone(embeddings), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (8, 0)}, '"hidden": expected at least 1, found 0'),
        ({"fields": 0}, '"fields": expected at least 1, found 0'),
        ({"width": 0}, '"width": expected at least 1, found 0'),
        ({"dropout": 1.0}, '"dropout": expected at least 0 and below 1, found 1.0'),
        ({"norm": "group"}, '"norm": expected one of "none", "batch", "layer", found "group"'),
        ({"layers": 0}, '"layers": expected at least 1, found 0'),
        ({"rank": 0}, '"rank": expected at least 1, found 0'),
    ],
)
def test_a_setting_out_of_range_is_named_with_what_was_found(changes, message):
    with pytest.raises(ConfigError) as caught:
        build("dcnv2", **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("units", [0, 1])
def test_a_sub_net_of_fewer_than_two_units_is_refused(units):
    with pytest.raises(ConfigError, match=f'"subnet_units": expected at least [12], found {units}'):
        build("pin", subnet_units=units)


@EACH_NORM
def test_in_pin_a_value_counts_alone_where_all_its_partners_are_dropped(norm):
    embeddings = draw()
    embeddings[:, 1:] = 0.0
    backbone = train_like(build("pin", norm=norm))
    assert not backbone.subnets(embeddings).any()
    assert backbone(embeddings).std() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in BACKBONES if kind not in ("lr", "poly2")])
def test_outputs_are_logits_and_leave_the_unit_interval_on_both_sides(kind):
    # Several networks: behind a ReLU one alone may lean to one side.
    logits = torch.cat([train_like(build(kind, seed=seed))(draw(rows=200) * 3) for seed in range(4)])
    assert logits.min() < 0
    assert logits.max() > 1


def _names(source: Path) -> set[str]:
    tree = ast.walk(ast.parse(source.read_text(encoding="utf-8")))
    return {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in tree
        if hasattr(node, "attr") or hasattr(node, "id")
    }


@pytest.mark.parametrize(
    "source", [s for s in SOURCES if s.name != "gates.py"], ids=lambda source: source.stem
)
def test_no_module_but_the_gates_uses_a_sigmoid(source):
    assert not {name for name in _names(source) if "sigmoid" in name.lower()}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_networks_import_nothing_of_the_library_but_errors_and_each_other(source):
    imported = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            imported.add(node.module)
    ours = {name for name in imported if name.split(".")[0] == "ctr"}
    assert all(name == "ctr.errors" or name.startswith("ctr.network.") for name in ours), ours
