"""How fast we train and score beside FuxiCTR, on the same ids, with the same DeepFM, one step of each in turns.

FuxiCTR (https://github.com/reczoo/FuxiCTR, measured with 2.3.10) is no dependency; where it cannot be imported this
part is left out. Its models are not part of its package, so its DeepFM is put together here from its own layers as its
`model_zoo/DeepFM` does; optimizer (dense Adam), training step (with its clipping of gradients) and the loop that
predicts are its `BaseModel`'s. Both get ready-made batches: FuxiCTR the dict of columns that its loaders give.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from ctr.serving.forward import probabilities
from ctr.serving.rows import EncodedRows
from pipelines.benchmarks.memory import BYTES_OF_A_FEATURE, fits
from pipelines.benchmarks.steps import (
    DIM,
    DRAWN,
    FIELDS,
    LabelledInputs,
    Setting,
    Turn,
    deepfm,
    fed,
    random_batches,
    seconds_in_turns,
    training_step,
)

Columns = dict[str, torch.Tensor]


def importable() -> bool:
    """Whether FuxiCTR is there."""
    return importlib.util.find_spec("fuxictr") is not None


def measure(setting: Setting) -> dict[str, float]:
    """Our rows per second over FuxiCTR's; nothing where FuxiCTR is not installed.

    Returns:
        train_over_fuxictr_1m and _10m (of training steps), fuxictr_rows_per_second_1m and _10m (of its own),
        score_over_fuxictr_1m (from ids to probabilities in float64).
    """
    if not importable():
        return {}
    results = _beside(setting.million, "1m", setting, scoring=True)
    # FuxiCTR's Adam is dense: weights, their gradients and two moments, of every feature.
    needed = 10 * setting.million * (BYTES_OF_A_FEATURE + 4 * 4 * (DIM + 1))
    if fits("peers at 10 million features", 1.1 * needed + 1e9):
        results |= _beside(10 * setting.million, "10m", setting, scoring=False)
    return results


def _beside(features: int, name: str, setting: Setting, *, scoring: bool) -> dict[str, float]:
    size = features // FIELDS
    batches = list(random_batches(features, DRAWN, setting.batch))
    columns = [_columns(batch, size) for batch in batches]
    ours, theirs = deepfm(features, setting), fuxictr_deepfm(size, setting.hidden)
    theirs.train()
    turns: dict[str, Turn] = {
        "ours": fed(training_step(ours), batches),
        "theirs": lambda number: theirs.train_step(columns[number % DRAWN]),
    }
    seconds = seconds_in_turns(turns, setting.steps)
    results = {
        f"fuxictr_rows_per_second_{name}": setting.batch / seconds["theirs"],
        f"train_over_fuxictr_{name}": seconds["theirs"] / seconds["ours"],
    }
    if scoring:
        ours.eval()
        encoded = [EncodedRows(*(_array(tensor) for tensor in inputs)) for inputs, _ in batches]
        turns = {
            "ours": lambda number: probabilities(ours, encoded[number % DRAWN]),
            "theirs": lambda number: theirs.predict([columns[number % DRAWN]]),
        }
        seconds = seconds_in_turns(turns, setting.steps)
        results[f"score_over_fuxictr_{name}"] = seconds["theirs"] / seconds["ours"]
    return results


def fuxictr_deepfm(size: int, hidden: tuple[int, ...]) -> Any:
    """FuxiCTR's DeepFM over fields of `size` values each, compiled with its usual optimizer, loss and learning rate."""
    from fuxictr.features import FeatureMap
    from fuxictr.pytorch.layers import FactorizationMachine, FeatureEmbedding, MLP_Block
    from fuxictr.pytorch.models import BaseModel

    class DeepFM(BaseModel):  # type: ignore[misc]  # FuxiCTR has no types
        def __init__(self, feature_map: Any) -> None:
            super().__init__(feature_map, verbose=0, model_root="", metrics=["AUC"])
            self.embedding_layer = FeatureEmbedding(feature_map, DIM)
            self.fm = FactorizationMachine(feature_map)
            self.mlp = MLP_Block(FIELDS * DIM, list(hidden), output_dim=1)
            self.compile("adam", "binary_crossentropy", 1e-3)
            self.reset_parameters()
            self.model_to_device()
            self._max_gradient_norm = 10.0  # what its `fit` sets

        def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            columns = self.get_inputs(inputs)
            vectors = self.embedding_layer(columns)
            logits = self.fm(columns, vectors) + self.mlp(vectors.flatten(start_dim=1))
            return {"y_pred": self.output_activation(logits)}

    torch.manual_seed(0)
    feature_map = FeatureMap("random", "")
    # 0 is padding, as its tokenizer numbers values.
    spec = {"source": "", "type": "categorical", "padding_idx": 0, "vocab_size": size + 1}
    feature_map.features.update({f"field_{slot}": spec for slot in range(FIELDS)})
    feature_map.labels = ["label"]
    feature_map.num_fields, feature_map.default_emb_dim = FIELDS, DIM
    return DeepFM(feature_map)


def _columns(batch: LabelledInputs, size: int) -> Columns:
    """A batch as FuxiCTR's loaders give it: a column of ids of each field, from 1, and one of labels."""
    inputs, labels = batch
    ids = inputs.ids - size * torch.arange(FIELDS)
    return {f"field_{slot}": ids[:, slot].contiguous() for slot in range(FIELDS)} | {"label": labels}


def _array(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else tensor.numpy()
