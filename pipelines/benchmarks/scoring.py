"""How fast the forward pass scores ready-made batches, beside the same MLP alone."""

from pipelines.benchmarks.steps import (
    DRAWN,
    Setting,
    deepfm,
    forward_turn,
    mlp_alone,
    random_batches,
    seconds_in_turns,
)


def measure(setting: Setting) -> dict[str, float]:
    """In turns, at 1 million features: score_rows_per_second_1m, score_ratio (rows per second over the MLP's)."""
    batches = list(random_batches(setting.million, DRAWN, setting.batch))
    network = deepfm(setting.million, setting).eval()
    turns = {"mlp": mlp_alone(setting)[1], "score": forward_turn(network, batches)}
    seconds = seconds_in_turns(turns, setting.steps)
    return {
        "score_rows_per_second_1m": setting.batch / seconds["score"],
        "score_ratio": seconds["mlp"] / seconds["score"],
    }
