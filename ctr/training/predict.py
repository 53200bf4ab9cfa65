"""From rows to probabilities: the one prediction loop."""

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.batches import Batches
from ctr.errors import DataError
from ctr.evaluation.calibration import Calibration, calibrated
from ctr.evaluation.sampling import unsampled
from ctr.network.network import Network
from ctr.training.feeding import Feed, HeldRows


def require_dataset(network: Network, batches: Batches) -> None:
    """Refuse rows whose ids mean other values than those that the network was built on.

    Hashed ids mean the same everywhere.

    Raises:
        DataError: their dataset has another digest.
    """
    digest = batches.layout.digest
    if network.dataset and not batches.layout.hashed and network.dataset != digest:
        raise DataError(
            f"the network was built on the dataset {network.dataset[:12]}, these rows are of {digest[:12]}: its "
            "vocabulary gives the same ids to other values; use the dataset that it was trained on, or train again"
        )


@torch.no_grad()
def predict(network: Network, batches: Batches, held: HeldRows | None = None) -> npt.NDArray[np.float64]:
    """Click probabilities (N,) of all rows, in the order of the part.

    Where the log's negatives were sampled, they are those of the unsampled world (`ctr.evaluation.sampling`).

    Args:
        held: the same rows, where they are on the device already.

    Raises:
        ValueError: the batches are in another order.
    """
    return unsampled(_logits(network, batches, held), batches.part.keep_rate)


@torch.no_grad()
def calibrate(network: Network, batches: Batches) -> Calibration:
    """Set the calibration of a network by rows that it was not trained on, in the order of their part.

    Raises:
        ValueError: the batches are in another order.
    """
    network.slope.fill_(1.0)
    network.intercept.fill_(0.0)
    part = batches.part
    found = calibrated(_logits(network, batches), part.labels, part.weights)
    network.slope.fill_(found.slope)
    network.intercept.fill_(found.intercept)
    return found


def _logits(network: Network, batches: Batches, held: HeldRows | None = None) -> npt.NDArray[np.float64]:
    require_dataset(network, batches)
    if not batches.in_order:
        raise ValueError("predict: expected batches in the order of the part, found another order")
    was_training = network.training
    network.eval()
    logits = [network(batch.inputs) for batch in Feed(batches, network.device, held).epoch()]
    network.train(was_training)
    return torch.cat(logits).cpu().double().numpy() if logits else np.zeros(0)
