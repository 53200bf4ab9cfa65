"""How much faster training is where products are rounded to bfloat16 (`training.precision = "bf16"`)."""

from ctr.training.machine import bf16_speed
from pipelines.benchmarks.steps import (
    DRAWN,
    Setting,
    deepfm,
    fed,
    random_batches,
    seconds_in_turns,
    training_step,
)


def measure(setting: Setting) -> dict[str, float]:
    """Steps at a million features, and at ten, in bf16 and in float32, in turns.

    Returns:
        bf16_product_speed (of matrices alone, see `bf16_speed`); where that is above 1 also
        train_bf16_over_float32_1m and _10m, train_bf16_rows_per_second_1m.
    """
    results = {"bf16_product_speed": bf16_speed()}
    if results["bf16_product_speed"] <= 1.0:
        print("precision: left out: this processor multiplies float32 faster than bf16")
        return results
    for name, features in (("1m", setting.million), ("10m", 10 * setting.million)):
        batches = list(random_batches(features, DRAWN, setting.batch))
        turns = {
            precision: fed(training_step(deepfm(features, setting), precision=precision), batches)
            for precision in ("float32", "bf16")
        }
        seconds = seconds_in_turns(turns, setting.steps)
        results[f"train_bf16_over_float32_{name}"] = seconds["float32"] / seconds["bf16"]
        if name == "1m":
            results["train_bf16_rows_per_second_1m"] = setting.batch / seconds["bf16"]
    return results
