"""Backbones by name. A new one is one class and one line here."""

from ctr.network.backbones.backbone import Backbone
from ctr.network.backbones.dcn import DCN
from ctr.network.backbones.dcnv2 import DCNv2
from ctr.network.backbones.deepfm import DeepFM
from ctr.network.backbones.fm import FM
from ctr.network.backbones.fnn import FNN
from ctr.network.backbones.ipnn import IPNN
from ctr.network.backbones.lr import LR
from ctr.network.backbones.pin import PIN
from ctr.network.backbones.poly2 import Poly2

BACKBONES: dict[str, type[Backbone]] = {
    "lr": LR,
    "poly2": Poly2,
    "fm": FM,
    "fnn": FNN,
    "ipnn": IPNN,
    "pin": PIN,
    "deepfm": DeepFM,
    "dcn": DCN,
    "dcnv2": DCNv2,
}

__all__ = ["BACKBONES", "Backbone"]
