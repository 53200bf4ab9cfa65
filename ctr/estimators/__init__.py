"""scikit-learn's door: selectors and a classifier over frames of categories, without one-hot encoding.

`from ctr import OptFSSelector` finds them here, once scikit-learn and PyTorch are there.
"""

from ctr.estimators.classifier import CTRClassifier
from ctr.estimators.selectors import (
    FieldSelector,
    FrequencySelector,
    OptFSSelector,
    OptInterSelector,
    RandomSelector,
    SaliencySelector,
    TrialSelector,
)

__all__ = [
    "CTRClassifier",
    "FieldSelector",
    "FrequencySelector",
    "OptFSSelector",
    "OptInterSelector",
    "RandomSelector",
    "SaliencySelector",
    "TrialSelector",
]
