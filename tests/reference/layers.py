"""Slow and obvious versions of the network's layers: one row, plain Python numbers, nested loops.

A row's embeddings are F lists of D numbers; a flat input is a list of N numbers; a matrix is a list of rows.
"""

import math

Vector = list[float]
Matrix = list[list[float]]


def dot(left: Vector, right: Vector) -> float:
    """Inner product of two vectors of equal length."""
    return sum(a * b for a, b in zip(left, right, strict=True))


def inner_products(embeddings: Matrix) -> Vector:
    """The inner product of every pair i < j."""
    return [
        dot(embeddings[i], embeddings[j])
        for i in range(len(embeddings))
        for j in range(i + 1, len(embeddings))
    ]


def layer_norm(inputs: Vector, weight: Vector, bias: Vector) -> Vector:
    """(input - mean) / deviation * weight + bias, with PyTorch's 1e-5 beside the variance."""
    mean = sum(inputs) / len(inputs)
    variance = sum((x - mean) ** 2 for x in inputs) / len(inputs)
    return [
        (x - mean) / math.sqrt(variance + 1e-5) * w + b for x, w, b in zip(inputs, weight, bias, strict=True)
    ]


def subnets(
    embeddings: Matrix,
    weights: list[list[Matrix]],
    biases: Matrix,
    norm_weights: Matrix | None = None,
    norm_biases: Matrix | None = None,
) -> Vector:
    """PIN: of every pair i < j ReLU(LayerNorm(W [e_i, e_j, e_i * e_j] + b)), or zeros where e_i or e_j is zeros.

    The weight of a pair is three matrices (D, U), one for each third of its input. Without weights of a layer norm
    there is none.
    """
    found, pair = [], 0
    for i in range(len(embeddings)):
        for j in range(i + 1, len(embeddings)):
            product = [a * b for a, b in zip(embeddings[i], embeddings[j], strict=True)]
            inputs = embeddings[i] + embeddings[j] + product
            rows = [row for third in weights[pair] for row in third]  # (3 D, U)
            units = [
                dot(inputs, [row[unit] for row in rows]) + bias for unit, bias in enumerate(biases[pair])
            ]
            if norm_weights and norm_biases:
                units = layer_norm(units, norm_weights[pair], norm_biases[pair])
            there = any(embeddings[i]) and any(embeddings[j])
            found += [max(0.0, unit) if there else 0.0 for unit in units]
            pair += 1
    return found


def vector_cross(inputs: Vector, weights: Matrix, biases: Vector) -> Vector:
    """x_{l+1} = x_0 * (w_l . x_l + b_l) + x_l, one number b_l per layer."""
    crossed = inputs
    for weight, bias in zip(weights, biases, strict=True):
        factor = dot(weight, crossed) + bias
        crossed = [first * factor + last for first, last in zip(inputs, crossed, strict=True)]
    return crossed


def published_vector_cross(inputs: Vector, weights: Matrix, biases: Matrix) -> Vector:
    """x_{l+1} = x_0 * (w_l . x_l) + b_l + x_l, a vector b_l per layer: equation 3 of the DCN paper."""
    crossed = inputs
    for weight, bias in zip(weights, biases, strict=True):
        factor = dot(weight, crossed)
        crossed = [first * factor + b + last for first, b, last in zip(inputs, bias, crossed, strict=True)]
    return crossed


def matrix_cross(inputs: Vector, weights: list[Matrix], biases: Matrix) -> Vector:
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l."""
    crossed = inputs
    for weight, bias in zip(weights, biases, strict=True):
        product = [dot(row, crossed) + b for row, b in zip(weight, bias, strict=True)]
        crossed = [first * p + last for first, p, last in zip(inputs, product, crossed, strict=True)]
    return crossed


def matrix_product(left: Matrix, right: Matrix) -> Matrix:
    """left (N, R) times right (R, M)."""
    return [[dot(row, [line[m] for line in right]) for m in range(len(right[0]))] for row in left]


def mlp(inputs: Vector, layers: list[tuple[Matrix, Vector]]) -> float:
    """Linear and ReLU for every layer but the last, which is linear and has one row."""
    for weight, bias in layers[:-1]:
        inputs = [max(0.0, dot(row, inputs) + b) for row, b in zip(weight, bias, strict=True)]
    weight, bias = layers[-1]
    return dot(weight[0], inputs) + bias[0]
