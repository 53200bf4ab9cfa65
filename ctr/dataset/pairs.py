"""Pairs of fields: which there are, and which of them a configuration means."""

from collections.abc import Sequence
from itertools import combinations

from ctr.dataset.field_spec import FieldSpec
from ctr.errors import ConfigError, nearest

PairNames = tuple[str, str]


def chosen_pairs(specs: Sequence[FieldSpec], stated: Sequence[Sequence[str]] | None) -> list[PairNames]:
    """The pairs i < j, in schema order.

    Args:
        specs: the fields of a schema.
        stated: `selector.pairs`; None means all pairs of the fields that crosses can be made of: each row has one value
            of such a field, out of a vocabulary. So lists, vectors and scaled numbers are none, nor are bias fields,
            which have no value of their own at scoring.

    Raises:
        ConfigError: fewer than two fields can take part; a stated pair does not name two fields that can; or a pair is
            named twice. All mistakes are in one message.
    """
    usable = [spec.name for spec in specs if _refusal(spec) is None]
    if stated is None:
        if len(usable) < 2:
            raise ConfigError(
                f"selector: pairs need at least two fields that can take part, found {len(usable)} of {len(specs)} "
                f"({', '.join(usable) or 'none'}); lists, vectors, scaled numbers and bias fields cannot"
            )
        return list(combinations(usable, 2))
    order = {spec.name: number for number, spec in enumerate(specs)}
    found: dict[PairNames, None] = {}
    mistakes = []
    for names in stated:
        mistake = _mistake(names, specs)
        if mistake is None:
            a, b = sorted(names, key=order.__getitem__)
            mistake = f'"{a}" and "{b}" are named twice' if (a, b) in found else None
            found[a, b] = None
        if mistake:
            shown = ", ".join(f'"{name}"' for name in names)
            mistakes.append(f"selector.pairs: [{shown}]: {mistake}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return sorted(found, key=lambda pair: (order[pair[0]], order[pair[1]]))


def _mistake(names: Sequence[str], specs: Sequence[FieldSpec]) -> str | None:
    """What is wrong with a stated pair."""
    known = {spec.name: spec for spec in specs}
    if len(names) != 2:
        return f"expected two names, found {len(names)}"
    for name in names:
        if name not in known:
            return f'no field "{name}"{nearest(name, known)}'
        if refusal := _refusal(known[name]):
            return f'"{name}" is {refusal}; leave it out of selector.pairs'
    if names[0] == names[1]:
        return f'"{names[0]}" is named twice, a pair needs two fields'
    return None


def _refusal(spec: FieldSpec) -> str | None:
    """Why a field has no crosses."""
    if spec.kind == "list":
        return "a list field, whose rows have no single value to cross"
    if spec.kind == "vector":
        return "a vector field, which has no values to cross"
    if spec.scaled:
        return f'a scaled number (transform = "{spec.transform}"); "quantile" and "log_square" give bins to cross'
    if spec.role == "bias":
        return "a bias field, whose value at scoring is always the same"
    if spec.keep == "never":
        return 'never kept (keep = "never")'
    return None
