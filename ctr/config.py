"""The run configuration: one TOML file, typed, with a default for everything but the data.

Unknown keys, wrong types and values out of range are refused, and all mistakes are reported together.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator
from pydantic import Field as Key

from ctr.errors import ConfigError
from ctr.settings import Strict, as_text, check, load_toml

Share = Annotated[float, Key(gt=0.0, lt=1.0)]
Positive = Annotated[float, Key(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Key(ge=0.0, allow_inf_nan=False)]
Whole = Annotated[int, Key(ge=1)]
Referee = Literal[
    "frequency",
    "random",
    "saliency",
    "trial",
    "field_mutual_information",
    "field_chi2",
    "field_l1",
    "field_permutation",
    "field_gain",
    "field_gates",
]


_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _bytes(value: int | str | None) -> int | None:
    """A budget: a number of bytes, or text such as "2.5MB" (2,500,000)."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d{1,15}(?:\.\d+)?)\s*([A-Za-z]*)", value.strip())
        factor = _UNITS.get(found[2] or "B") if found else None
        if found is None or factor is None:
            raise ValueError(f'expected bytes such as 2500000 or "2.5MB", found "{value}"')
        value = round(float(found[1]) * factor)
    if value is not None and value < 1:
        raise ValueError(f"expected at least 1 byte, found {value}")
    return value


Budget = Annotated[int | str | None, AfterValidator(_bytes)]  # checked, a number or None

_OF_PAIRS = (
    "choice",
    "search_rows",
    "pairs",
    "screened_pairs",
    "pair_dim",
    "min_count",
    "cross_bytes",
    "cross_rows",
    "sketch_bytes",
    "random_counts",
    "max_memorized",
    "max_cross_bytes",
    "cross_price",
    "pair_learning_rate",
    "pair_temperature",
)
_OF_PUBLISHED_SEARCH = ("pair_learning_rate", "pair_temperature")
_FLOAT32 = 4  # bytes


class Data(Strict):
    """`schema`: the schema file. `input`: path, glob or URL of the log. `folder` keeps datasets by digest.

    `encoding`: `vocabulary` counts train rows and numbers frequent values; `hashed` counts nothing: ids are hashes.
    `as_of`: an instant of the split's time column; rows from then on are left out, as if the log had been taken then.
    `truth`: folder of a synthetic log, whose planted values the report then checks the feature set against.
    """

    schema_file: str = Key(alias="schema", min_length=1)
    input: str = Key(min_length=1)
    encoding: Literal["vocabulary", "hashed"] = "vocabulary"
    folder: str = "datasets"
    as_of: Annotated[str | int | None, BeforeValidator(as_text)] = None
    truth: str | None = None


class Embedding(Strict):
    """From ids to vectors of `dim` floats.

    kind: `table`: a row for each feature. `hashed`: a hashed table for each field. `unified`: one for all fields.
    composition: how an embedding is put together from hashed rows (`ctr.dataset.placement`).
    bytes, rows: the budget of all hashed tables together, first-order weights included; a row is dim / lookups floats
        wide, or dim. Unset, a tenth of the bytes that a row for each feature would take.
    lookups: rows that a value reads. field_lookups: the same for single fields, which are then projected to `dim`.
    collision_free: fields with at most so many train values keep a row of their own for each, within the budget.
    init_scale: of the table's floats at the start: standard deviation (`table`), or half the range of a uniform draw
        (the others); unset, 0.01.
    """

    kind: Literal["table", "hashed", "unified"] = "table"
    dim: Annotated[int, Key(ge=1, le=1024)] = 16
    composition: Literal["lookup", "multi_hash", "quotient_remainder", "robe"] = "lookup"
    bytes: Annotated[int | str | None, AfterValidator(_bytes)] = None
    rows: Whole | None = None
    lookups: Annotated[int, Key(ge=1, le=16)] = 2
    field_lookups: dict[str, Annotated[int, Key(ge=1, le=16)]] = {}
    collision_free: Annotated[int, Key(ge=0)] = 0
    init_scale: Positive | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Embedding":
        if self.kind == "table":
            for name in ("composition", "bytes", "rows", "lookups", "field_lookups", "collision_free"):
                if getattr(self, name) != Embedding.model_fields[name].default:
                    raise ValueError(f'{name} applies to kind = "hashed" and "unified", found kind = "table"')
            return self
        if self.bytes is not None and self.rows is not None:
            raise ValueError("state bytes or rows, not both")
        if self.composition in ("lookup", "robe") and self.dim % self.lookups:
            raise ValueError(
                f"dim = {self.dim} cannot be put together from lookups = {self.lookups} rows of equal width; "
                f"state a dim that {self.lookups} divides, or other lookups"
            )
        if self.composition == "quotient_remainder" and (self.lookups != 2 or self.field_lookups):
            raise ValueError('composition = "quotient_remainder" always has two lookups')
        return self


class BackboneConfig(Strict):
    """From field embeddings to one logit. `first_order`: unset takes the backbone's usual definition.

    `layers` and `rank` apply to the cross networks (rank to dcnv2 alone), `subnet_units` to pin: numbers that the
    sub-net of each pair gives. `norm` is of the MLP, and "layer" also of pin's sub-nets.
    """

    kind: Literal["lr", "poly2", "fm", "fnn", "ipnn", "pin", "deepfm", "dcn", "dcnv2"] = "deepfm"
    hidden: list[Whole] = [256, 128]
    dropout: Annotated[float, Key(ge=0.0, lt=1.0)] = 0.0
    norm: Literal["none", "batch", "layer"] = "none"
    first_order: bool | None = None
    layers: Whole | None = None
    rank: Whole | None = None
    subnet_units: Annotated[int, Key(ge=2)] | None = None

    @model_validator(mode="after")
    def _applicable(self) -> "BackboneConfig":
        if self.layers is not None and self.kind not in ("dcn", "dcnv2"):
            raise ValueError(f'layers applies to "dcn" and "dcnv2", found kind = "{self.kind}"')
        if self.rank is not None and self.kind != "dcnv2":
            raise ValueError(f'rank applies to "dcnv2", found kind = "{self.kind}"')
        if self.subnet_units is not None and self.kind != "pin":
            raise ValueError(f'subnet_units applies to "pin", found kind = "{self.kind}"')
        if self.kind in ("lr", "poly2") and self.first_order is False:
            raise ValueError(
                f'kind = "{self.kind}" without pairs is nothing but its first-order term: first_order = false '
                "leaves no model"
            )
        return self


class SelectorConfig(Strict):
    """What chooses the features, and with `optinter` how pairs of fields interact.

    ratio: share of vocabulary values to keep; a list gives one point of the curve each, the first is the one shipped.
    penalty: the price of a feature instead of a share, in nats of train log loss that it must save (see
        `ctr.selection.evidence`); likewise one or a list.
    epochs, final_temperature, rewind_epoch, gate_learning_rate: of the OptFS search. `rewind_epoch` may be a part of
        an epoch: 0.5 goes back to the weights after half of the first one.
    dropped_reads: what a dropped value reads: a row of zeros, or its field's unknown.
    compare_dropped_reads: whether the set that is shipped is also trained the other way, and both reported on valid.
    referees: cheap selectors that run at the same sizes for comparison; those called field_* drop whole fields, as
        nearly to the size as they can (`ctr.selection.field_choice`).
    saliency: by what `saliency` ranks values: how much the loss over train feels them, or the rise in it that dropping
        them is expected to cost (`ctr.selection.saliency`).
    shadow: share of the fields of which the OptFS search gets a copy with shuffled values as well, to report how many
        values without meaning it keeps (`ctr.dataset.shadow`); 0 searches real fields alone.

    Of pairs (`optinter`, and `optfs+optinter`, which first drops values):
    choice: `search`, or one method for all: `memorize`, `factorize`, `naive`; `best` retrains all four and takes the
        one with the best AUC on valid; `random` draws as many pairs to memorize, and to factorize, as `random_counts`
        says.
    search_rows: which rows judge a pair: `held_out`, a quarter of train that the weights of the search never see, or
        `train`, the rows that the weights learn from, as published.
    pairs: [field, field] of each; by default all. pair_dim: floats of a pair's vector.
    screened_pairs: how many of them a search looks at, those whose crosses say most on train rows
        (`ctr.selection.pair_screen`); by default all.
    min_count: train rows that a cross needs for a row of its own. cross_bytes, or cross_rows: budget of the table of
        crosses, whose rows they then share; by default each has its own. sketch_bytes: with such a budget, memory in
        which crosses are counted, about. By default they are counted exactly, as long as what finds them takes no more
        than the budget, or 64 MB where that is more; from there on in a sketch of that size.
    max_memorized, max_cross_bytes: what the choice must meet: pairs memorized, bytes of the table of their crosses.
    cross_price: nats of train log loss that memorizing must save for each admitted cross; by default 0.5, and nothing
        where `search_rows = "train"`, as published.
    pair_learning_rate, pair_temperature: of the choice where `search_rows = "train"`; the temperature at the end.
    """

    kind: Literal["none", "optfs", "optinter", "optfs+optinter", "all", Referee] = "optfs"
    ratio: list[Share] | None = None
    penalty: list[NotNegative] | None = None
    epochs: Whole = 3
    final_temperature: Annotated[float, Key(ge=1.0, allow_inf_nan=False)] = 200.0
    rewind_epoch: Annotated[int | float, Key(ge=0, allow_inf_nan=False)] = 0
    gate_learning_rate: Positive = 1.0
    dropped_reads: Literal["zero", "unknown"] = "zero"
    compare_dropped_reads: bool = True
    referees: list[Referee] = ["frequency", "random"]
    shadow: Annotated[float, Key(ge=0.0, lt=1.0)] = 0.0
    saliency: Literal["fisher", "second_order"] = "second_order"
    choice: Literal["search", "best", "memorize", "factorize", "naive", "random"] = "search"
    search_rows: Literal["train", "held_out"] = "held_out"
    pairs: Annotated[list[list[str]], Key(min_length=1)] | None = None
    screened_pairs: Whole | None = None
    pair_dim: Annotated[int, Key(ge=1, le=1024)] = 8
    min_count: Whole = 2
    cross_bytes: Annotated[int | str | None, AfterValidator(_bytes)] = None
    cross_rows: Whole | None = None
    sketch_bytes: Annotated[int | str | None, AfterValidator(_bytes)] = None
    random_counts: Annotated[list[Annotated[int, Key(ge=0)]], Key(min_length=2, max_length=2)] | None = None
    max_memorized: Annotated[int, Key(ge=0)] | None = None
    max_cross_bytes: Annotated[int | str | None, AfterValidator(_bytes)] = None
    cross_price: NotNegative | None = None
    pair_learning_rate: Positive = 1e-3
    pair_temperature: Annotated[float, Key(gt=0.0, le=1.0)] = 0.01

    @property
    def selects_pairs(self) -> bool:
        """Whether interactions of fields are chosen."""
        return self.kind in ("optinter", "optfs+optinter")

    @property
    def cross_budget(self) -> int | None:
        """Bytes of the table of crosses; None where each has a row of its own."""
        assert self.cross_bytes is None or isinstance(self.cross_bytes, int)
        return self.cross_bytes if self.cross_rows is None else self.cross_rows * self.pair_dim * _FLOAT32

    @property
    def price_of_a_cross(self) -> float:
        """`cross_price`, or what stands for it."""
        default = 0.5 if self.search_rows == "held_out" else 0.0
        return default if self.cross_price is None else self.cross_price

    @property
    def searches_features(self) -> bool:
        """Whether OptFS chooses features."""
        return self.kind in ("optfs", "optfs+optinter")

    @field_validator("ratio", "penalty", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _consistent(self) -> "SelectorConfig":
        if self.ratio is not None and self.penalty is not None:
            raise ValueError("state ratio or penalty, not both")
        if self.ratio == [] or self.penalty == []:
            raise ValueError("a list of ratios or penalties needs at least one entry")
        sizes = [f"{size:g}" for size in self.ratio or self.penalty or []]
        if len(set(sizes)) < len(sizes):
            raise ValueError(f"ratios or penalties must differ in six digits, found {', '.join(sizes)}")
        if len(set(self.referees)) < len(self.referees):
            raise ValueError("referees names one of them more than once")
        if self.penalty is not None and not self.searches_features:
            raise ValueError(
                f'penalty applies to kind = "optfs" and "optfs+optinter", found kind = "{self.kind}"'
            )
        if self.shadow and not self.searches_features:
            raise ValueError(
                f'shadow adds fields to the search of kind = "optfs" and "optfs+optinter", found kind = "{self.kind}", '
                "which has none"
            )
        if self.kind == "optinter" and self.ratio is not None:
            raise ValueError('kind = "optinter" keeps all features; use kind = "optfs+optinter" with ratio')
        if not self.selects_pairs:
            for name in _OF_PAIRS:
                if getattr(self, name) != SelectorConfig.model_fields[name].default:
                    raise ValueError(
                        f'{name} applies to kind = "optinter" and "optfs+optinter", found kind = "{self.kind}"'
                    )
        if self.cross_bytes is not None and self.cross_rows is not None:
            raise ValueError("state cross_bytes or cross_rows, not both")
        if self.sketch_bytes is not None and (self.cross_budget is None or self.min_count > 255):
            raise ValueError(
                "sketch_bytes counts to 255, for crosses that share the rows of a budget: state cross_bytes or "
                f"cross_rows, and a min_count of at most 255, found {self.min_count}"
            )
        if self.search_rows == "held_out":
            for name in _OF_PUBLISHED_SEARCH:
                if getattr(self, name) != SelectorConfig.model_fields[name].default:
                    raise ValueError(f'{name} applies to search_rows = "train", found "held_out"')
        searched = self.choice in ("search", "best")
        if not searched and self.max_memorized is not None:
            raise ValueError(f'max_memorized limits a search, found choice = "{self.choice}"')
        if not searched and self.screened_pairs is not None:
            raise ValueError(f'screened_pairs narrows a search, found choice = "{self.choice}"')
        if (self.choice == "random") != (self.random_counts is not None):
            raise ValueError(
                'choice = "random" needs random_counts = [memorized, factorized], and nothing else takes it'
            )
        if self.kind in get_args(Referee) and self.ratio is None:
            raise ValueError(f'kind = "{self.kind}" needs ratio')
        if self.rewind_epoch >= self.epochs:
            raise ValueError(f"rewind_epoch = {self.rewind_epoch} must be below epochs = {self.epochs}")
        return self


class Training(Strict):
    """One loop's settings, the same for baseline, search and retraining.

    batch_size: train rows of a step. One that is stated must not exceed the train rows; a log with fewer than the
        default is one batch.
    learning_rate, weight_decay: of tables and dense weights; the decay is decoupled and belongs to tables, per step.
    network_weight_decay: L2 of the dense weights.
    eval_every: steps between looks at valid; unset, ten an epoch, evenly spread.
    patience: epochs without a better AUC on valid before stopping; below 1 it stops inside an epoch.
    plateau: the learning rate is multiplied by it after an epoch without a better AUC (1 leaves it alone).
    order: of the train rows: `shuffled` anew each epoch, or `time`, oldest first (needs a split that names a time).
    device: `auto` takes the GPU where there is one.
    threads: of PyTorch, at most the cores that the process may use; 0 takes them all.
    precision: of matrix products in training: `float32`, `tf32` (on CUDA devices that have it) or `bf16` (where the
        device has it: GPUs, and processors with AVX512-BF16 or AMX). Weights, and all that is evaluated, are float32.
    """

    batch_size: Whole = 1024
    epochs: Whole = 20
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.0
    network_weight_decay: NotNegative = 0.0
    eval_every: Whole | None = None
    patience: Positive = 3.0
    plateau: Annotated[float, Key(gt=0.0, le=1.0)] = 0.5
    order: Literal["shuffled", "time"] = "shuffled"
    device: str = "auto"
    threads: Annotated[int, Key(ge=0)] = 0
    precision: Literal["float32", "tf32", "bf16"] = "float32"

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError(f'expected "auto", "cpu", "cuda", "cuda:N" or "mps", found "{value}"')
        return value

    @model_validator(mode="after")
    def _decay_shrinks(self) -> "Training":
        if self.learning_rate * self.weight_decay >= 1.0:
            raise ValueError(
                "learning_rate * weight_decay is the share that a step takes away: expected below 1, "
                f"found {self.learning_rate * self.weight_decay:g}"
            )
        return self


class Export(Strict):
    """`dtype`: in which the bundle stores weights. `min_auc`: below it the run ends with code 4 and registers nothing.

    max_auc_loss, max_probability_change: what rounding to `dtype` may cost the AUC on valid, and change of the
        probability of any row of valid (as float16 never more than 0.001); past either the run ends before test is
        read, and writes no bundle.
    refit: what the chosen set is trained on again for the bundle, after the verdict and for the steps that valid chose:
    `valid` adds valid to train, `all` test as well; `none` ships the model that was evaluated.
    """

    dtype: Literal["float32", "float16", "int8"] = "float32"
    max_auc_loss: Annotated[float, Key(ge=0.0, le=1.0)] = 0.001
    max_probability_change: Annotated[float, Key(ge=0.0, le=1.0)] = 0.05
    refit: Literal["none", "valid", "all"] = "none"
    min_auc: Annotated[float, Key(ge=0.0, le=1.0)] | None = None


class Tracking(Strict):
    """`uri`: of the MLflow store; unset keeps a SQLite file beside the runs, "off" tracks nothing.

    `register`: the registered model that the bundle becomes the candidate of, unless `export.min_auc` is missed.
    `scores`: whether the scores of test rows are sent too, by which runs are compared where their folders are not.
    """

    uri: str | None = None
    experiment: str = Key(default="ctr", min_length=1)
    register_: Annotated[str, Key(pattern=r"^\w[\w.\- ]*$")] | None = Key(default=None, alias="register")
    scores: bool = True

    @model_validator(mode="after")
    def _somewhere(self) -> "Tracking":
        if self.register_ is not None and self.uri == "off":
            raise ValueError('register: needs an MLflow store, found uri = "off"')
        return self


class Output(Strict):
    """`folder`: where runs are kept."""

    folder: str = "runs"


class Config(Strict):
    """A whole run."""

    name: str = "run"
    seed: Annotated[int, Key(ge=0, lt=2**31)] = 0
    data: Data
    embedding: Embedding = Embedding()
    backbone: BackboneConfig = BackboneConfig()
    selector: SelectorConfig = SelectorConfig()
    training: Training = Training()
    export: Export = Export()
    tracking: Tracking = Tracking()
    output: Output = Output()

    @model_validator(mode="after")
    def _pairs_readable(self) -> "Config":
        if not self.selector.selects_pairs:
            if self.backbone.kind == "poly2":
                raise ValueError(
                    'backbone.kind = "poly2" is a logistic regression with crosses: state selector.kind = "optinter", '
                    'choice = "memorize" and pair_dim = 1'
                )
            return self
        kind, embedding = self.selector.kind, self.embedding
        if self.backbone.kind in ("lr", "fm"):
            raise ValueError(
                f'selector.kind = "{kind}" needs a backbone that reads the vectors of pairs: "poly2", "fnn", "ipnn", '
                f'"pin", "deepfm", "dcn" or "dcnv2", found backbone.kind = "{self.backbone.kind}"'
            )
        if self.data.encoding == "hashed":
            raise ValueError(
                f'selector.kind = "{kind}" counts crosses of a vocabulary, found data.encoding = "hashed"; use '
                'data.encoding = "vocabulary", with which embedding.kind = "unified" works as well'
            )
        if embedding.kind != "table" and embedding.composition == "robe":
            raise ValueError(
                f'selector.kind = "{kind}" reads a second table at the places of the first, which composition = "robe" '
                "counts in floats of the first; use another composition"
            )
        if (
            embedding.kind != "table"
            and embedding.composition == "lookup"
            and self.selector.pair_dim % embedding.lookups
        ):
            raise ValueError(
                f"selector.pair_dim = {self.selector.pair_dim} cannot be put together from embedding.lookups = "
                f"{embedding.lookups} rows of equal width; state a multiple"
            )
        return self

    @model_validator(mode="after")
    def _readable(self) -> "Config":
        if self.data.encoding == "hashed" and self.embedding.kind == "table":
            raise ValueError(
                'data.encoding = "hashed" has no vocabulary that embedding.kind = "table" could give rows to; '
                'use embedding.kind = "unified" or "hashed"'
            )
        if self.data.encoding == "hashed" and self.embedding.collision_free:
            raise ValueError(
                'embedding.collision_free needs a vocabulary: with data.encoding = "hashed" no value has a number'
            )
        return self

    @field_validator("name")
    @classmethod
    def _path_safe(cls, value: str) -> str:
        return path_safe(value)

    def digest(self, data_digest: str) -> str:
        """12 characters that change with anything that can change a result: config and data, not where it is put."""
        content = self.model_dump(mode="json", exclude={"tracking", "output"})
        content["data"] = [data_digest, self.data.truth is not None]
        content["training"].pop("device")
        text = json.dumps(_plain(content), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def path_safe(name: str) -> str:
    """A name that can be that of a folder.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f'expected letters, digits, ".", "_" or "-", found "{name}"')
    return name


def _plain(value: Any) -> Any:
    """Nested values with whole floats as integers: 3 and 3.0 are the same setting."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def load_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply `section.key=value` changes to it.

    Values are TOML (`0.3`, `"text"`, `[1, 2]`, `true`); what is none is taken as text. No value (`section.key=`) takes
    back what the file states.

    Raises:
        ConfigError: file missing, no TOML, or broken rules, all of them.
    """
    values = load_toml(Path(path), "config")
    for change in changes:
        apply_change(values, change)
    return check(values, Config, f'config "{path}"')


def apply_change(values: dict[str, Any], change: str) -> None:
    """Apply `section.key=value`, or `section.key=`, to nested values, in place.

    Raises:
        ConfigError: it is not written so, a section is a value, or what is to be taken back is not stated.
    """
    name, equals, text = change.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f'--set: expected section.key=value, found "{change}"')
    *sections, key = keys
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f'--set: "{section}" in "{name}" is a value, not a section')
    if text.strip():
        values[key] = _value(text.strip())
    elif values.pop(key, None) is None:
        raise ConfigError(
            f'--set: "{change}" takes back what the file states, and it states no "{name.strip()}"'
        )


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
