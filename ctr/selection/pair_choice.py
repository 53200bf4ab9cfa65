"""How the choices of a pair search as published learn: with the weights, on the same rows, in one backward pass."""

from typing import Any

import torch
from torch import Tensor

from ctr.network.crosses import PairChoice
from ctr.network.embeddings import Inputs
from ctr.network.network import Network
from ctr.training.optimizers import adam, take_up


def choice_of(network: Network) -> PairChoice:
    """The choice in front of a network that is searched."""
    assert network.crosses is not None
    assert network.crosses.choice is not None
    return network.crosses.choice


class ChoiceTraining:
    """Trains the logits of a network's `PairChoice` by Adam: a companion of `ctr.training.fit`.

    Lyu et al., ICDE 2022, section III-D: one level, separate optimizers.

    Args:
        network: whose crosses have a choice.
        learning_rate: of the logits.
        final_temperature: at the last step; it falls geometrically from 1.
        prices: (P,) nats by which memorizing each pair must lower the mean log loss; None asks for nothing.

    NOTE[DIFF] The published loss has no price, so that of two equal choices either may be the larger one.
    """

    def __init__(
        self,
        network: Network,
        *,
        learning_rate: float,
        final_temperature: float,
        prices: Tensor | None = None,
    ) -> None:
        self._choice, self._final = choice_of(network), final_temperature
        self._prices = None if prices is None else prices.to(self._choice.logits)
        self._optimizer = adam([self._choice.logits], learning_rate)

    def before_step(self, inputs: Inputs, labels: Tensor, weights: Tensor | None, progress: float) -> None:
        """Set the temperature."""
        self._choice.temperature.fill_(self._final**progress)

    def after_backward(self) -> None:
        """Move the logits by the gradient of the batch, and of the expected price."""
        if self._prices is not None:
            (self._choice()[:, 0] * self._prices).sum().backward()
        self._optimizer.step()

    def before_look(self) -> dict[str, float]:
        """How many pairs each method has by now, and how sure the choice is."""
        weights = self._choice().detach()
        memorize, factorize, naive = torch.bincount(weights.argmax(1), minlength=3).tolist()
        return {
            "memorize": memorize,
            "factorize": factorize,
            "naive": naive,
            "sure": float(weights.amax(1).mean()),
            "temperature": float(self._choice.temperature),
        }

    def state_dict(self) -> dict[str, Any]:
        """Moments of Adam; the logits are the network's."""
        return {"optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave, also after JSON."""
        take_up(self._optimizer, state["optimizer"])
