"""What a synthetic click log is made of: fields, planted effects and pairs. All effects are in logits."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from ctr.settings import Strict

LARGEST_CARDINALITY = 100_000_000
LARGEST_JOINT = 4_000_000

Share = Annotated[float, Key(ge=0.0, lt=1.0)]


class Values(Strict):
    """A field of `cardinality` values; the value of rank k comes with probability ~ k ** -zipf.

    Args:
        matters: share of the values with a planted effect; 0 is a pure noise field, 1 a wholly useful one.
        effect: smallest and largest size of a planted effect; signs are balanced among neighbours in rank.
        missing: share of rows without a value; missing itself has no effect.
        text: `name` gives "site_0417", `hex` gives "68fd1e64".
        min_count: written to the schema.
    """

    name: str
    cardinality: Annotated[int, Key(ge=1, le=LARGEST_CARDINALITY)]
    zipf: Annotated[float, Key(ge=0.0, le=3.0)] = 0.7
    matters: Annotated[float, Key(ge=0.0, le=1.0)] = 0.0
    effect: tuple[float, float] = (0.4, 0.8)
    missing: Share = 0.0
    text: Literal["name", "hex"] = "name"
    min_count: Annotated[int, Key(ge=1)] = 2

    @field_validator("effect")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 < value[0] <= value[1]:
            raise ValueError(f"expected 0 < smallest <= largest size of an effect, found {value}")
        return value


class Categorical(Values):
    """One value per row.

    Args:
        late: share of the values (the two most frequent apart) that are first seen on day 2 or later.
    """

    kind: Literal["categorical"] = "categorical"
    late: Share = 0.0


class Listed(Values):
    """1 to `longest` different values per row, joined by `|`; a row feels the mean of their effects."""

    kind: Literal["list"] = "list"
    longest: Annotated[int, Key(ge=1, le=64)] = 4

    @model_validator(mode="after")
    def _classes(self) -> "Listed":
        if self.cardinality % self.longest:
            raise ValueError(
                f"cardinality must be a multiple of longest, found {self.cardinality} and {self.longest}"
            )
        return self


class Numeric(Strict):
    """A long-tailed number, `lowest + scale * (u ** (-1 / tail) - 1)` for uniform u.

    Args:
        transform: `log_square` gives integers, `quantile` real numbers cut into `bins`.
        effect: it runs over [-effect, effect] as `shape` says; 0 makes the field noise.
        shape: `rising` in the rank of the number, or `hill`, low at both ends and high in the middle.
        missing: share of rows without a number.
        missing_effect: effect of a missing number.
    """

    kind: Literal["numeric"] = "numeric"
    name: str
    transform: Literal["log_square", "quantile"] = "log_square"
    bins: Annotated[int, Key(ge=2)] = 20
    lowest: float = 0.0
    scale: Annotated[float, Key(gt=0.0)] = 10.0
    tail: Annotated[float, Key(gt=0.0)] = 2.0
    effect: Annotated[float, Key(ge=0.0)] = 0.0
    shape: Literal["rising", "hill"] = "rising"
    missing: Share = 0.0
    missing_effect: float = 0.0


class Hour(Strict):
    """The hour of the day, derived from the timestamp by the schema; one wave of height `effect`."""

    kind: Literal["hour"] = "hour"
    name: str = "hour"
    effect: Annotated[float, Key(ge=0.0)] = 0.3


class Pair(Strict):
    """A joint effect of two categorical fields, on top of their own; its mean over either field is zero.

    Args:
        kind: `memorize`: every joint value has a sign of its own; `factorize`: product of latent vectors.
        strength: standard deviation over the rows.
        rank: length of the latent vectors.
    """

    field_a: str
    field_b: str
    kind: Literal["memorize", "factorize"]
    strength: Annotated[float, Key(gt=0.0)] = 0.5
    rank: Annotated[int, Key(ge=1, le=8)] = 1


Planted = Annotated[Categorical | Listed | Numeric | Hour, Key(discriminator="kind")]


class SyntheticSpec(Strict):
    """A synthetic log: its fields in schema order, planted pairs, and how file and schema look.

    Args:
        base_rate: expected share of clicks; the intercept is set to meet it.
        days: the timestamp column runs over them evenly, oldest row first; 0 leaves it out.
        separator, header: how a csv looks.
    """

    name: str
    label: str = "click"
    base_rate: Annotated[float, Key(gt=0.0, lt=1.0)] = 0.2
    days: Annotated[int, Key(ge=0, le=3650)] = 7
    separator: str = ","
    header: bool = True
    fields: Annotated[tuple[Planted, ...], Key(min_length=1)]
    pairs: tuple[Pair, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "SyntheticSpec":
        names = [self.label, "timestamp", "true_probability", *(field.name for field in self.fields)]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f'the column "{twice[0]}" is named more than once')
        if self.days == 0 and any(field.kind == "hour" for field in self.fields):
            raise ValueError('a field of kind = "hour" needs a timestamp: days >= 1, found 0')
        if self.days < 2 and any(isinstance(field, Categorical) and field.late > 0 for field in self.fields):
            raise ValueError(f"late values need days >= 2, found {self.days}")
        self._check_pairs()
        return self

    def _check_pairs(self) -> None:
        fields = {field.name: field for field in self.fields}
        seen: set[frozenset[str]] = set()
        for pair in self.pairs:
            where = f'pair "{pair.field_a}", "{pair.field_b}"'
            names = frozenset((pair.field_a, pair.field_b))
            if len(names) == 1 or names in seen:
                raise ValueError(f"{where}: found a field twice, or the pair twice")
            seen.add(names)
            joint = 1
            for name in (pair.field_a, pair.field_b):
                field = fields.get(name)
                if not isinstance(field, Categorical) or field.late or field.missing:
                    # Late and missing values would tilt the weights under which the joint effect is centred.
                    raise ValueError(
                        f'{where}: expected categorical fields without late or missing values, found "{name}"'
                    )
                joint *= field.cardinality
            if joint > LARGEST_JOINT:
                raise ValueError(f"{where}: at most {LARGEST_JOINT} joint values, found {joint}")
