"""The forward pass of a bundle by ONNX Runtime. Needs no PyTorch.

Shapes: B rows, M memorized pairs, V features, W width of a table row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ctr.dataset.cross_rows import CrossRows
from ctr.dataset.crosses import CrossKeys
from ctr.errors import out_of_memory
from ctr.serving.graph_check import Extent, checked_graph, require_small
from ctr.serving.manifest import GRAPH, OUTPUTS, WEIGHTS, broken
from ctr.serving.rows import PER_VALUE, EncodedRows
from ctr.serving.storage import SCALE, TABLES
from ctr.serving.stored_graph import Stretch, stretches

_SILENT = 4  # ONNX Runtime prints nothing: what goes wrong is raised
_AT_ONCE = 1 << 27  # numbers of all tensors of one run together; few of them are there at the same time
_ROWS = 2048  # at once: what one layer leaves for the next stays in the processor's cache
_LOOKUPS = 16  # the most that a configuration may ask for
Tensors = Mapping[str, npt.NDArray[Any]]


class Session:
    """A network from its graph and its weights. Safe to call from several threads.

    The weights are handed over in memory: ONNX Runtime opens no file, whatever the graph says, and copies no table.

    Args:
        folder: of the bundle.
        weights: what `Bundle.weights` returned: every tensor by name, as it is stored.
        architecture: the fields of an `Architecture`, as JSON has them.
        inputs: names of what the graph reads.
        crosses: by which those of memorized pairs are found, where there are such pairs.
        threads: for one operator; None for as many as the machine has cores.

    most_rows: how many go through the network at once, so that a wide one does not take any memory.

    Raises:
        ValueError: graph, weights and architecture do not fit, or are not those of a network.
    """

    def __init__(
        self,
        folder: Path,
        weights: Tensors,
        architecture: Mapping[str, Any],
        inputs: Sequence[str],
        crosses: CrossKeys | None = None,
        threads: int | None = None,
    ) -> None:
        require_small(folder / GRAPH)
        content = (folder / GRAPH).read_bytes()
        stored = stretches(folder / WEIGHTS)
        axes = {name: "L" if name in PER_VALUE else "B" for name in inputs}
        graph, numbers = checked_graph(content, stored, WEIGHTS, axes, OUTPUTS, _extent(architecture, stored))
        _check_tables(weights, architecture)
        self._folder = folder
        self.most_rows = max(1, min(_ROWS, _AT_ONCE // numbers.rows))
        self._inputs, self._crosses = tuple(inputs), _cross_rows(crosses, architecture)
        # ONNX Runtime reads these arrays where they are, as long as it runs.
        self._weights = [weights[each.name] for each in graph.initializer if each.external_data]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        options.add_external_initializers(
            [each.name for each in graph.initializer if each.external_data],
            [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self._weights],
        )
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise _refused(error) from None

    def __call__(self, rows: EncodedRows) -> npt.NDArray[np.float64]:
        """Click probabilities (B,).

        Raises:
            DataError: rows have other shapes, or numbers of features beyond the tables.
        """
        return np.concatenate([self._run(piece) for piece in rows.pieces(self.most_rows)])

    def _run(self, rows: EncodedRows) -> npt.NDArray[np.float64]:
        given = {name: getattr(rows, name) for name in self._inputs if name != _CROSS_ROWS}
        if self._crosses is not None:
            given[_CROSS_ROWS] = self._crosses(rows.ids)
        try:
            (found,) = self._session.run([OUTPUTS[1]], given)
        except Exception as error:
            told = _refused(error)
            if isinstance(told, ValueError):
                told = broken(self._folder, f"its network cannot score these rows: {told}")
            raise told from None
        probabilities: npt.NDArray[np.float64] = found
        wrong = (probabilities < 0.0) | (probabilities > 1.0)
        if wrong.any():
            raise broken(self._folder, f"its network gave a probability of {probabilities[wrong][0]:g}")
        return probabilities


_CROSS_ROWS = "cross_rows"


def _refused(error: Exception) -> Exception:
    """What ONNX Runtime, whose errors have no class in common, said in one line; that memory ran out, as such."""
    said = " ".join(str(error).split())
    if out_of_memory(error) or "Failed to allocate memory" in said:
        return MemoryError(said)
    return ValueError(said) if type(error).__module__.startswith("onnxruntime") else error


def _extent(architecture: Mapping[str, Any], stored: Mapping[str, Stretch]) -> Extent:
    """How large the network is; a composition puts a vector together from several rows of a table."""
    lookups = [architecture["lookups"], *(number for _, number in architecture["odd_lookups"])]
    return Extent.of(architecture["fields"], min(max(lookups), _LOOKUPS), stored)


def _check_tables(weights: Tensors, architecture: Mapping[str, Any]) -> None:
    """Make sure that tables have the rows that they are said to have, and zeros for dropped features.

    Raises:
        ValueError: they do not.
    """
    pairs = architecture.get("pairs") or {}
    composed = bool(architecture.get("composition"))
    rows = {
        "table": architecture.get("rows"),
        "table.second": architecture.get("second_rows"),
        "crosses.memory": pairs.get("cross_rows"),
        "crosses.factors": architecture.get("rows") if composed else pairs.get("factor_rows"),
        "crosses.factors.second": architecture.get("second_rows"),
    }
    for table in TABLES:
        for name in (f"{table}.weight", f"{table}.weight{SCALE}"):
            if name not in weights:
                continue
            if weights[name].ndim != 2 or len(weights[name]) != rows[table]:
                raise ValueError(f'"{name}": expected {rows[table]} rows, found {weights[name].shape}')
            if weights[name][0].any():
                raise ValueError(f'"{name}": expected zeros in row 0, which dropped features read')


def _cross_rows(crosses: CrossKeys | None, architecture: Mapping[str, Any]) -> CrossRows | None:
    """What finds the crosses of memorized pairs; None where there are none.

    Raises:
        ValueError: the architecture memorizes other pairs.
    """
    pairs = architecture.get("pairs") or {}
    if crosses is None and not pairs.get("memorized"):
        return None
    if crosses is None:
        raise ValueError(f"expected crosses of {len(pairs['memorized'])} pairs, found none")
    single = architecture["fields"] - len(architecture["pooling"])
    slots = [(int(first), int(second)) for first, second in pairs.get("memorized", [])]
    if not all(0 <= slot < single for pair in slots for slot in pair):
        raise ValueError(f"pairs: expected slots from 0 to {single - 1}, found {slots}")
    return CrossRows(crosses, slots, pairs["cross_rows"], bool(pairs["hashed"]))
