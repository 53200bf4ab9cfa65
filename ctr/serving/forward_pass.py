"""What a bundle scores encoded rows with: a graph in ONNX Runtime, or, before bundles had one, PyTorch."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ctr.dataset.crosses import CrossKeys
from ctr.errors import ConfigError
from ctr.serving.bundle import Bundle
from ctr.serving.manifest import broken, first_line
from ctr.serving.rows import EncodedRows


class ForwardPass(Protocol):
    """Click probabilities (B,) of encoded rows."""

    def __call__(self, rows: EncodedRows) -> npt.NDArray[np.float64]:
        """Of rows, as a network reads them."""


def forward_pass(
    bundle: Bundle,
    weights: Mapping[str, npt.NDArray[Any]],
    crosses: CrossKeys | None,
    threads: int | None = None,
) -> ForwardPass:
    """Click probabilities (B,) of the arrays that a network reads.

    Args:
        weights, crosses: what the bundle's methods of these names returned.
        threads: for one operator; None for as many as the machine has cores. PyTorch has its own for all networks.

    Raises:
        ConfigError: what it needs is not installed.
        DataError: network and weights do not fit, or are none that a bundle can hold.
    """
    manifest = bundle.manifest
    needed = "torch" if manifest.network is None else "onnxruntime"
    if find_spec(needed) is None:
        extra = {"torch": "train", "onnxruntime": "serve"}[needed]
        raise ConfigError(
            f'bundle "{bundle.folder}": scoring it needs {needed}, which is not installed; pip install "ctr[{extra}]"'
        )
    try:
        if manifest.network is not None:
            from ctr.serving.session import Session

            # What a graph may take follows from the fields that there are, not from what is said of them.
            said = {**manifest.architecture, "fields": len(manifest.fields)}
            return Session(bundle.folder, weights, said, manifest.network.inputs, crosses, threads)
        from ctr.serving.forward import Forward

        stated = manifest.architecture.get("fields")
        if stated != len(manifest.fields):
            raise ValueError(f"fields: expected {len(manifest.fields)} as there are, found {stated}")
        rate = manifest.sampling.negative_keep_rate if manifest.sampling else 1.0
        return Forward(manifest.architecture, weights, rate, crosses)
    except (KeyError, TypeError, ValueError) as error:
        found = first_line(error)
        raise broken(bundle.folder, f"architecture and weights do not fit: {found}") from None
