"""Gates: one factor per feature between embedding and backbone.

Lyu et al., "Optimizing Feature Set for Click-Through Rate Prediction", WWW 2023, section 3.2. Scaling a feature's
embedding by its gate scales every interaction that it takes part in, so one gate serves all backbones.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

START = 0.5  # logit of every gate at the start of the search ("c0" in the paper)
_NOTHING = torch.finfo(torch.float32).eps  # what is smaller vanishes beside 1


def hardened(factors: Tensor) -> Tensor:
    """Factors (...) between 0 and 1, with 0 for those that are next to nothing.

    As a temperature hardens, products with ever smaller factors would end in denormal numbers, over which a processor
    takes some hundred times as long: whole steps took seven times their time.
    """
    return F.threshold(factors, _NOTHING, 0.0)


class SoftGate(nn.Module):
    """`sigmoid(temperature * logit) / sigmoid(START)`: 1 for every feature at the start (paper, equation 7).

    Args:
        rows: rows of the embedding table, the dropped row included.

    `logits` (rows, 1) and the buffer `temperature` are set from outside, by the search; the temperature rises from
    1, and the gate hardens to a step. So is `judge`, which gives the logits (N,) of some rows of `logits` (N,) in steps
    of training, where it is there; `logits` may then be of an earlier step.
    """

    temperature: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        # The search computes its own gradient (see ctr.selection.evidence): autograd has nothing to add here.
        self.logits = nn.Parameter(torch.full((rows, 1), START), requires_grad=False)
        self.register_buffer("temperature", torch.ones(()))
        self.judge: Callable[[Tensor], Tensor] | None = None

    def gates(self, ids: Tensor) -> Tensor:
        """(...) rows of the table -> (...) rows of `logits`: here the same."""
        return ids

    def forward(self, ids: Tensor) -> Tensor:
        """(...) rows of the table -> (..., 1) factors."""
        rows = self.gates(ids)
        if self.judge is not None and torch.is_grad_enabled():
            logits = self.judge(rows.flatten()).view(*rows.shape, 1)
        else:
            logits = F.embedding(rows, self.logits)
        return hardened(torch.sigmoid(self.temperature * logits)) * (1.0 + math.exp(-START))


class FieldGate(SoftGate):
    """A `SoftGate` with one logit for all features of a field.

    Args:
        fields: (rows,) by row of the embedding table the row of `logits` that its gate is; 0 for the dropped row.
    """

    fields: Tensor

    def __init__(self, fields: Tensor) -> None:
        super().__init__(int(fields.max()) + 1)
        self.register_buffer("fields", fields)

    def gates(self, ids: Tensor) -> Tensor:
        """(...) rows of the table -> (...) rows of `logits`."""
        return self.fields[ids]


class HardGate(nn.Module):
    """1 for kept features, 0 for dropped ones.

    Args:
        kept: (rows,) bool, by row of the embedding table.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.to(torch.float32).unsqueeze(1))  # (rows, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """(...) rows of the table -> (..., 1) factors."""
        return F.embedding(ids, self.kept)
