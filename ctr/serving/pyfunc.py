"""A bundle as an MLflow model: takes raw log rows, gives click probabilities. Source and data, nothing pickled.

The folder of the model holds the bundle as an artifact, and of our source what scoring needs, so that it is loaded,
or served by `mlflow models serve`, where neither our repository nor PyTorch is.
"""

import logging
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel, PythonModelContext, save_model
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType

import ctr
from ctr.serving.bundle import GOLDEN_PROBABILITY, Bundle
from ctr.serving.scorer import Scorer

MODEL, BUNDLE, PROBABILITY = "model.py", "bundle", "probability"
_SOURCE = ("__init__.py", "errors.py", "settings.py", "dataset/*.py", "serving/*.py")
_PACKAGES = (
    *("mlflow", "numpy", "onnx", "onnxruntime", "pandas", "polars", "polars-hash", "pyarrow", "pydantic"),
    *("safetensors", "tomli_w"),
)
_EXAMPLES = 5  # golden rows
_CODE = """import mlflow

from ctr.serving.pyfunc import BundleModel

mlflow.models.set_model(BundleModel())
"""


class BundleModel(PythonModel):  # type: ignore[misc]  # of a library without types
    """Scores by the artifact "bundle"."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle, which is verified as ever."""
        # Whoever loads an MLflow model runs the code that it carries, and so trusts its bundle.
        self._scorer = Scorer(context.artifacts[BUNDLE], allow_paths=True)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Raw rows -> a column "probability", null where a row breaks the schema.

        Raises:
            DataError: a column is missing, or has a type that its field cannot have.
        """
        return pd.DataFrame({PROBABILITY: self._scorer.score(model_input)})


def write_model(bundle: Path, folder: Path) -> None:
    """Write an MLflow model that holds a bundle.

    Args:
        bundle: its folder.
        folder: of the model, which is made.
    """
    opened = Bundle.open(bundle)
    rows = opened.golden().drop(GOLDEN_PROBABILITY).select(opened.columns)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "ctr")
        for pattern in _SOURCE:
            for path in Path(ctr.__file__).parent.glob(pattern):
                target = source / path.relative_to(Path(ctr.__file__).parent)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        (Path(scratch) / MODEL).write_text(_CODE, encoding="utf-8")
        logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells what it does
        save_model(
            folder,
            python_model=str(Path(scratch) / MODEL),
            artifacts={BUNDLE: str(bundle)},
            code_paths=[str(source)],
            signature=_signature(rows.schema),
            input_example=rows.head(_EXAMPLES).to_pandas(),
            pip_requirements=[f"{name}=={version(name)}" for name in _PACKAGES],
        )


def _signature(columns: pl.Schema) -> ModelSignature:
    """Of raw rows, which must have all columns that scoring reads; cells may be null, as in a log."""
    inputs = [ColSpec(_type(dtype), name) for name, dtype in columns.items()]
    return ModelSignature(Schema(inputs), Schema([ColSpec("double", PROBABILITY)]))


def _type(dtype: pl.DataType) -> str | AnyType:
    """Of a column. MLflow's "long" and "boolean" take no null, and its "double" no integer: those are any type."""
    if dtype.is_temporal():
        return "datetime"
    return "string" if dtype == pl.String else AnyType()
