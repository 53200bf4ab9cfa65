import json
import math

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ctr.dataset.synthetic_spec import Categorical
from ctr.evaluation.metrics import measure
from ctr.training.machine import bf16_speed
from pipelines.benchmarks import evaluation, ingest, memory, peers, step_profile, tables
from pipelines.benchmarks.__main__ import PARTS, main
from pipelines.benchmarks.steps import Setting, deepfm, random_batches, seconds_in_turns, training_step

TINY = Setting(
    million=3_900,
    hidden=(8,),
    batch=64,
    steps=2,
    rows_ingested=400,
    rows_fed=2_000,
    rows_evaluated=5_000,
    rows_served=3_000,
    rows_loaded=3_000,
    served_hidden=(8,),
    requests=3,
)
FAST_BF16 = bf16_speed() > 1.0
KEYS = {
    "ingest": {
        "ingest_rows_per_second",
        "ingest_over_read",
        "ingest_cpu_over_read",
        "ingest_over_read_csv",
        "ingest_over_script",
        "peak_rss_bytes_ingest",
        "peak_rss_bytes_ingest_script",
        "ingest_added_file_over_whole",
        "ingest_nine_known_over_none",
    },
    "feeding": {"feeding_rows_per_second", "feeding_over_training"},
    "training": {
        "mlp_rows_per_second",
        "train_rows_per_second_1m",
        "train_rows_per_second_10m",
        "train_ratio_1m",
        "train_10m_over_1m",
        "peak_rss_bytes_training_1m",
        "peak_rss_bytes_training_10m",
        "training_rss_over_tables",
        "training_rss_over_tables_1m",
        "training_rss_over_tables_10m",
        "training_rss_beyond_tables_1m",
        "training_rss_beyond_tables_10m",
        "unified_over_table_1m",
        "unified_hashed_over_table_1m",
    },
    "search": {"search_over_plain_1m"},
    "evaluation": {
        "evaluation_seconds_10m",
        "evaluation_over_sort",
        "metrics_over_sort",
        "difference_over_sort",
        "peak_rss_bytes_evaluation",
        "offline_seconds_10m",
        "offline_histogram_seconds_10m",
        "peak_rss_bytes_offline",
    },
    "latency": {
        key.format(bundle)
        for bundle in ("keep_all", "selected")
        for key in (
            *(
                f"latency_{{}}_p{share}_ms_{what}"
                for share in (50, 99)
                for what in ("1", "32", "1024", "ranking")
            ),
            *(
                "load_seconds_{}",
                "resident_bytes_{}",
                "bundle_bytes_{}",
                "features_{}",
                "score_rows_per_second_{}",
            ),
        )
    },
    "scoring": {
        "score_rows_per_second_1m",
        "score_ratio",
        "served_rows_per_second_1m",
        "served_ratio",
        "scored_file_rows_per_second",
        "scored_file_ratio",
    },
    "ingest_50m": {
        "ingest_rows_per_second_50m",
        "ingest_over_read_50m",
        "ingest_cpu_over_read_50m",
        "peak_rss_bytes_ingest_50m",
        "ingest_features_50m",
        "ingest_distinct_50m",
    },
    "profile": {
        *(f"profile_share_{phase}" for phase in step_profile.PHASES),
        *(f"profile_sparse_adam_share_{phase}" for phase in step_profile.PHASES),
        "profile_sparse_adam_over_ours",
    },
    "epochs": {
        "evaluation_over_epoch",
        "search_and_retrain_over_plain",
        *(
            key
            for key in (
                "evaluation_over_epoch_bf16",
                "search_and_retrain_over_plain_bf16",
                "stages_bf16_over_float32",
            )
            if FAST_BF16
        ),
    },
    "precision": {
        "bf16_product_speed",
        *(
            key
            for key in (
                "train_bf16_over_float32_1m",
                "train_bf16_over_float32_10m",
                "train_bf16_rows_per_second_1m",
            )
            if FAST_BF16
        ),
    },
    "selectors": {"trial_over_search", "trial_of_one_size_over_search", "trial_passes_over_search"},
    "tables": {
        "tables_distinct_1m",
        "tables_distinct_10m",
        "table_steps_per_second_1m",
        "table_steps_per_second_10m",
        "sparse_adam_over_table_1m",
        "sparse_adam_over_table_10m",
        *(f"fbgemm_over_table_{name}" for name in ("1m", "10m") if tables.importable()),
    },
    "loading": {
        "features_loaded",
        "load_seconds_1m",
        "load_seconds_per_million",
        "index_bytes_per_value",
    },
    "training_33m": {"train_rows_per_second_33m", "train_33m_over_1m"},
    "search_10m": {"search_over_plain_10m"},
}
KEYS_OF_PEERS = {
    "fuxictr": {
        "fuxictr_rows_per_second_1m",
        "fuxictr_rows_per_second_10m",
        "train_over_fuxictr_1m",
        "train_over_fuxictr_10m",
        "score_over_fuxictr_1m",
        *(f"train_bf16_over_fuxictr_{name}" for name in ("1m", "10m") if FAST_BF16),
    },
    "lightgbm": {"lightgbm_rows_per_second_1m", "epoch_over_lightgbm_1m"},
}
KEYS["peers"] = {key for name in peers.importable() for key in KEYS_OF_PEERS[name]}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


LONG = {"ingest", "latency", "scoring"}  # that start several processes


@pytest.mark.parametrize(
    "part",
    [
        name if part.usual and name not in LONG else pytest.param(name, marks=pytest.mark.slow)
        for name, part in PARTS.items()
    ],
)
def test_every_part_runs_by_name_and_gives_its_keys(part, tmp_path, capsys):
    if part == "peers" and not peers.importable():
        pytest.skip("no peer is installed")
    main([part, "--out", str(tmp_path / "bench.json")], TINY)
    assert capsys.readouterr().out.startswith(f"{part}: {PARTS[part].about}\n")
    results = json.loads((tmp_path / "bench.json").read_text())
    assert results.keys() == {"cores"} | KEYS[part]
    assert all(math.isfinite(value) and value > 0.0 for value in results.values())


def test_without_a_name_the_usual_parts_run_and_missing_peers_are_left_out_in_silence(monkeypatch, capsys):
    ran = []
    for name, part in PARTS.items():
        monkeypatch.setitem(
            PARTS, name, part._replace(measure=lambda setting, name=name: ran.append(name) or {})
        )
    monkeypatch.setattr(peers, "importable", list)
    main([], TINY)
    assert ran == ["ingest", "feeding", "training", "search", "evaluation", "scoring", "latency"]
    assert "uxi" not in capsys.readouterr().out


def test_missing_peers_asked_for_by_name_are_refused_with_how_to_get_them(monkeypatch, capsys):
    monkeypatch.setattr(peers, "importable", list)
    with pytest.raises(SystemExit) as refused:
        main(["peers"], TINY)
    assert refused.value.code == 2
    assert ".[peers]" in capsys.readouterr().err


def test_an_unknown_part_is_refused_with_the_names_there_are(capsys):
    with pytest.raises(SystemExit) as refused:
        main(["scoring", "scorin"], TINY)
    assert refused.value.code == 2
    assert "no such part: scorin; there are ingest, feeding" in capsys.readouterr().err


def test_against_shows_the_earlier_figure_beside_the_new_one(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(
        PARTS, "scoring", PARTS["scoring"]._replace(measure=lambda setting: {"score_ratio": 0.75, "new": 1.0})
    )
    (tmp_path / "before.json").write_text('{"cores": 0, "score_ratio": 0.5, "gone": 1.0}')
    main(["scoring", "--against", str(tmp_path / "before.json")], TINY)
    *figures, last = capsys.readouterr().out.splitlines()[1:]
    lines = {line.split()[0]: line.split()[1:] for line in figures}
    assert lines["score_ratio"] == ["0.750", "before", "0.500", "(1.50x)"]
    assert lines["new"] == ["1.000"]
    assert lines.keys() == {"cores", "score_ratio", "new"}
    assert "another number of cores" in last


def test_figures_of_all_parts_that_are_gone_are_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        "pipelines.benchmarks.__main__._measured", lambda names, setting: {"score_ratio": 1.0}
    )
    (tmp_path / "before.json").write_text('{"cores": 0, "score_ratio": 0.0, "gone": 1.0}')
    main(["--against", str(tmp_path / "before.json")], TINY)
    assert capsys.readouterr().out.endswith("Not measured now: gone\n")


@pytest.mark.parametrize("text", [None, "{", "[1]", '{"score_ratio": null}', '{"score_ratio": "fast"}'])
def test_what_is_no_earlier_run_is_refused_before_anything_is_measured(text, tmp_path, capsys):
    if text is not None:
        (tmp_path / "before.json").write_text(text)
    with pytest.raises(SystemExit) as refused:
        main(["scoring", "--against", str(tmp_path / "before.json")], TINY)
    assert refused.value.code == 2
    said = capsys.readouterr()
    assert "that --out has written" in said.err
    assert not said.out


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(SystemExit) as refused:
        main(["scoring", "--out", str(tmp_path / "none" / "bench.json")], TINY)
    assert refused.value.code == 2
    assert 'there is no folder "' in capsys.readouterr().err


def test_turns_alternate_and_the_first_rounds_are_not_counted():
    called = []
    seconds = seconds_in_turns(
        {"a": lambda number: called.append(f"a{number}"), "b": lambda number: called.append(f"b{number}")}, 1
    )
    assert called == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert seconds.keys() == {"a", "b"}


def test_scored_rows_are_calibrated_and_the_first_model_is_the_worse_one():
    labels, first, second = evaluation.scored_rows(100_000)
    found = measure(labels, second)
    assert found.calibration_ratio == pytest.approx(1.0, abs=0.03)
    assert 0.01 < found.auc - measure(labels, first).auc < 0.1


def test_a_part_that_does_not_fit_says_how_much_it_needs(capsys):
    assert memory.fits("small", 1.0)
    assert not memory.fits("large", 1e15)
    assert "large: left out, needs 1000000.0 GB" in capsys.readouterr().out


def test_the_peak_of_an_own_process_is_not_the_one_of_its_parent():
    held = np.ones(50_000_000)  # 400 MB
    assert memory.peak_rss_bytes() > held.nbytes
    assert memory.in_own_process(memory.peak_rss_bytes) < memory.peak_rss_bytes() - held.nbytes / 2


def test_the_log_of_50_million_rows_has_as_many_distinct_values_as_criteos():
    expected = 0.0
    for field in ingest.long_tailed().fields:
        if isinstance(field, Categorical):
            shares = np.arange(1.0, field.cardinality + 1.0) ** -field.zipf
            rows = 50e6 * (1.0 - field.missing) * shares / shares.sum()
            expected -= np.expm1(-rows).sum()
    assert expected > 30e6


def test_a_profile_knows_the_backward_pass_of_each_phase():
    network = deepfm(3_900, TINY)
    step = training_step(network)
    with step_profile.named(network), profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(*next(random_batches(3_900, 1, 64)))
    found = step_profile.by_phase(profiler.events())
    assert found.keys() == set(step_profile.PHASES) - {"feeding"}
    whole = sum(event.cpu_time_total for event in profiler.events() if event.cpu_parent is None)
    assert sum(found.values()) == pytest.approx(whole)
    by_name = {event.name: event.self_cpu_time_total for event in profiler.events()}
    assert by_name["LookupBackward"] < found["gather"]
    assert by_name["aten::threshold_backward"] < found["mlp_backward"]


def test_fbgemm_looks_up_the_same_rows():
    pytest.importorskip("fbgemm_gpu")
    ids = next(random_batches(390, 1, 4))[0].ids
    table, by_field, bags = tables.fbgemm_table(390, [ids])
    weight = table.split_embedding_weights()[0]
    assert table(by_field[0], bags).view(4, 39, 16).equal(weight[ids])


def test_fuxictr_gets_the_same_ids_and_has_as_many_weights():
    pytest.importorskip("fuxictr")
    (inputs, labels), size = next(random_batches(390, 1, 4)), 10
    columns = peers._columns((inputs, labels), size)
    for slot in range(39):
        assert (columns[f"field_{slot}"] + slot * size).tolist() == inputs.ids[:, slot].tolist()
    theirs = sum(weight.numel() for weight in peers.fuxictr_deepfm(size, (8,)).parameters())
    ours = sum(weight.numel() for weight in deepfm(390, TINY).parameters())
    assert theirs == ours + 38 * 17  # a padding row for each field, where we have one for all
