"""What a schema says of one field: its kind, its vocabulary, and its standing with selectors and at scoring."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from ctr.settings import Strict

Kind = Literal["categorical", "numeric", "list", "vector"]
Transform = Literal["log_square", "quantile", "minmax", "standard"]
Pooling = Literal["mean", "sum", "max"]
Cell = str | int | float
MissingValues = Annotated[list[Cell], Key(max_length=1000)]  # each is turned into text for every batch
SCALED: frozenset[str] = frozenset({"minmax", "standard"})


class FieldSpec(Strict):
    """One field of the log.

    kind: `categorical`: each frequent value is a feature. `numeric`: `log_square` and `quantile` turn a number into a
        category; `minmax` and `standard` scale it with train statistics, and the field enters as value times one
        embedding. `list`: a list column, or text cut at `separator`; the embeddings of its values are pooled.
        `vector`: `size` numbers (a list column, or text cut at `separator`), which enter through a learned projection.
    min_count: values in fewer train rows (weights counted) are unknown; where values are hashed, nothing is counted,
        and it does not apply.
    missing_values: values that mean "missing" here, besides those of the schema.
    shares: another field, whose vocabulary and table this one uses.
    max_length, pooling: of lists. Items past `max_length` are cut off and counted.
    keep: `always`: no selector drops any of it. `never`: no selector keeps any of it (keep-all still reads it).
    role: `bias`: a circumstance of the impression such as its position. Used in training, never dropped, kept out of
        crosses; at scoring it always has `serve_value`, and is not required there.
    group, cost: the field's owner or source, and what having it costs, for reports.
    pii: cells are replaced by a keyed hash as soon as they are read.
    """

    name: str
    kind: Kind = "categorical"
    min_count: Annotated[int, Key(ge=1)] = 1
    transform: Transform | None = None
    bins: Annotated[int, Key(ge=2, le=100_000)] | None = None
    separator: str | None = None
    missing_values: MissingValues = []
    shares: str | None = None
    max_length: Annotated[int, Key(ge=1)] | None = None
    pooling: Pooling = "mean"
    size: Annotated[int, Key(ge=1, le=65_536)] | None = None
    keep: Literal["always", "never"] | None = None
    role: Literal["bias"] | None = None
    serve_value: Cell | bool | None = None
    group: str | None = None
    cost: Annotated[float | int, Key(ge=0.0, allow_inf_nan=False)] | None = None
    pii: bool = False

    @field_validator("name")
    @classmethod
    def _hashable(cls, value: str) -> str:
        if "\x00" in value:
            raise ValueError("a field's name must not hold U+0000, which ends it where values are hashed")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "FieldSpec":
        self._check_kind()
        self._check_role()
        if self.shares is not None:
            if self.kind not in ("categorical", "list"):
                raise ValueError(
                    f'shares applies to kind = "categorical" and "list", found kind = "{self.kind}"'
                )
            if self.min_count != 1 or self.keep is not None:
                raise ValueError(f'min_count and keep belong to the field that is shared, "{self.shares}"')
        if self.pii and self.kind not in ("categorical", "list"):
            raise ValueError(f'pii applies to kind = "categorical" and "list", found kind = "{self.kind}"')
        return self

    def _check_kind(self) -> None:
        if self.kind == "numeric" and self.transform is None:
            raise ValueError("a numeric field needs transform = log_square, quantile, minmax or standard")
        if self.kind != "numeric" and self.transform is not None:
            raise ValueError(f'transform applies to kind = "numeric", found kind = "{self.kind}"')
        if (self.bins is not None) != (self.transform == "quantile"):
            raise ValueError('transform = "quantile" needs bins = N, and nothing else takes it')
        if self.kind not in ("list", "vector") and self.separator is not None:
            raise ValueError(f'separator applies to kind = "list" and "vector", found kind = "{self.kind}"')
        if self.kind in ("numeric", "vector") and self.min_count != 1:
            # METHODS: numeric features are exempt from the frequency cut.
            raise ValueError(f"min_count does not apply to a {self.kind} field")
        if self.kind != "list" and (self.max_length is not None or self.pooling != "mean"):
            raise ValueError(f'max_length and pooling apply to kind = "list", found kind = "{self.kind}"')
        if (self.size is not None) != (self.kind == "vector"):
            raise ValueError('kind = "vector" needs size = N, and nothing else takes it')
        if self.kind == "vector" and self.missing_values:
            raise ValueError(
                "missing_values does not apply to a vector field; a missing vector is null or empty"
            )

    def _check_role(self) -> None:
        if (self.role == "bias") != (self.serve_value is not None):
            raise ValueError('role = "bias" needs serve_value = ..., and nothing else takes it')
        if self.role == "bias":
            if self.kind not in ("categorical", "numeric"):
                raise ValueError(
                    f'role = "bias" applies to kind = "categorical" and "numeric", found kind = "{self.kind}"'
                )
            if self.keep == "never" or self.shares is not None or self.pii:
                raise ValueError('role = "bias" goes with neither keep = "never" nor shares nor pii')

    @property
    def scaled(self) -> bool:
        """Whether the field enters the network as value times embedding."""
        return self.transform in SCALED

    @property
    def protected(self) -> bool:
        """Whether no selector may drop any of it."""
        return self.keep == "always" or self.role == "bias"


def sharing_mistakes(fields: Sequence[FieldSpec]) -> list[str]:
    """What is wrong with the `shares` of a schema's fields, one line each."""
    known = {field.name: field for field in fields}
    mistakes = []
    for field in fields:
        if field.shares is None:
            continue
        owner, where = known.get(field.shares), f'field "{field.name}": shares = "{field.shares}"'
        if owner is None or owner is field:
            mistakes.append(f"{where} names no other field")
        elif owner.shares is not None:
            mistakes.append(f'{where} shares itself; state shares = "{owner.shares}"')
        elif owner.kind not in ("categorical", "list") or owner.role is not None:
            mistakes.append(f"{where} has no vocabulary to share: a plain categorical or list field has")
        elif owner.pii != field.pii:
            mistakes.append(f"{where}: pii must be set for both or for none, their values are the same")
    return mistakes
