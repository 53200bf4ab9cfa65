"""What storing a model's weights in fewer bits costs it, told on valid, before the test rows are read."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ctr.config import Export
from ctr.dataset.store import Part
from ctr.errors import CtrError
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model

_HALF = 0.001  # the most that float16 may change a probability by: int8 is for those who can bear more


def rounding(model: Model, valid: Part, device: torch.device) -> dict[str, float] | None:
    """AUC on valid with rounded weights and without, and the largest change of a probability; None in float32."""
    if model.dtype == "float32":
        return None
    exact = replace(model, dtype="float32").predict(valid, device)
    found = model.predict(valid, device)
    return {
        "auc": measure(valid.labels, found, valid.weights).auc,
        "float32_auc": measure(valid.labels, exact, valid.weights).auc,
        "largest_change": float(np.abs(found - exact).max(initial=0.0)),
    }


def require_small(found: Mapping[str, float] | None, settings: Export) -> None:
    """Refuse a rounding that costs more than the configuration allows.

    Raises:
        CtrError: the AUC falls, or a probability changes, by more.
    """
    if found is None:
        return
    lost = found["float32_auc"] - found["auc"]
    advice = f'use a larger export.dtype than "{settings.dtype}", or allow more'
    if lost > settings.max_auc_loss:
        raise CtrError(
            f'export.dtype = "{settings.dtype}" lowers AUC on valid by {lost:.6f}, from {found["float32_auc"]:.6f} to '
            f"{found['auc']:.6f}; export.max_auc_loss allows {settings.max_auc_loss:g}; {advice}"
        )
    if settings.dtype == "float16" and settings.max_probability_change > _HALF < found["largest_change"]:
        raise CtrError(
            f'export.dtype = "float16" changes a probability on valid by {found["largest_change"]:.6f}, more than '
            f'{_HALF:g}; use export.dtype = "float32"'
        )
    if found["largest_change"] > settings.max_probability_change:
        raise CtrError(
            f'export.dtype = "{settings.dtype}" changes a probability on valid by {found["largest_change"]:.6f}; '
            f"export.max_probability_change allows {settings.max_probability_change:g}; {advice}"
        )
