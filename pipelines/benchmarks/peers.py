"""How fast we train and score beside FuxiCTR and LightGBM, where they are installed.

FuxiCTR (https://github.com/reczoo/FuxiCTR, measured with 2.3.10) has the same ids and the same DeepFM, one step of each
in turns. It is no dependency, and its models are not part of its package, so its DeepFM is put together here from its
own layers as its `model_zoo/DeepFM` does; optimizer (dense Adam), training step (with its clipping of gradients) and
the loop that predicts are its `BaseModel`'s. Both get ready-made batches: FuxiCTR the dict of columns that its loaders
give.

LightGBM boosts trees over the same ids as categories: a whole training, binning included, beside one epoch of ours over
the same rows. The two learn different things; what each is worth is for `pipelines.benchmarks.quality` to say.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch

from ctr.serving.forward import probabilities
from ctr.training.machine import bf16_speed
from pipelines.benchmarks.memory import BYTES_OF_A_FEATURE, fits
from pipelines.benchmarks.scoring import encoded_ids
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
_TREES = 100  # LightGBM's usual number


def importable() -> list[str]:
    """Those that are there."""
    return [name for name in ("fuxictr", "lightgbm") if importlib.util.find_spec(name) is not None]


def measure(setting: Setting) -> dict[str, float]:
    """Our rows per second over a peer's; nothing of one that is not installed.

    Returns:
        train_over_fuxictr_1m and _10m (of training steps), fuxictr_rows_per_second_1m and _10m (of its own),
        score_over_fuxictr_1m (from ids to probabilities in float64); where bf16 is fast (see `bf16_speed`) also
        train_bf16_over_fuxictr_1m and _10m (ours in bf16, its in float32: it has no such setting);
        lightgbm_rows_per_second_1m (rows over the time of a training), epoch_over_lightgbm_1m (an epoch's rows per
        second of ours over that).
    """
    there = importable()
    results = _beside_fuxictr(setting) if "fuxictr" in there else {}
    return results | (_beside_lightgbm(setting) if "lightgbm" in there else {})


def _beside_lightgbm(setting: Setting) -> dict[str, float]:
    import lightgbm

    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    ids = torch.cat([inputs.ids for inputs, _ in batches]).numpy()
    labels = torch.cat([labels for _, labels in batches]).numpy()
    step = training_step(deepfm(setting.million, setting))

    def epoch(number: int) -> None:
        for batch in batches:
            step(*batch)

    def boosting(number: int) -> None:
        rows = lightgbm.Dataset(ids - ids.min(axis=0), labels, categorical_feature=list(range(FIELDS)))
        lightgbm.train({"objective": "binary", "num_leaves": 31, "verbosity": -1}, rows, _TREES)

    seconds = seconds_in_turns({"ours": epoch, "theirs": boosting}, max(1, setting.steps // 4))
    return {
        "lightgbm_rows_per_second_1m": len(labels) / seconds["theirs"],
        "epoch_over_lightgbm_1m": seconds["theirs"] / seconds["ours"],
    }


def _beside_fuxictr(setting: Setting) -> dict[str, float]:
    results = _beside(setting.million, "1m", setting, scoring=True)
    # FuxiCTR's Adam is dense: weights, their gradients and two moments, of every feature.
    needed = 10 * setting.million * (2 * BYTES_OF_A_FEATURE + 4 * 4 * (DIM + 1))
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
    if bf16_speed() > 1.0:
        turns["bf16"] = fed(training_step(deepfm(features, setting), precision="bf16"), batches)
    seconds = seconds_in_turns(turns, setting.steps)
    results = {
        f"fuxictr_rows_per_second_{name}": setting.batch / seconds["theirs"],
        f"train_over_fuxictr_{name}": seconds["theirs"] / seconds["ours"],
    }
    if "bf16" in seconds:
        results[f"train_bf16_over_fuxictr_{name}"] = seconds["theirs"] / seconds["bf16"]
    if scoring:
        ours.eval()
        encoded = [encoded_ids(inputs.ids.numpy()) for inputs, _ in batches]
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
