"""`manifest.json` of a bundle: what the folder holds, with the digest of every other file and of itself."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as Key
from pydantic import ValidationError

import ctr
from ctr.dataset.personal_fields import PersonalField
from ctr.dataset.placement import Composition
from ctr.errors import ConfigError, CtrError, DataError
from ctr.serving.storage import Dtype
from ctr.settings import Strict

FORMAT_VERSION = 3
DESCRIBED = 3  # the first format that describes its encoding, with golden pairs
GRAPHS = 3  # the first format whose network is a graph
MANIFEST, SCHEMA, VOCABULARY = "manifest.json", "schema.json", "vocabulary.parquet"
WEIGHTS, GOLDEN = "weights.safetensors", "golden.parquet"
GRAPH, OUTPUTS = "network.onnx", ("logit", "probability")
KEPT_VALUES = "kept_values.parquet"
CROSSES = "crosses.parquet"
ENCODING, PAIRS = "encoding.json", "golden_pairs.parquet"
ALWAYS = (SCHEMA, WEIGHTS, GOLDEN)

LARGEST_TEXT = 8 << 20  # bytes of the manifest or the schema: of about 20,000 fields, or as many pairs
_CHECKSUM = re.compile(r',\n "checksum": "([0-9a-f]{64})"\n}\n')

_FIELDS = 10_000

Finite = Annotated[float, Key(allow_inf_nan=False)]
Count = Annotated[int, Key(ge=0, lt=1 << 48)]
Name = Annotated[str, Key(max_length=1000)]  # of fields and columns: messages quote it
GraphArray = Literal[
    "ids",
    "values",
    "list_ids",
    "list_slots",
    "list_lengths",
    "vectors",
    "places",
    "list_places",
    "cross_rows",
]


class FileEntry(Strict):
    """Size and SHA-256 of a file."""

    bytes: Annotated[int, Key(ge=0)]
    sha256: str


class ScaleEntry(Strict):
    """A scaled number is (v - shift) * factor."""

    shift: Finite
    factor: Finite


class FieldEntry(Strict):
    """A kept field: its encoding (as in a dataset's manifest), and the raw columns that it is made of.

    A bias field needs none: at scoring it has the schema's `serve_value`.
    """

    name: Name
    kind: str
    features: int | None
    shares: Name | None
    scale: ScaleEntry | None
    edges: list[Finite] | None
    columns: list[Name]


class Sampling(Strict):
    """The log held a share `negative_keep_rate` of the rows with label 0.

    The network's own probabilities q are those of that log. `ctr score` and `Scorer` correct them, once:
    p = q / (q + (1 - q) / negative_keep_rate); nobody after them must do it again.

    slope, intercept: by which the network, as its last step, has calibrated the logits of q on valid.
    """

    negative_keep_rate: Annotated[float, Key(gt=0.0, le=1.0)]
    correction: Literal["p = q / (q + (1 - q) / negative_keep_rate)"]
    applied_by: Literal["scorer"]
    slope: Finite
    intercept: Finite


class KeptValuesEntry(Strict):
    """Which values are kept, where there is no vocabulary: see `ctr.dataset.kept_values`.

    bits, values: of the fingerprints in the file. error_rate: share of dropped values that are taken for kept ones.
    whole: fields whose every value is kept, seen or not. unknown: fields whose dropped values read their unknown.
    """

    bits: Annotated[int, Key(ge=1, le=62)]
    values: Annotated[int, Key(ge=0)]
    error_rate: Annotated[float, Key(ge=0.0, le=1.0)]
    whole: list[str]
    unknown: list[str]


class CrossesEntry(Strict):
    """Pairs of fields that are memorized, and how many of their crosses have a row: see `ctr.dataset.crosses`.

    sketch: bytes of each of the two rows of a sketch that says which crosses have one; None where their keys are kept.
    """

    pairs: Annotated[list[Annotated[list[str], Key(min_length=2, max_length=2)]], Key(min_length=1)]
    admitted: Annotated[int, Key(ge=0)] = 0
    sketch: Annotated[int, Key(ge=1)] | None = None


class StretchEntry(Strict):
    """Where the features of one field are: see `ctr.dataset.placement.Stretch`."""

    field: str
    start: Count
    rows: Count
    second_start: Count
    second_rows: Count
    lookups: Count
    exact: bool


class PlacementEntry(Strict):
    """Which rows of which tables a feature reads: see `ctr.dataset.placement.Placement`."""

    composition: Composition
    shared: bool
    width: Count
    linear: Annotated[int, Key(ge=0, le=1)]
    lookups: Count
    rows: Count
    second_rows: Count
    stretches: Annotated[list[StretchEntry], Key(min_length=1)]


class PersonalEntry(Strict):
    """The columns whose cells are replaced by pseudonyms, and the id of the key (see `ctr.dataset.personal`).

    Kept fields may be computed from them where they are no fields of the bundle themselves.
    """

    fields: Annotated[list[PersonalField], Key(min_length=1)]
    key: str


class TrainedModel(Strict):
    """A model: what it was trained on, for how many steps, and the stretch of time that those rows cover.

    metrics: on parts that it was not trained on; null where there is none left.
    """

    trained_on: list[Literal["train", "valid", "test"]]
    steps: int
    window: list[str | int | float] | None
    metrics: dict[str, Any] | None


class ModelEntry(Strict):
    """The model that was evaluated and the one that the bundle holds: the same, unless it was refitted."""

    refit: Literal["none", "valid", "all"]
    evaluated: TrainedModel
    shipped: TrainedModel


class PairsEntry(Strict):
    """How pairs of fields are modelled: see `ctr.network.crosses.PairLayout`."""

    dim: Count
    memorized: list[tuple[Count, Count]]
    factorized: list[tuple[Count, Count]]
    cross_rows: Count
    hashed: bool
    factor_rows: Count
    shifts: list[tuple[Count, Count]]
    searched: Literal[False]


class ArchitectureEntry(Strict):
    """What the network was built from: see `ctr.network.network.Architecture`. The graph is what scores."""

    rows: Count
    fields: Count
    dim: Count
    backbone: str
    hidden: list[Count]
    dropout: Finite
    norm: str
    first_order: bool | None
    init_scale: Finite | None
    extra: list[tuple[str, int]]
    pooling: list[str]
    vectors: list[tuple[Count, Count]]
    composition: str
    second_rows: Count
    lookups: Count
    odd_lookups: list[tuple[Count, Count]]
    pairs: PairsEntry | None


class NetworkEntry(Strict):
    """The network is the graph `network.onnx`. inputs: what it reads, by the names of `ctr.serving.rows`.

    dtype: of tables and of the matrices of dense layers (`ctr.serving.storage`).
    """

    inputs: Annotated[list[GraphArray], Key(min_length=1)]
    dtype: Dtype


class SizeEntry(Strict):
    """Learned numbers, and bytes of them all and of those in tables: see `ctr.serving.costs`."""

    parameters: Count
    bytes: Count
    table_bytes: Count


class SizesEntry(Strict):
    """Before selection, in float32, where that is known; and what the bundle holds, as it is stored."""

    keep_all: SizeEntry | None
    kept: SizeEntry


class RowsEntry(Strict):
    """Rows in tables and their bytes; null where rows are shared, and nobody's own."""

    rows: Count | None
    bytes: Count | None


class PairRowsEntry(RowsEntry):
    """The same of a pair of fields."""

    fields: Annotated[list[str], Key(min_length=2, max_length=2)]
    method: Literal["memorize", "factorize"]


class CostsEntry(Strict):
    """What each field and each pair takes in tables."""

    fields: dict[str, RowsEntry]
    pairs: list[PairRowsEntry]


class RoundingEntry(Strict):
    """What storing weights in fewer bits changes on valid: AUC with it and without, largest change of a probability."""

    auc: Finite
    float32_auc: Finite
    largest_change: Annotated[float, Key(ge=0.0, le=1.0)]


class Manifest(Strict):
    """What `manifest.json` says.

    dataset, feature_set: digests; no feature set where all features were kept. features: counts of kept and all
    vocabulary values, in all and per field. columns: the types of raw columns in expressions. metrics: of the model
    that was evaluated. model: which one that was, and which one the weights are. encoding: of values, by the vocabulary
    file or as hashes, of which kept_values are kept. placement: which rows of which tables a feature reads
    (`ctr.dataset.placement`); None where its id is its row. crosses: of memorized pairs, whose admitted keys are in a
    file; None where no pair is memorized. network: the graph that scores; None in the formats before `GRAPHS`, as are
    sizes and costs. rounding: None where weights are float32.
    """

    format_version: int
    name: str
    dataset: str
    feature_set: str | None
    features: dict[str, Any]
    architecture: dict[str, Any]
    fields: Annotated[list[FieldEntry], Key(min_length=1, max_length=_FIELDS)]
    columns: dict[str, str]
    sampling: Sampling | None
    personal: PersonalEntry | None
    metrics: dict[str, Any]
    model: ModelEntry
    provenance: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, FileEntry]
    checksum: str
    encoding: Literal["vocabulary", "hashed"] = "vocabulary"
    placement: PlacementEntry | None = None
    kept_values: KeptValuesEntry | None = None
    crosses: CrossesEntry | None = None
    network: NetworkEntry | None = None
    rounding: RoundingEntry | None = None
    sizes: SizesEntry | None = None
    costs: CostsEntry | None = None

    @property
    def required(self) -> tuple[str, ...]:
        """Files of every bundle with this encoding, and with crosses or without."""
        own = (KEPT_VALUES if self.encoding == "hashed" else VOCABULARY,)
        graph = (GRAPH,) if self.network else ()
        described = (ENCODING, PAIRS) if self.format_version >= DESCRIBED else ()
        return (*ALWAYS, *own, *graph, *described, *((CROSSES,) if self.crosses else ()))


def modelled_pairs(content: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """The method of each pair of fields that a network models, memorized ones first, by what its manifest says.

    Raises:
        ValueError: a pair is none of the fields.
    """
    pairs = (content.get("architecture") or {}).get("pairs")
    if not pairs:
        return {}
    # The architecture numbers the fields that have one value a row; lists are none of them.
    names = [entry["name"] for entry in content["fields"] if entry["kind"] != "list"]
    found = [("memorize", *pair) for pair in pairs["memorized"]]
    found += [("factorize", *pair) for pair in pairs["factorized"]]
    for slot in (slot for _, *pair in found for slot in pair):
        if not 0 <= slot < len(names):
            raise ValueError(f"pairs: expected slots from 0 to {len(names) - 1}, found {slot}")
    return {(names[one], names[other]): method for method, one, other in found}


def broken(folder: Path, found: str) -> DataError:
    """The error of a bundle that is not as it was written."""
    return DataError(f'bundle "{folder}": {found}; export or copy the bundle again')


def render_manifest(content: Mapping[str, Any]) -> str:
    """The one text of a manifest, with its checksum."""
    plain = {key: value for key, value in content.items() if key != "checksum"}
    digest = hashlib.sha256(_text(plain).encode()).hexdigest()
    return _text({**plain, "checksum": digest})


def _whole(text: str) -> bool:
    """Whether the text of a manifest is the one that its checksum is of. Far faster than to render it again."""
    end = _CHECKSUM.search(text, max(0, len(text) - 100))
    if end is None or end.end() != len(text):
        return False
    return hashlib.sha256(f"{text[: end.start()]}\n}}\n".encode()).hexdigest() == end[1]


def require_short(folder: Path, name: str) -> None:
    """Refuse a text file of a bundle that nothing of ours would be as long as: reading it takes a hundredfold.

    Raises:
        DataError: it is longer.
    """
    if (folder / name).stat().st_size > LARGEST_TEXT:
        raise broken(folder, f'"{name}" is larger than {LARGEST_TEXT >> 20} MB')


def read_json(text: str | bytes) -> Any:
    """The content of a JSON text in which no object has a key twice: readers differ in which of them they take.

    Raises:
        ValueError: it is none.
    """
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'the key "{twice[:100]}" is there twice')
    return found


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of `path`."""
    with path.open("rb") as stream:
        return FileEntry(bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        ConfigError: there is no bundle, or it was written by a newer version.
        DataError: the manifest is missing from a bundle, or was altered.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise _no_manifest(folder)
    if path.is_symlink():
        raise broken(folder, f'"{MANIFEST}" is a link; a bundle\'s files lie in its folder')
    require_short(folder, MANIFEST)
    try:
        text = path.read_bytes().decode("utf-8")
        content = read_json(text)
    except (ValueError, RecursionError) as error:
        raise broken(folder, f'"{MANIFEST}" is no valid JSON: {first_line(error)}') from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version < 1:
        raise broken(folder, f'"{MANIFEST}": expected a format_version, found {version!r}')
    if version > FORMAT_VERSION:
        raise ConfigError(
            f'bundle "{folder}": has format version {version}, this ctr ({ctr.__version__}) reads up to '
            f"{FORMAT_VERSION}; upgrade ctr"
        )
    try:
        if not _whole(text):
            raise ValueError("its checksum is not the one recorded, the file was altered")
        manifest = Manifest.model_validate_json(text)
        if version >= GRAPHS:  # what came before is read by what builds the network
            ArchitectureEntry.model_validate_json(json.dumps(manifest.architecture))
        if (manifest.network is None) != (version < GRAPHS):
            raise ValueError(
                f"network: format version {version} has {'a' if version >= GRAPHS else 'no'} graph"
            )
        return manifest
    except (ValueError, RecursionError) as error:  # a ValidationError is a ValueError
        raise broken(folder, f'"{MANIFEST}": {first_line(error)}') from None


def _no_manifest(folder: Path) -> CtrError:
    """Damaged where other files of a bundle are there; otherwise the path is wrong."""
    if not folder.exists():
        return ConfigError(f'bundle "{folder}": no such folder')
    if not folder.is_dir():
        return ConfigError(f'bundle "{folder}": expected the folder of a bundle, found a file')
    if any((folder / name).exists() for name in (*ALWAYS, VOCABULARY, KEPT_VALUES)):
        return broken(folder, f'the file "{MANIFEST}" is missing')
    inside = folder / "bundle"
    hint = f'; this run\'s bundle is "{inside}"' if (inside / MANIFEST).is_file() else ""
    return ConfigError(f'bundle "{folder}": expected a file "{MANIFEST}" in it, found none{hint}')


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, ValidationError):
        detail = error.errors(include_url=False)[0]
        return ": ".join(each for each in (".".join(map(str, detail["loc"])), detail["msg"]) if each)
    return (str(error).splitlines() or [type(error).__name__])[0]


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
