import numpy as np
import pytest
import torch

from ctr.jobs.collisions import first_layer_angles
from ctr.network.backbones import BACKBONES
from ctr.network.network import Architecture, build


def network_of(backbone, lookups=1, fields=3, dim=2, **keys):
    shape = Architecture(
        rows=5,
        fields=fields,
        dim=dim,
        backbone=backbone,
        hidden=(2,),
        composition="lookup",
        lookups=lookups,
        **keys,
    )
    torch.manual_seed(0)
    return build(shape), shape


def test_parallel_weights_have_an_angle_of_0_and_orthogonal_ones_of_90_degrees():
    network, shape = network_of("deepfm")
    # Two units, three fields of two numbers each; the second field is read like the first, three times as loud.
    weights = [[1.0, 0.0, 3.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 3.0, -1.0, 0.0]]
    network.backbone.mlp[0].weight.data = torch.tensor(weights)
    angles = first_layer_angles(network, shape)
    assert np.allclose(angles, [[0, 0, 90], [0, 0, 90], [90, 90, 0]], atol=1e-4)


def test_the_sign_of_weights_does_not_matter():
    network, shape = network_of("deepfm", fields=2)
    network.backbone.mlp[0].weight.data = torch.tensor([[1.0, 2.0, -1.0, -2.0], [0.0, 1.0, 0.0, -1.0]])
    assert first_layer_angles(network, shape)[0, 1] == pytest.approx(0.0, abs=1e-4)


def test_each_lookup_fills_a_chunk_of_its_own():
    network, shape = network_of("deepfm", lookups=2, fields=2)
    # Chunks of the first field: e1, e1; of the second: e1, e2. Absolute cosines 1, 0, 1, 0: on average 1/2, 60 degrees.
    network.backbone.mlp[0].weight.data = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert first_layer_angles(network, shape)[0, 1] == pytest.approx(60.0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_has_angles_or_reads_no_field_by_weights_of_its_own(backbone):
    network, shape = network_of(backbone)
    angles = first_layer_angles(network, shape)
    if backbone in ("lr", "poly2", "fm"):
        assert angles is None
        return
    assert angles.shape == (3, 3)
    assert np.allclose(angles, angles.T)
    assert ((angles >= 0) & (angles <= 90)).all()
