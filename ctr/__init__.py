"""Feature selection and compact serving models for click-through-rate prediction."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctr.estimators import (
        CTRClassifier,
        FieldSelector,
        FrequencySelector,
        OptFSSelector,
        OptInterSelector,
        RandomSelector,
        SaliencySelector,
        TrialSelector,
    )

__version__ = "0.1.0"

__all__ = [
    "CTRClassifier",
    "FieldSelector",
    "FrequencySelector",
    "OptFSSelector",
    "OptInterSelector",
    "RandomSelector",
    "SaliencySelector",
    "TrialSelector",
    "__version__",
]
# scikit-learn's door. Its names are found when they are asked for: they need PyTorch, which the command line does not.
_ESTIMATORS = frozenset(__all__) - {"__version__"}


def __getattr__(name: str) -> Any:
    if name not in _ESTIMATORS:
        raise AttributeError(f'module "ctr" has no attribute "{name}"')
    try:
        return getattr(import_module("ctr.estimators"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("sklearn", "torch"):
            raise
        raise ImportError(
            f'ctr.{name} needs {error.name}, which is not installed: pip install "ctr[train]"',
            name=error.name,
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_ESTIMATORS})
