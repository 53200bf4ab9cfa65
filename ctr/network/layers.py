"""Layers that the backbones share.

Shapes: B rows, F fields, P = F (F - 1) / 2 pairs, D width, N = numbers that a layer reads of each row, U = units of a
sub-net.

Every layer that reads a flat input (B, N) declares `input_axes`: parameter name -> the axes of it that run
over N. From that alone `Backbone.keep_fields` cuts a layer down to fewer inputs. So in every layer an input
that is zero must act as one that is not there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Literal["none", "batch", "layer"]


class Given(NamedTuple):
    """Some of the numbers that a layer reads: numbers (B, n), at the positions here (n,) of its size N.

    The others are zero, and cost nothing.
    """

    numbers: Tensor
    here: Tensor
    size: int


class Linear(nn.Linear):
    """(B, N) -> (B, out_features), with Xavier-uniform weights and zero biases at the start."""

    input_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {"weight": (1,)}

    def reset_parameters(self) -> None:
        """Draw fresh weights."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class BatchNorm(nn.BatchNorm1d):
    """Batch norm that uses its running statistics for fewer than two training rows: they have no variance."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        if self.training and len(input) >= 2:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class MLP(nn.Sequential):
    """Per hidden layer Linear, norm, ReLU, dropout; then a Linear to one number. (B, N) -> (B,).

    Args:
        size: N.
        hidden: units of the hidden layers; none of them leaves a linear layer.
        dropout: share of units set to zero in training.
        norm: normalisation between Linear and ReLU.

    Weights start Xavier-uniform, biases at zero. The first Linear is always named "0".
    """

    input_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {"0.weight": (1,)}

    def __init__(
        self, size: int, hidden: Sequence[int] = (), dropout: float = 0.0, norm: Norm = "none"
    ) -> None:
        steps: list[nn.Module] = []
        for units in hidden:
            steps.append(Linear(size, units, bias=norm != "batch"))  # batch norm subtracts any bias again
            if norm != "none":
                steps.append(BatchNorm(units) if norm == "batch" else nn.LayerNorm(units))
            steps.append(nn.ReLU(inplace=True))  # nobody reads what comes before: one array less to fill
            if dropout:
                steps.append(nn.Dropout(dropout))
            size = units
        super().__init__(*steps, Linear(size, 1))

    def forward(self, input: Tensor | Given) -> Tensor:
        """(B, N) -> (B,)."""
        first, *others = self
        if isinstance(input, Given):
            assert isinstance(first, Linear)
            output = F.linear(input.numbers, first.weight.index_select(1, input.here), first.bias)
        else:
            output = first(input)
        for step in others:
            output = step(output)  # (B, units), in the end (B, 1)
        return output.squeeze(1)


def side_by_side(*inputs: Tensor | Given | None) -> Tensor | Given:
    """The flat inputs that there are, (B, N1), (B, N2), ... -> (B, N1 + N2 + ...)."""
    there = [input for input in inputs if input is not None]
    if len(there) == 1:
        return there[0]
    numbers = torch.cat([input.numbers if isinstance(input, Given) else input for input in there], dim=1)
    if not any(isinstance(input, Given) for input in there):
        return numbers
    here, size = list[Tensor](), 0
    for input in there:
        if isinstance(input, Given):
            here.append(input.here + size)
            size += input.size
        else:
            here.append(torch.arange(size, size + input.shape[1], device=input.device))
            size += input.shape[1]
    return Given(numbers, torch.cat(here), size)


class InnerProductSum(torch.autograd.Function):
    """`inner_product_sum`, whose gradient is made in two passes over the embeddings instead of seven."""

    @staticmethod
    def forward(embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D) -> (B,) and the sum over fields (B, D), which only the gradient needs."""
        flat, total = embeddings.flatten(1), embeddings.sum(1)  # (B, F * D), (B, D)
        return (torch.linalg.vecdot(total, total) - torch.linalg.vecdot(flat, flat)) / 2, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        """What `backward` needs."""
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Tensor:
        """(B,) -> (B, F, D): of each vector the sum of all others."""
        embeddings, total = ctx.saved_tensors
        others: Tensor = total.unsqueeze(1) - embeddings
        return others.mul_(gradient.view(-1, 1, 1))


def inner_product_sum(embeddings: Tensor) -> Tensor:
    """Sum of the inner products of all pairs. (B, F, D) -> (B,), in O(F D) per row.

    The square of the sum less the sum of squares, halved (Rendle, "Factorization Machines", ICDM 2010).
    """
    products: Tensor = InnerProductSum.apply(embeddings)[0]  # type: ignore[no-untyped-call]
    return products


class InnerProducts(nn.Module):
    """The inner product of every pair, ordered (0, 1), (0, 2), ..., (F - 2, F - 1). (B, F, D) -> (B, P).

    Read off the F x F products of each row, so that nothing of shape (B, P, D) is ever made.
    """

    positions: Tensor

    def __init__(self, fields: int) -> None:
        super().__init__()
        first, second = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("positions", first * fields + second, persistent=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, P)."""
        products = embeddings @ embeddings.transpose(1, 2)  # (B, F, F)
        return products.flatten(1).index_select(1, self.positions)  # (B, P)


class SubNets(nn.Module):
    """A small network of its own for every pair i < j, in the order of `InnerProducts`. (B, F, D) -> (B, P * U).

        ReLU(LayerNorm(W_ij [e_i, e_j, e_i * e_j] + b_ij))      0 where e_i or e_j is all zeros

    Source: Qu et al., "Product-based Neural Networks for User Response Prediction over Multi-field Categorical
    Data", TOIS 2018: the sub-nets of PIN.

    NOTE[DIFF] Biases and layer norm would let a pair speak whose fields have nothing to say. So a pair is there only
    where both of its embeddings are: if all numbers of one are zero - a dropped value, a closed gate, an empty list -
    its sub-net gives zeros and gets no gradient. Where no embedding is zero, nothing differs from the paper.

    The triples are never built: W_ij is applied to each third of them by itself. The pairs that start with one field
    read slices of the embeddings, not copies, so that the products are all that is made of shape (P, B, D).

    Args:
        fields: F.
        width: D.
        units: U.
        layer_norm: whether there is one, over the units of each sub-net; then U is at least 2.

    Weights start Xavier-uniform, each sub-net for itself; biases at zero. What `input_axes` counts are pairs.
    """

    input_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "weight": (0,),
        "bias": (0,),
        "norm_weight": (0,),
        "norm_bias": (0,),
    }

    def __init__(self, fields: int, width: int, units: int, layer_norm: bool) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.later = [fields - 1 - first for first in range(fields)]  # fields behind each: its pairs
        pairs = sum(self.later)
        bound = math.sqrt(6 / (3 * width + units))
        self.weight = nn.Parameter(torch.empty(pairs, 3, width, units).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(pairs, units))
        if layer_norm:
            self.norm_weight = nn.Parameter(torch.ones(pairs, units))
            self.norm_bias = nn.Parameter(torch.zeros(pairs, units))

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> (B, P * U)."""
        by_field = embeddings.transpose(0, 1).contiguous()  # (F, B, D)
        there = by_field.ne(0).any(2)  # (F, B)
        hidden, absent = [], []
        weights, biases = torch.split(self.weight, self.later), torch.split(self.bias, self.later)
        for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            second = by_field[place + 1 :]  # (R, B, D): R pairs start with this field
            first = by_field[place].expand_as(second)
            part = torch.baddbmm(bias.unsqueeze(1), first, weight[:, 0])  # (R, B, U)
            part = torch.baddbmm(part, second, weight[:, 1])
            hidden.append(torch.baddbmm(part, first * second, weight[:, 2]))
            absent.append(~(there[place] & there[place + 1 :]))  # (R, B)
        units = torch.cat(hidden)  # (P, B, U)
        if self.layer_norm:
            normal = F.layer_norm(units, self.bias.shape[1:])
            units = torch.addcmul(self.norm_bias.unsqueeze(1), normal, self.norm_weight.unsqueeze(1))
        units = units.relu().masked_fill(torch.cat(absent).unsqueeze(2), 0.0)
        return units.transpose(0, 1).flatten(1)  # (B, P * U)


class VectorCross(nn.Module):
    """Cross network with one weight vector per layer. (B, N) -> (B, N).

        x_{l+1} = x_0 * (w_l . x_l + b_l) + x_l

    NOTE[DIFF]: the paper (Wang et al., "Deep & Cross Network", ADKDD 2017, equation 3) adds a bias vector
    (N,) outside the brackets. There x_l = a_l x_0 + c_l, where a_l is a number and c_l the sum of the biases
    below layer l, a constant. It acts as w_l . c_l in the next layer and as a constant on what follows the
    last one. So one number b_l = w_l . c_l per layer, and the bias of the layer that follows, give the same
    functions. In this form an input of zero leaves nothing behind, and can be cut out exactly.

    As x_l = a_l x_0, with a_0 = 1 and a_{l+1} = a_l (1 + w_l . x_0) + b_l, one product with x_0 serves all
    layers.

    Args:
        size: N.
        layers: number of layers.

    Weights start Xavier-uniform, each layer as a map from N to 1; biases at zero.
    """

    input_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {"weight": (1,)}

    def __init__(self, size: int, layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_xavier(layers, 1, size).squeeze(1))
        self.bias = nn.Parameter(torch.zeros(layers))

    def forward(self, input: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        factors = 1 + F.linear(input, self.weight)  # (B, layers)
        scale = factors[:, 0] + self.bias[0]  # (B,)
        for factor, bias in zip(factors.unbind(1)[1:], self.bias[1:], strict=True):
            scale = scale * factor + bias  # (B,)
        return scale.unsqueeze(1) * input  # (B, N)


class MatrixCross(nn.Module):
    """Cross network with one weight matrix per layer. (B, N) -> (B, N).

        x_{l+1} = x_0 * (W_l x_l + b_l) + x_l                W_l = U_l V_l of the given rank, or full

    Source: Wang et al., "DCN V2", WWW 2021, equations 1 and 2.

    Args:
        size: N.
        layers: number of layers.
        rank: R, columns of U_l and rows of V_l; None for full matrices.

    Weights start Xavier-uniform, each matrix for itself; biases at zero.
    """

    input_axes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "weight": (1, 2),
        "down": (2,),
        "up": (1,),
        "bias": (1,),
    }

    def __init__(self, size: int, layers: int, rank: int | None = None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(layers, size))
        if rank is None:
            self.weight: nn.Parameter | None = nn.Parameter(_xavier(layers, size, size))
        else:
            self.weight = None
            self.down = nn.Parameter(_xavier(layers, rank, size))  # V
            self.up = nn.Parameter(_xavier(layers, size, rank))  # U

    def forward(self, input: Tensor) -> Tensor:
        """(B, N) -> (B, N)."""
        crossed = input
        for layer, bias in enumerate(self.bias):
            if self.weight is not None:
                product = F.linear(crossed, self.weight[layer], bias)  # (B, N)
            else:
                product = F.linear(
                    F.linear(crossed, self.down[layer]), self.up[layer], bias
                )  # (B, R), (B, N)
            crossed = torch.addcmul(crossed, input, product)  # (B, N)
        return crossed


def _xavier(layers: int, rows: int, columns: int) -> Tensor:
    stack = torch.empty(layers, rows, columns)
    for matrix in stack:
        nn.init.xavier_uniform_(matrix)
    return stack
