"""Optimizers whose step costs what the batch holds, never what the vocabulary holds."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import Adam
from torch.optim.adam import adam as adam_step
from torch.optim.optimizer import Optimizer
from torch.utils.hooks import RemovableHandle

from ctr.network.embeddings import Table
from ctr.network.network import Network

_STRETCH = 1 << 20  # rows
_NOTHING = 1e-30  # a mean of gradients that moves no weight


class LazyAdam(Optimizer):
    """Adam (Kingma & Ba, 2015) on the rows of a table that a batch reads; all other rows are left untouched.

    Args:
        parameters: tables, (rows, W), with sparse gradients.
        learning_rate: largest move of one float in one step, about.
        weight_decay: decoupled decay (Loshchilov & Hutter, 2019) per step.

    NOTE[DIFF] Two departures from dense Adam. Moments of a row stand still while no batch reads it (as in PyTorch's
    SparseAdam). Decay is not part of the gradient, where Adam would rescale it until its size means nothing; it
    shrinks a row by `(1 - learning_rate * weight_decay) ** steps since the row was read last`, applied by `catch_up`
    when it is about to be read next, so that every step sees what a decay of all rows in every step would have left,
    without a pass over the table. `settle` brings all rows up to date, before any evaluation.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, {"lr": learning_rate, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        self._seats: dict[nn.Parameter, Tensor] = {}  # (rows,), what `shared` writes on

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the rows that hold a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, self._state(parameter))

    def _state(self, parameter: nn.Parameter) -> dict[str, Any]:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            state["read"] = torch.zeros(len(parameter), dtype=torch.int64, device=parameter.device)
        return state

    def _update(self, parameter: nn.Parameter, group: dict[str, Any], state: dict[str, Any]) -> None:
        assert parameter.grad is not None
        # To tell rows apart is to learn their number, for which the host has to wait.
        twice = on_gpu(parameter)
        rows, values = shared(parameter.grad, self._own_seats(parameter)) if twice else merged(parameter.grad)
        if not len(rows):
            return
        state["step"] += 1
        step = state["step"]
        weights, mean, square = (
            whole.index_select(0, rows) for whole in (parameter, state["mean"], state["square"])
        )
        if group["weight_decay"]:
            missed = step - state["read"].index_select(0, rows)  # (U,)
            state["read"].index_fill_(0, rows, step)
            weights.addcmul_(weights, _shrinkage(group, missed, values.dtype))
        first, second = group["betas"]
        adam_step(  # in one pass; it counts the step itself
            [weights],
            [values],
            [mean],
            [square],
            [],
            [torch.full((), step - 1.0, device=parameter.device)],
            fused=True,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
        if not twice:
            # Behind a gate that is shut no gradient comes. A mean that only shrinks would end among denormal numbers,
            # over which Adam takes twenty times as long.
            mean = F.hardshrink(mean, _NOTHING)
        # A row that comes twice is written twice, the same both times.
        for whole, part in ((parameter, weights), (state["mean"], mean), (state["square"], square)):
            whole.index_copy_(0, rows, part)

    def _own_seats(self, parameter: nn.Parameter) -> Tensor:
        if parameter not in self._seats:
            self._seats[parameter] = torch.empty(len(parameter), dtype=torch.int32, device=parameter.device)
        return self._seats[parameter]

    @torch.no_grad()
    def catch_up(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Apply the decay that some rows (...) of a table owe for the steps that did not read them."""
        state = self.state[parameter]
        if not state:
            return
        rows, step = rows.flatten(), state["step"]
        missed = step - state["read"].index_select(0, rows)  # (N,)
        if not on_gpu(parameter):
            late = missed > 0
            rows, missed = rows[late], missed[late]
        found = parameter.index_select(0, rows)  # (N, W)
        found.addcmul_(found, _shrinkage(self.param_groups[0], missed, found.dtype))
        # A row that comes twice is written twice, the same both times.
        parameter.index_copy_(0, rows, found)
        state["read"].index_fill_(0, rows, step)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave. PyTorch turns all tensors into floats, which cannot count steps."""
        super().load_state_dict(state_dict)
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, saved in state_dict["state"].items():
            parameter = parameters[number]
            self.state[parameter]["step"] = int(saved["step"])
            self.state[parameter]["read"] = saved["read"].to(parameter.device, torch.int64)

    @torch.no_grad()
    def settle(self) -> None:
        """Apply the decay that unread rows still owe, all at once."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if group["weight_decay"] and state:
                    # Stretch by stretch, or what is computed on the way would be as large as a moment.
                    stretches = zip(parameter.split(_STRETCH), state["read"].split(_STRETCH), strict=True)
                    for rows, read in stretches:
                        missed = state["step"] - read  # (rows,)
                        rows.addcmul_(rows, _shrinkage(group, missed, rows.dtype))
                        read.fill_(state["step"])


def on_gpu(parameter: Tensor) -> bool:
    """Whether the host should neither wait for what a step computes nor start more kernels than it must."""
    return parameter.device.type != "cpu"


def merged(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that a sparse gradient (rows, W) holds, ascending, and what it adds up to there: (U,), (U, W)."""
    if gradient.is_coalesced():
        return gradient.indices()[0], gradient.values()
    # PyTorch coalesces row by row, on one core. Whole numbers are sorted by their digits, 32 bits in half the time of
    # 64; and the sum of bags is the one that reads rows in any order, on all cores.
    rows = gradient._indices()[0]
    narrow = len(gradient) <= torch.iinfo(torch.int32).max
    rows, order = (rows.to(torch.int32) if narrow else rows).sort(stable=True)
    first = torch.ones_like(rows, dtype=torch.bool)
    first[1:] = rows[1:] != rows[:-1]
    starts = first.nonzero().squeeze(1)
    return rows.index_select(0, starts).long(), F.embedding_bag(order, gradient._values(), starts, mode="sum")


def shared(gradient: Tensor, seats: Tensor) -> tuple[Tensor, Tensor]:
    """The rows (N,) that a sparse gradient (rows, W) holds, as often as it does, each with its whole sum: (N, W).

    How many they are is known without looking, and nothing is sorted.

    Args:
        seats: (rows,) int32, written on where rows are read. Of a row that comes twice either place will do: whichever
            was written last is where all of it adds up.
    """
    rows, values = gradient._indices()[0], gradient._values()
    places = torch.arange(len(rows), dtype=torch.int32, device=rows.device)
    place = seats.index_copy_(0, rows, places).index_select(0, rows)  # (N,)
    return rows, torch.zeros_like(values).index_add_(0, place, values).index_select(0, place)


def _shrinkage(group: dict[str, Any], missed: Tensor, dtype: torch.dtype) -> Tensor:
    """`(1 - learning_rate * weight_decay) ** missed - 1`, exact where float32 would round the bracket to 1. (U, 1)."""
    return torch.expm1(missed.to(dtype).unsqueeze(1) * math.log1p(-group["lr"] * group["weight_decay"]))


class Optimizers:
    """All that moves the weights of a network: `LazyAdam` for tables, Adam for dense weights.

    Gates, and the choices of pairs, are not theirs: a search moves those. Where tables decay, rows catch up as they are
    read in training, and all of them when somebody asks for the network's state; until `detach`.

    Args:
        network: whose weights are trained.
        learning_rate: of both.
        weight_decay: of tables, decoupled. network_weight_decay: of dense weights, L2.
    """

    def __init__(
        self, network: Network, learning_rate: float, weight_decay: float, network_weight_decay: float
    ) -> None:
        tables = table_parameters(network)
        dense = dense_parameters(network, [*tables, *searched_parameters(network)])
        self._tables = LazyAdam(tables, learning_rate, weight_decay=weight_decay)
        self._each: dict[str, Optimizer] = {"tables": self._tables}
        # A table alone (logistic regression without bias) leaves nothing dense to train.
        if dense:
            self._each["dense"] = adam(dense, learning_rate, network_weight_decay)
        self._hooks: list[RemovableHandle] = []
        if weight_decay:
            hook = network.register_state_dict_pre_hook(lambda *_: self.settle())  # type: ignore[no-untyped-call]
            self._hooks.append(hook)
            self._hooks += [
                module.asked.register_forward_hook(partial(self._read, module.weight))
                for module in network.modules()
                if isinstance(module, Table)
            ]

    def _read(self, table: nn.Parameter, module: nn.Module, arguments: tuple[Any, ...], rows: Tensor) -> None:
        if torch.is_grad_enabled():  # otherwise they are settled
            self._tables.catch_up(table, rows)

    def detach(self) -> None:
        """Training is over: take the hooks off the network, and let go of the moments."""
        for hook in self._hooks:
            hook.remove()
        for optimizer in self._each.values():
            optimizer.state.clear()

    @property
    def learning_rate(self) -> float:
        """The current one, of all weights."""
        return float(self._tables.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if rate != self.learning_rate:
            self.settle()  # what rows owe until now is of the old rate
        for optimizer in self._each.values():
            for group in optimizer.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        """Move all weights that have a gradient."""
        for optimizer in self._each.values():
            optimizer.step()

    def settle(self) -> None:
        """Bring table rows up to date that no batch has read for a while."""
        self._tables.settle()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {name: optimizer.state_dict() for name, optimizer in self._each.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave, also after JSON turned the parameters' numbers into text."""
        for name, optimizer in self._each.items():
            take_up(optimizer, state[name])


def adam(parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> Adam:
    """Adam of dense weights: all floats of one move in one pass, and on a GPU steps are counted there."""
    return Adam(parameters, learning_rate, weight_decay=weight_decay, fused=True)


def take_up(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimizer the state of one like it, on whatever device that ran, also after JSON.

    JSON turns the parameters' numbers into text.
    """
    values = {int(key): value for key, value in state["state"].items()}
    optimizer.load_state_dict({**state, "state": values})


def searched_parameters(network: Network) -> list[nn.Parameter]:
    """What a search moves: gates of features, and logits of the choice of each pair."""
    choice = None if network.crosses is None else network.crosses.choice
    return [parameter for module in (network.gate, choice) if module for parameter in module.parameters()]


def state_bytes(network: Network) -> int:
    """Bytes that a training puts beside tables: two moments of each float, steps, seats."""
    return sum(2 * table.nbytes + (8 + 4) * len(table) for table in table_parameters(network))


def table_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Every parameter that gets sparse gradients for its weights."""
    return [module.weight for module in network.modules() if isinstance(module, Table)]


def dense_parameters(network: nn.Module, sparse: Iterable[Tensor]) -> list[nn.Parameter]:
    """All other parameters."""
    known = {id(parameter) for parameter in sparse}
    return [parameter for parameter in network.parameters() if id(parameter) not in known]
