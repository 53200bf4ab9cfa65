"""What was planted in a synthetic log, for those who check what a selector found."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from ctr.dataset.synthetic_draws import Floats
from ctr.dataset.synthetic_fields import PlantedField, planted_field
from ctr.dataset.synthetic_production import POSITION, Production, ShownPositions
from ctr.dataset.synthetic_spec import Categorical, SyntheticSpec, Values
from ctr.errors import ConfigError, DataError, nearest

FORMAT = 1
DETECTABLE_ERRORS = 4.0


@dataclass(frozen=True)
class Truth:
    """The truth of one log. Effects are computed from spec and seed, so a field of any size costs no memory.

    Args:
        spec, seed: what the log was made of.
        rows: impressions, of which the log may hold only some.
        intercept: logit of a row in which nothing has an effect.
        positive_rate: share of the impressions that are clicked, be it late.
        best_auc: AUC of the true probabilities on all impressions; no model reaches more, but for luck.
            None where all have one label. Which negatives a log holds does not change it.
        production: how the log differs from a complete, matured and unbiased one; None where it does not.
        logged_rows: rows of the log.
    """

    spec: SyntheticSpec
    seed: int
    rows: int
    intercept: float
    positive_rate: float
    best_auc: float | None
    production: Production | None = None
    logged_rows: int | None = None

    @cached_property
    def _planted(self) -> dict[str, PlantedField | ShownPositions]:
        planted: dict[str, PlantedField | ShownPositions] = {
            field.name: planted_field(field, self.seed, self.spec.days) for field in self.spec.fields
        }
        if self.production and self.production.positions:
            planted[POSITION] = ShownPositions(self.production.positions, self.seed)
        return planted

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role per field: `useful`, `partial` (only some values matter) or `noise` (not in a pair either).

        The position, where rows have one, is `bias`.
        """
        paired = {name for pair in self.spec.pairs for name in (pair.field_a, pair.field_b)}
        roles = {}
        for field in self.spec.fields:
            strength = field.matters if isinstance(field, Values) else field.effect
            if not isinstance(field, Values) and field.kind == "numeric":
                strength = strength or field.missing * abs(field.missing_effect)
            partial = isinstance(field, Values) and 0.0 < field.matters < 1.0
            useful = strength > 0.0 or field.name in paired
            roles[field.name] = "partial" if partial else "useful" if useful else "noise"
        return {**roles, POSITION: "bias"} if POSITION in self._planted.keys() - roles.keys() else roles

    @property
    def useful(self) -> list[str]:
        """Fields of which every value matters, or which take part in a pair."""
        return [name for name, role in self.roles.items() if role == "useful"]

    @property
    def partial(self) -> list[str]:
        """Fields of which only some values matter."""
        return [name for name, role in self.roles.items() if role == "partial"]

    @property
    def noise(self) -> list[str]:
        """Fields that tell nothing."""
        return [name for name, role in self.roles.items() if role == "noise"]

    def pairs(self) -> pl.DataFrame:
        """Give all pairs of categorical fields: field_a, field_b, kind (or "none") and strength."""
        planted = {frozenset((pair.field_a, pair.field_b)): pair for pair in self.spec.pairs}
        names = [field.name for field in self.spec.fields if isinstance(field, Categorical)]
        rows = []
        for a, b in combinations(names, 2):
            pair = planted.get(frozenset((a, b)))
            rows.append((a, b, pair.kind if pair else "none", pair.strength if pair else 0.0))
        schema = {"field_a": pl.String, "field_b": pl.String, "kind": pl.String, "strength": pl.Float64}
        return pl.DataFrame(rows, schema=schema, orient="row")

    def effect(self, field: str, values: pl.Series | list[str | None]) -> Floats:
        """Give the planted effect of vocabulary values on the logit, (N,).

        Values are written as in the vocabulary: texts; the transformed integer of a `log_square` number; the
        bin "0" (lowest) .. of a `quantile` number; null for missing. NaN marks a text that the field does not
        have. For a value of a list it is the mean effect of its presence (lists average their values).

        Raises:
            ConfigError: the log has no such field.
        """
        if field not in self._planted:
            raise ConfigError(f'the synthetic log has no field "{field}"{nearest(field, self._planted)}')
        return self._planted[field].effect(pl.Series(values, dtype=pl.String))

    def detectable(self, vocabulary: pl.DataFrame, base_rate: float) -> pl.DataFrame:
        """Say of each vocabulary value whether its training rows suffice to see its effect.

        The effect is a value's own on the logit, with all other fields held as they are. A joint effect has
        mean 0 on the logit over the rows of either value, so it adds nothing: a value is detectable by its
        own effect or not at all, and one that matters in pairs only is neither detectable nor noise.

        Args:
            vocabulary: field, value, count (training rows); where it has `role`, only role "value" is used.
            base_rate: share p of clicks among the training rows.

        Returns:
            In the order of the vocabulary: field, value, count, effect, standard_error
            (1 / sqrt(count p (1 - p))), detectable (|effect| above four of them), noise (no effect of its own
            and its field in no pair; values without effect of a `partial` field are noise too), field_role.
        """
        if "role" in vocabulary.columns:
            vocabulary = vocabulary.filter(pl.col("role") == "value")
        frame = vocabulary.select("field", "value", "count").with_row_index("@order")
        parts = [
            part.with_columns(
                effect=pl.Series(self.effect(str(field), part["value"]), dtype=pl.Float64),
                field_role=pl.lit(self.roles[str(field)]),
            )
            for (field,), part in frame.group_by(["field"], maintain_order=True)
        ]
        if not parts:
            parts = [frame.with_columns(effect=pl.lit(0.0), field_role=pl.lit(""))]
        paired = [name for pair in self.spec.pairs for name in (pair.field_a, pair.field_b)]
        error = 1.0 / (pl.col("count") * base_rate * (1.0 - base_rate)).sqrt()
        own = pl.col("effect").abs()
        return (
            pl.concat(parts)
            .sort("@order")
            .with_columns(standard_error=error)
            .with_columns(
                detectable=own.is_not_nan() & (own > DETECTABLE_ERRORS * pl.col("standard_error")),
                noise=(own == 0.0) & ~pl.col("field").is_in(paired),
            )
            .select(
                "field", "value", "count", "effect", "standard_error", "detectable", "noise", "field_role"
            )
        )

    def save(self, path: Path) -> None:
        """Write truth.json: what `read_truth` needs, and the roles and pairs for people to read."""
        content = {
            "format": FORMAT,
            "seed": self.seed,
            "rows": self.rows,
            "intercept": self.intercept,
            "positive_rate": self.positive_rate,
            "best_auc": self.best_auc,
            "fields": {"useful": self.useful, "partial": self.partial, "noise": self.noise},
            "spec": self.spec.model_dump(mode="json"),
        }
        if self.production is not None:
            content["production"] = self.production.model_dump(mode="json")
            content["logged_rows"] = self.logged_rows
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_truth(folder: Path) -> Truth:
    """Read the truth beside a synthetic log.

    Raises:
        DataError: the folder holds no truth.json, or one that this version cannot read.
    """
    path = Path(folder) / "truth.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise DataError(f'"{path}": expected format {FORMAT}, found {found["format"]}')
        keys = ("seed", "rows", "intercept", "positive_rate", "best_auc")
        spec = SyntheticSpec.model_validate_json(json.dumps(found["spec"]))
        stated = found.get("production")
        production = None if stated is None else Production.model_validate(stated)
        known = {key: found[key] for key in keys}
        return Truth(spec, **known, production=production, logged_rows=found.get("logged_rows"))
    except FileNotFoundError:
        raise DataError(f'"{path}": no such file; a synthetic log has its truth beside it') from None
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise DataError(f'"{path}": no truth of a synthetic log: {error}') from None
