"""The other way from raw rows to probabilities: by the dataset and a checkpoint of the run, not the bundle's own."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ctr.config import Config
from ctr.dataset.encoding import Encoder
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.layout import Layout
from ctr.dataset.preparation import Preparation
from ctr.dataset.reading import Chunk
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.jobs.networks import Networks
from ctr.jobs.train import load_report
from ctr.network.network import Network, build
from ctr.selection.pair_space import cross_index
from ctr.serving.bundle import Bundle
from ctr.serving.forward import probabilities, read_architecture
from ctr.serving.network_files import as_stored
from ctr.serving.rows import encoded_rows
from ctr.serving.storage import Dtype
from ctr.settings import check, load_toml
from ctr.training.checkpoint import load_checkpoint

Floats = npt.NDArray[np.float64]


class TrainingPath:
    """Scores raw rows as training read them: the dataset's vocabulary, the network of the checkpoint, PyTorch.

    Weights are rounded as the bundle stores them: what that changes is told beside, not allowed for.

    Where pairs are memorized, which crosses have a row is taken from the bundle; all else is the run's own.

    Args:
        run: the folder of the finished run that made the bundle.
        bundle: the bundle.
        columns: of the rows that will come.

    dtype: in which the bundle stores weights.

    Raises:
        ConfigError: the folder is no finished run, is not the one that made the bundle, or its dataset is gone.
        CtrError: a file of the run is damaged.
    """

    def __init__(self, run: Path, bundle: Bundle, columns: list[str]) -> None:
        config = _config(run)
        dataset = _dataset(run, config)
        name = bundle.manifest.provenance.get("model")
        if dataset.digest != bundle.manifest.dataset or not isinstance(name, str):
            raise ConfigError(
                f'run "{run}": expected the run that made the bundle "{bundle.folder}", found another '
                "(or one of an earlier version, which did not say which model it exported)"
            )
        layout = _layout(run, config, dataset, bundle)
        self._keep_rate = dataset.schema.keep_rate
        self._preparation = Preparation.from_dataset(dataset.folder, columns, layout.fields)
        whole = dataset.vocabulary.with_columns(pl.Series("id", layout.numbers, dtype=pl.Int32))
        vocabulary = None if dataset.hashed else whole
        self._encoder = Encoder(dataset.schema, dataset.manifest["fields"], vocabulary, layout.fields)
        self._reader = layout.reader
        self._exact = _network(run / "checkpoints" / name / "best", bundle)
        self.dtype: Dtype = bundle.manifest.network.dtype if bundle.manifest.network else "float32"
        self._stored = as_stored(self._exact, self.dtype)

    @property
    def columns(self) -> list[str]:
        """The raw columns that are read."""
        return self._preparation.raw_columns

    def score(self, chunk: Chunk, first: int) -> tuple[Floats, Floats]:
        """Probabilities (chunk.count,) with the weights that are stored, and with those that were trained.

        They are NaN where a row breaks the schema.

        Args:
            chunk: rows, personal cells replaced. first: number, in its file, of the chunk's first row.
        """
        prepared = self._preparation(chunk)
        rows = encoded_rows(self._encoder.encode(prepared.frame), self._encoder.fields, self._reader)

        def scores(network: Network) -> Floats:
            result = np.full(prepared.count, np.nan)
            result[prepared.rows - first] = probabilities(network, rows, self._keep_rate)
            result[prepared.bad["row"].to_numpy() - 1 - first] = np.nan
            return result

        stored = scores(self._stored)
        return stored, stored if self._stored is self._exact else scores(self._exact)


def _config(run: Path) -> Config:
    if not (run / "DONE").is_file():
        raise ConfigError(f'run "{run}": expected the folder of a finished run, found none there')
    path = run / "config.toml"
    return check(load_toml(path, "config"), Config, f'config "{path}"')


def _dataset(run: Path, config: Config) -> Dataset:
    facts = load_report(run)["dataset"]
    folder = Path(config.data.folder) / f"{facts['name']}-{facts['digest'][:12]}"
    if not folder.is_dir():
        raise ConfigError(
            f'run "{run}": its dataset "{folder}" is not there; go to the folder that the run was started in, or run '
            "it again"
        )
    return Dataset(folder)


def _layout(run: Path, config: Config, dataset: Dataset, bundle: Bundle) -> Layout:
    networks = Networks(config, dataset, torch.device("cpu"))
    if bundle.manifest.feature_set is None:
        return networks.everything
    return networks.layout(FeatureSet.load(run / "feature_set"))


def _network(checkpoint: Path, bundle: Bundle) -> Network:
    state = load_checkpoint(checkpoint)
    if state is None:
        raise ConfigError(f'"{checkpoint}": the weights that the bundle was exported from are not there')
    architecture = read_architecture(bundle.manifest.architecture)
    crosses = None
    if bundle.manifest.crosses is not None:
        crosses = bundle.crosses(bundle.vocabulary())
    network = build(architecture, index=None if crosses is None else cross_index(crosses))
    network.load_state_dict(state["network"])
    return network.eval()
