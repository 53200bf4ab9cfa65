"""A device without a GPU: what a step asks of one, read off the operators that it runs on tensors without data."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")  # tensors of shapes alone: whoever asks for a number of theirs gets an error
# What makes the host wait for a GPU although it knows of shapes alone.
WAITS = {"_coalesce", "bincount", "equal", "is_same_size", "masked_select", "nonzero", "unique_consecutive"}
# What starts nothing on a device: memory and views of it, and sparse tensors put together or taken apart.
NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "is_coalesced"}
NO_KERNEL |= {"_sparse_coo_tensor_with_dims_and_tensors", "_reshape_alias", "_unsafe_view"}


class DeviceWatch(TorchDispatchMode):
    """Fails where operators read the device's data on the host, mix devices or copy from the host.

    `started` are the operators that start at least one kernel each, in their order. `torch.tensor(..., device=...)`, a
    copy from the host on a GPU, is none here and goes unseen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        if name == "clone" and given[0].is_sparse:
            # That it is watched makes autograd copy a gradient, which it takes as it is otherwise.
            return given[0]
        if name == "add" and given[0].is_sparse:
            return _one_after_the_other(*given)
        here = [tensor for tensor in given if tensor.device == DEVICE]
        assert not here or len(here) == len(given), f"{func}: tensors of the host among those of the device"
        assert not here or name not in WAITS, f"{func}: the host waits"
        found = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.device == DEVICE]
        assert not made or here or not given, f"{func}: copied from the host"
        works = made or (here and func._schema.is_mutable)
        some = any(tensor.numel() for tensor in [*here, *made] if not tensor.is_sparse)
        if works and some and not func.is_view and name not in NO_KERNEL:
            self.started.append(name)
        return found


def _one_after_the_other(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two sparse tensors as it is on a GPU; without data PyTorch forgets how many numbers they hold."""
    indices = torch.cat([one._indices(), other._indices()], 1)
    values = torch.cat([one._values(), other._values()])
    return torch.sparse_coo_tensor(indices, values, one.shape, check_invariants=False, is_coalesced=False)
