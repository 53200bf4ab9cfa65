"""The synthetic logs that come with the package."""

from ctr.dataset.synthetic_spec import Categorical, Hour, Listed, Numeric, Pair, Planted, SyntheticSpec


def _demo() -> SyntheticSpec:
    """Build the log of the demo: 200 thousand rows train in seconds, and most features are noise."""
    weak, plain, strong = (0.25, 0.45), (0.45, 0.7), (0.7, 1.0)
    fields: tuple[Planted, ...] = (
        Categorical(name="site", cardinality=60, matters=1.0, effect=weak, min_count=3),
        Categorical(name="category", cardinality=40, matters=1.0, effect=weak, min_count=3),
        Categorical(
            name="advertiser", cardinality=150, zipf=0.3, matters=1.0, effect=plain, late=0.2, min_count=3
        ),
        Categorical(name="campaign", cardinality=150, zipf=0.3, matters=1.0, effect=plain, min_count=3),
        Categorical(name="ad", cardinality=400, zipf=0.3, matters=0.3, effect=strong, min_count=3),
        Categorical(
            name="city", cardinality=320, zipf=0.3, matters=0.3, effect=strong, missing=0.05, min_count=3
        ),
        Categorical(name="device", cardinality=30, matters=1.0, effect=weak, min_count=3),
        Categorical(name="slot", cardinality=24, matters=1.0, effect=weak, min_count=3),
        Categorical(name="segment", cardinality=40, matters=1.0, effect=weak, min_count=3),
        Categorical(name="topic", cardinality=40, matters=1.0, effect=weak, min_count=3),
        Listed(
            name="interests",
            cardinality=120,
            zipf=0.3,
            matters=0.3,
            effect=(0.8, 1.2),
            missing=0.03,
            min_count=3,
        ),
        Categorical(name="session", cardinality=1200, zipf=0.4, missing=0.02, min_count=3),
        Categorical(name="browser", cardinality=500, zipf=0.4, min_count=3),
        Categorical(name="network", cardinality=600, zipf=0.4, min_count=3),
        Categorical(name="placement", cardinality=900, zipf=0.4, late=0.2, min_count=3),
        Categorical(name="creative", cardinality=700, zipf=0.4, min_count=3),
        Numeric(name="price", lowest=1.0, scale=40.0, tail=1.5, effect=0.4, missing=0.1, missing_effect=0.4),
        Numeric(name="recency", transform="quantile", effect=0.4, shape="hill"),
        Numeric(name="battery", transform="quantile", missing=0.05),
        Hour(effect=0.25),
    )
    pairs = (
        Pair(field_a="device", field_b="slot", kind="memorize", strength=0.45),
        Pair(field_a="segment", field_b="topic", kind="factorize", strength=0.45),
    )
    return SyntheticSpec(name="demo", base_rate=0.2, days=10, fields=fields, pairs=pairs)


def _pairs() -> SyntheticSpec:
    """Build 20 fields with 190 pairs, 16 of them planted, meant for 300 thousand rows.

    A field takes part in up to three planted pairs, of both kinds, so that no field gives its pairs away.
    """
    sizes = (24, 40, 32, 28, 36)
    fields = tuple(
        Categorical(
            name=f"f{number:02d}",
            cardinality=sizes[number % 5],
            zipf=0.4,
            matters=1.0 if number % 2 else 0.0,
            effect=(0.1, 0.3),
            min_count=2,
        )
        for number in range(20)
    )
    memorized = ((0, 7), (1, 12), (2, 9), (3, 16), (4, 13), (5, 18), (6, 11), (8, 15))
    factorized = ((0, 12), (1, 7), (2, 16), (3, 9), (4, 18), (5, 13), (10, 14), (8, 11))
    pairs = (
        *(
            Pair(field_a=f"f{a:02d}", field_b=f"f{b:02d}", kind="memorize", strength=0.4)
            for a, b in memorized
        ),
        *(
            Pair(field_a=f"f{a:02d}", field_b=f"f{b:02d}", kind="factorize", strength=0.4)
            for a, b in factorized
        ),
    )
    return SyntheticSpec(name="pairs", base_rate=0.3, days=0, fields=fields, pairs=pairs)


def _drift() -> SyntheticSpec:
    """Build a log in which most ads and campaigns that matter are born while it runs: a feature set ages on it."""
    plain, strong = (0.4, 0.7), (0.6, 1.0)
    fields = (
        Categorical(name="ad", cardinality=600, zipf=0.3, matters=0.6, effect=strong, late=0.7),
        Categorical(name="campaign", cardinality=150, zipf=0.3, matters=1.0, effect=plain, late=0.5),
        Categorical(name="site", cardinality=80, matters=1.0, effect=plain),
        Categorical(name="device", cardinality=30, matters=1.0, effect=plain),
        Categorical(name="segment", cardinality=200, zipf=0.3, matters=0.5, effect=plain),
        Categorical(name="browser", cardinality=300, zipf=0.3),
        Categorical(name="session", cardinality=900, zipf=0.3),
        Hour(effect=0.25),
    )
    return SyntheticSpec(name="drift", base_rate=0.2, days=14, fields=fields)


# Per numeric column of Criteo's log: lowest, scale, tail, share missing, effect (0: noise); shapes fitted by
# eye to the quantiles of the public sample.
_CRITEO_NUMERIC = (
    (0, 3.0, 1.4, 0.45, 0.3), (-3, 12.0, 0.8, 0.0, 0.0), (0, 9.0, 1.0, 0.21, 0.1),
    (0, 14.0, 2.5, 0.21, 0.0), (0, 4000.0, 1.0, 0.03, 0.2), (0, 60.0, 1.2, 0.22, 0.3),
    (0, 4.0, 1.0, 0.04, 0.3), (0, 20.0, 3.0, 0.001, 0.0), (0, 80.0, 1.5, 0.04, 0.1),
    (0, 0.8, 3.0, 0.45, 0.1), (0, 2.0, 1.3, 0.04, 0.3), (0, 0.5, 1.0, 0.76, 0.0), (0, 12.0, 2.0, 0.21, 0.2),
)  # fmt: skip
# Per categorical column: cardinality in the public log, zipf, share missing, share of values that matter.
_CRITEO_CATEGORICAL = (
    (1_460, 1.3, 0.0, 0.3), (583, 0.9, 0.0, 1.0), (10_131_227, 1.0, 0.035, 0.2), (2_202_608, 1.0, 0.035, 0.2),
    (305, 1.5, 0.0, 0.0), (24, 1.2, 0.12, 1.0), (12_517, 0.6, 0.0, 0.3), (633, 1.4, 0.0, 0.0),
    (3, 1.5, 0.0, 1.0), (93_145, 0.9, 0.0, 0.2), (5_683, 0.6, 0.0, 0.3), (8_351_593, 1.0, 0.035, 0.0),
    (3_194, 0.6, 0.0, 0.3), (27, 1.1, 0.0, 1.0), (14_992, 0.7, 0.0, 0.0), (5_461_306, 1.0, 0.035, 0.2),
    (10, 0.9, 0.0, 1.0), (5_652, 0.8, 0.0, 0.3), (2_173, 1.1, 0.44, 0.3), (4, 0.3, 0.44, 1.0),
    (7_046_547, 1.0, 0.035, 0.0), (18, 1.0, 0.76, 0.0), (15, 1.2, 0.0, 1.0), (286_181, 0.9, 0.035, 0.2),
    (105, 1.1, 0.44, 0.5), (142_572, 0.9, 0.44, 0.0),
)  # fmt: skip


def _criteo() -> SyntheticSpec:
    """Build a log of the shape of Criteo's: 13 numbers, 26 hexadecimal categories, no header."""
    numbers = tuple(
        Numeric(name=f"I{i}", lowest=float(lowest), scale=scale, tail=tail, missing=missing, effect=effect)
        for i, (lowest, scale, tail, missing, effect) in enumerate(_CRITEO_NUMERIC, 1)
    )
    categories = tuple(
        Categorical(
            name=f"C{i}",
            cardinality=cardinality,
            zipf=zipf,
            missing=missing,
            matters=matters,
            effect=(0.2, 0.8),
            text="hex",
            min_count=2,
        )
        for i, (cardinality, zipf, missing, matters) in enumerate(_CRITEO_CATEGORICAL, 1)
    )
    return SyntheticSpec(
        name="criteo",
        label="label",
        base_rate=0.25,
        days=0,
        separator="\t",
        header=False,
        fields=numbers + categories,
    )


PRESETS = {"demo": _demo, "pairs": _pairs, "criteo": _criteo, "drift": _drift}
