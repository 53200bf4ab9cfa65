"""What each pair saves, memorized or factorized, on rows that the weights never saw.

Search: in each step every pair is memorized or factorized, drawn anew, so that both ways learn to carry the whole of
a pair, and neither starves because the other was faster. (Or naive, where there are many: such a pair costs nothing in
that step.)
Afterwards one pass over held-out rows asks, for each pair and each way alone, what it would cost to be without it: the
test of `ctr.selection.evidence`, with the vector of a pair in the place of an embedding. With c what the pair adds to
the logit when its weight is 1, p the probability, y the label,

    S = sum of (p - y) c       H = sum of p (1 - p) c^2       evidence = max(0, -S_0)^2 / (2 H)      nats

where S_0 is the slope at weight 0, the other way left out too: S_0 = S less what the weights at which S was taken add
to it, H included. An empty pair has 2 * evidence of about chi-squared with one degree of freedom, whatever it fitted on
the rows of its weights.

NOTE[DIFF] Lyu et al. (2022) train logits by Adam on the train rows (`ctr.selection.pair_choice`). There memorizing
fits the very rows that judge it; on held-out rows the gradient of a weight still vanishes once weights have converged,
since a smaller weight and a larger vector cancel, and a price on a weight is worn down the same way. Both were tried:
see docs.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ctr.dataset.batches import Batches
from ctr.network.embeddings import Inputs
from ctr.network.network import Network
from ctr.selection.pair_choice import choice_of
from ctr.training.feeding import sent, to_inputs


class DrawnPaths:
    """Draws a method for each pair before each step: a companion of `ctr.training.fit`.

    Args:
        network: whose crosses have a choice; its logits are set, not learned.
        seed: of the draws; each step has its own, so that an interrupted search goes on alike.
        naive: whether that is drawn as well. It makes a step cheaper, and what is learned in it less.
    """

    def __init__(self, network: Network, seed: int, *, naive: bool = False) -> None:
        self._choice, self._seed, self._step = choice_of(network), seed, 0
        self._ways = 3 if naive else 2
        self._choice.logits.requires_grad_(False)  # they stay equal: a look sees what is drawn on average
        self._choice.logits.data[:, self._ways :] = -torch.inf

    def before_step(self, inputs: Inputs, labels: Tensor, weights: Tensor | None, progress: float) -> None:
        """Draw."""
        logits = self._choice.logits
        generator = torch.Generator().manual_seed(self._seed + 1_000_003 * self._step)
        methods = torch.randint(self._ways, (len(logits),), generator=generator)  # (P,)
        # Counted here, where nobody has to wait for a GPU.
        memorized, factorized = (sent((methods == way).nonzero().squeeze(1), logits.device) for way in (0, 1))
        self._choice.drawn = memorized, factorized
        self._step += 1

    def after_backward(self) -> None:
        """The draw has served."""
        self._choice.drawn = None

    def before_look(self) -> dict[str, float]:
        """Nothing is learned here."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The clock."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._step = state["step"]


def pair_evidence(network: Network, batches: Batches) -> Tensor:
    """(P, 2) nats that memorizing alone and factorizing alone save on the given rows.

    Args:
        network: trained on other rows; its methods have the weight that they were drawn with.
    """
    crosses = network.crosses
    assert crosses is not None
    vectors: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        vectors.append(output.detach().requires_grad_())
        return vectors[-1]

    hook = crosses.register_forward_hook(keep)
    was_training = network.training
    network.eval()
    pairs = len(crosses.layout.memorized)
    slope = torch.zeros(pairs, 2, dtype=torch.float64)
    products = torch.zeros(pairs, 2, 2, dtype=torch.float64)
    for batch in batches.epoch():
        inputs, labels = to_inputs(batch, network.device), torch.from_numpy(batch.labels)
        logits = network(inputs)
        (gradient,) = torch.autograd.grad(logits.sum(), [vectors.pop()])
        with torch.no_grad():
            gradient = gradient.view(len(labels), pairs, -1)  # (B, P, d)
            # What all rows have in common is no reason to tell them apart: the bias takes it over.
            parts = [part - part.mean(0) for part in crosses.parts(inputs)]
            adds = torch.stack([torch.linalg.vecdot(gradient, part) for part in parts], 2)  # (B, P, 2)
            chance = torch.sigmoid(logits).cpu()
            residual, weight = chance - labels, chance * (1.0 - chance)
            if batch.weights is not None:
                residual, weight = (value * torch.from_numpy(batch.weights) for value in (residual, weight))
            adds = adds.cpu()
            slope += torch.einsum("b,bpk->pk", residual, adds)
            products += torch.einsum("b,bpk,bpl->pkl", weight, adds, adds)
    hook.remove()
    network.train(was_training)
    weights = choice_of(network)().detach().cpu().double()[:, :2]  # (P, 2)
    at_zero = slope - torch.einsum("pkl,pl->pk", products, weights)
    curvature = products.diagonal(dim1=1, dim2=2)  # (P, 2)
    return (-at_zero).clamp(min=0.0).square() / (2.0 * curvature).clamp(min=1e-30)
