"""The run configuration: defaults, every mistake told at once, changes from the command line, the digest."""

from datetime import date, datetime
from typing import get_args

import pytest

from ctr.config import BackboneConfig, Config, load_config
from ctr.dataset.split_spec import TimeSplit
from ctr.errors import ConfigError
from ctr.network.backbones import BACKBONES
from ctr.settings import check, dump_toml, load_toml

DATA = '[data]\nschema = "schema.toml"\ninput = "log.csv"\n'


@pytest.fixture
def load(tmp_path):
    """Loads a configuration of the given text (`[data]` is added) and changes."""

    def run(text: str = "", *changes: str, data: str = DATA) -> Config:
        path = tmp_path / "run.toml"
        path.write_text(text + "\n" + data, encoding="utf-8")
        return load_config(path, changes)

    return run


@pytest.fixture
def mistakes(load):
    """The lines of the message that a configuration gets, without the heading."""

    def run(text: str, *changes: str, data: str = DATA) -> list[str]:
        with pytest.raises(ConfigError) as error:
            load(text, *changes, data=data)
        heading, *lines = str(error.value).splitlines()
        assert 'run.toml"' in heading
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        assert heading.endswith(count)
        return [line.strip() for line in lines]

    return run


def test_schema_and_input_are_enough(load):
    config = load()
    assert (config.data.schema_file, config.data.input) == ("schema.toml", "log.csv")
    assert (config.name, config.seed, config.data.folder, config.output.folder) == (
        "run",
        0,
        "datasets",
        "runs",
    )
    assert (config.embedding.dim, config.backbone.hidden, config.training.batch_size) == (
        16,
        [256, 128],
        1024,
    )
    assert (config.backbone.kind, config.selector.kind, config.training.device) == ("deepfm", "optfs", "auto")
    assert (config.export.min_auc, config.tracking.uri) == (None, None)


@pytest.mark.parametrize("key", ["schema", "input"])
def test_schema_and_input_are_needed(mistakes, key):
    data = "".join(line + "\n" for line in DATA.splitlines() if not line.startswith(key))
    assert mistakes("", data=data) == [f"data.{key}: this key is required"]
    assert mistakes("", data="") == ["data: this key is required"]


def test_every_key_can_be_written_out_and_read_back(load, tmp_path):
    config = load("[selector]\nratio = [0.3, 0.1]\n")
    path = tmp_path / "resolved.toml"
    path.write_text(dump_toml(config.model_dump(mode="json", by_alias=True)))
    assert check(load_toml(path, "config"), Config, "again") == config


def test_unknown_keys_are_refused_with_the_nearest_name(mistakes):
    found = mistakes("sead = 1\n[training]\nbatchsize = 3\n[selektor]\n")
    assert sorted(found) == [
        'sead: unknown key; the nearest name is "seed"',
        'selektor: unknown key; the nearest name is "selector"',
        'training.batchsize: unknown key; the nearest name is "batch_size"',
    ]


WRONG = {
    "seed = -1": "seed: expected greater than or equal to 0, found -1",
    "seed = 2147483648": "seed: expected less than 2147483648, found 2147483648",
    'seed = "1"': 'seed: expected a valid integer, found "1"',
    "seed = 1.0": "seed: expected a valid integer, found 1.0",
    "name = 3": "name: expected a valid string, found 3",
    'name = "../up"': 'name: expected letters, digits, ".", "_" or "-", found "../up"',
    'name = ""': 'name: expected letters, digits, ".", "_" or "-", found ""',
    "[embedding]\ndim = 0": "embedding.dim: expected greater than or equal to 1, found 0",
    "[embedding]\ndim = true": "embedding.dim: expected a valid integer, found True",
    "[embedding]\ninit_scale = 0.0": "embedding.init_scale: expected greater than 0, found 0.0",
    '[backbone]\nkind = "deepmf"': "backbone.kind: expected",
    "[backbone]\nhidden = [8, 0]": "backbone.hidden[2]: expected greater than or equal to 1, found 0",
    "[backbone]\nhidden = 8": "backbone.hidden: expected a valid list, found 8",
    "[backbone]\ndropout = 1.0": "backbone.dropout: expected less than 1, found 1.0",
    "[backbone]\nlayers = 2": 'backbone: layers applies to "dcn" and "dcnv2", found kind = "deepfm"',
    '[backbone]\nkind = "dcn"\nrank = 2': 'backbone: rank applies to "dcnv2", found kind = "dcn"',
    "[backbone]\nsubnet_units = 5": 'backbone: subnet_units applies to "pin", found kind = "deepfm"',
    '[backbone]\nkind = "pin"\nsubnet_units = 1': "subnet_units: expected greater than or equal to 2, found 1",
    '[backbone]\nkind = "lr"\nfirst_order = false': "leaves no model",
    "[selector]\nratio = 0.0": "selector.ratio[1]: expected greater than 0, found 0.0",
    "[selector]\nratio = [0.5, 1.5]": "selector.ratio[2]: expected less than 1, found 1.5",
    '[selector]\nkind = "frequency"\nratio = 0.5\nshadow = 0.1': 'shadow adds fields to the search of kind = "optfs"',
    "[selector]\nshadow = 1.0": "selector.shadow: expected less than 1, found 1.0",
    "[selector]\nratio = true": "selector.ratio: expected a valid list, found True",
    "[selector]\nratio = []": "at least one entry",
    "[selector]\nratio = 0.5\npenalty = 1": "state ratio or penalty, not both",
    "[selector]\nratio = [0.3, 0.30000001]": "must differ in six digits, found 0.3, 0.3",
    "[selector]\npenalty = [1, 1.0]": "must differ in six digits, found 1, 1",
    "[selector]\npenalty = -1": "selector.penalty[1]: expected greater than or equal to 0, found -1",
    '[selector]\nkind = "random"': 'kind = "random" needs ratio',
    '[selector]\nkind = "frequency"\npenalty = 1': 'penalty applies to kind = "optfs"',
    "[selector]\nepochs = 2\nrewind_epoch = 2": "rewind_epoch = 2 must be below epochs = 2",
    '[selector]\nreferees = ["random", "random"]': "referees names one of them more than once",
    '[selector]\nkind = "optinter"\nratio = 0.5': 'use kind = "optfs+optinter" with ratio',
    "[selector]\nmax_memorized = 3": 'max_memorized applies to kind = "optinter" and "optfs+optinter"',
    '[selector]\nkind = "optinter"\nchoice = "memorise"': "selector.choice: expected",
    '[selector]\nkind = "optinter"\nchoice = "naive"\nmax_memorized = 3': "max_memorized limits a search",
    "[selector]\nscreened_pairs = 3": 'screened_pairs applies to kind = "optinter" and "optfs+optinter"',
    '[selector]\nkind = "optinter"\nchoice = "naive"\nscreened_pairs = 3': "screened_pairs narrows a search",
    '[selector]\nkind = "optinter"\nscreened_pairs = 0': "selector.screened_pairs: expected greater than or equal",
    '[selector]\nkind = "optinter"\nchoice = "random"': 'choice = "random" needs random_counts',
    '[selector]\nkind = "optinter"\nchoice = "random"\nrandom_counts = [1]': "selector.random_counts: expected",
    '[selector]\nkind = "optinter"\nmin_count = 0': "selector.min_count: expected greater than or equal to 1",
    '[selector]\nkind = "optinter"\ncross_bytes = "2 MBit"': "expected bytes such as",
    '[selector]\nkind = "optinter"\npairs = []': "selector.pairs: expected",
    '[backbone]\nkind = "fm"\n[selector]\nkind = "optinter"': "needs a backbone that reads the vectors of pairs",
    '[backbone]\nkind = "poly2"': "is a logistic regression with crosses",
    '[embedding]\nkind = "unified"\nlookups = 4\n[selector]\nkind = "optinter"\npair_dim = 6': "state a multiple",
    '[embedding]\nkind = "unified"\ncomposition = "robe"\n[selector]\nkind = "optinter"': "use another composition",
    "[training]\nlearning_rate = nan": "training.learning_rate: expected",
    "[training]\nlearning_rate = inf": "training.learning_rate: expected a finite number, found inf",
    "[training]\nlearning_rate = 0.1\nweight_decay = 10.0": "learning_rate * weight_decay is the share",
    "[training]\nbatch_size = 0": "training.batch_size: expected greater than or equal to 1, found 0",
    "[training]\npatience = 0": "training.patience: expected greater than 0, found 0",
    "[training]\nplateau = 1.5": "training.plateau: expected less than or equal to 1, found 1.5",
    '[training]\ndevice = "gpu"': '"auto", "cpu", "cuda", "cuda:N" or "mps", found "gpu"',
    "[export]\nmin_auc = 2": "export.min_auc: expected less than or equal to 1, found 2",
    '[tracking]\nexperiment = ""': "tracking.experiment: expected",
    "training = 3": "training: expected",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_value_is_told_with_its_key_and_what_was_found(mistakes, text):
    (line,) = mistakes(text)
    assert WRONG[text] in line


def test_all_mistakes_are_told_together(mistakes):
    found = mistakes(
        'seed = "x"\n[training]\nepochs = 0\nlr = 1\n[embedding]\ndim = 2000\n', "backbone.dropout=2"
    )
    assert sorted(line.split(":")[0] for line in found) == [
        "backbone.dropout",
        "embedding.dim",
        "seed",
        "training.epochs",
        "training.lr",
    ]


def test_a_missing_file_and_broken_toml_are_told(tmp_path, load):
    (tmp_path / "demo.toml").write_text(DATA)
    with pytest.raises(ConfigError, match=r'no such file; the nearest name is "demo\.toml"'):
        load_config(tmp_path / "deom.toml")
    with pytest.raises(ConfigError, match="no valid TOML"):
        load("[data")


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ("training.epochs=7", "training", "epochs", 7),
        ("training.learning_rate = 3e-4", "training", "learning_rate", 3e-4),
        ("training.learning_rate=1", "training", "learning_rate", 1.0),
        ("backbone.kind=fm", "backbone", "kind", "fm"),
        ('backbone.kind="fm"', "backbone", "kind", "fm"),
        ("backbone.first_order=false", "backbone", "first_order", False),
        ("backbone.hidden=[64, 32]", "backbone", "hidden", [64, 32]),
        ("selector.ratio=0.25", "selector", "ratio", [0.25]),
        ("selector.ratio=[0.25,0.5]", "selector", "ratio", [0.25, 0.5]),
        ("output.folder=some/where else", "output", "folder", "some/where else"),
        ("data.input=logs/day=1/*.csv", "data", "input", "logs/day=1/*.csv"),
        ("tracking.uri=http://localhost:5000", "tracking", "uri", "http://localhost:5000"),
        ("export={min_auc=0.7}", "export", "min_auc", 0.7),
        ("seed=5", None, "seed", 5),
        ("name=a-b.c", None, "name", "a-b.c"),
    ],
)
def test_a_change_takes_the_place_of_what_the_file_says(load, change, section, key, value):
    config = load("[selector]\nreferees = []\n[training]\nepochs = 3\n", change)
    assert getattr(getattr(config, section) if section else config, key) == value


def test_later_changes_win_and_the_rest_of_a_section_stays(load):
    config = load("[training]\nepochs = 3\npatience = 9\n", "training.epochs=4", "training.epochs=5")
    assert (config.training.epochs, config.training.patience) == (5, 9)


def test_a_change_without_a_value_takes_back_what_the_file_states(load):
    config = load("[selector]\npenalty = 2.5\n", "selector.penalty=", "selector.ratio=0.3")
    assert (config.selector.penalty, config.selector.ratio) == (None, [0.3])
    assert load("[training]\nepochs = 3\n", "training.epochs = ").training.epochs == load("").training.epochs


@pytest.mark.parametrize("change", ["selector.penalty=", "seed=", "selector="])
def test_what_the_file_does_not_state_cannot_be_taken_back(load, change):
    with pytest.raises(ConfigError, match=f'and it states no "{change[:-1]}"'):
        load("[training]\nepochs = 3\n", change)


@pytest.mark.parametrize(
    "change", ["training.epochs", "=3", "training.=3", ".epochs=3", "", "training..epochs=3"]
)
def test_a_change_without_key_or_value_is_refused(load, change):
    with pytest.raises(ConfigError, match=r"--set: expected section\.key=value, found") as error:
        load("", change)
    assert f'"{change}"' in str(error.value)


def test_a_change_below_a_value_is_refused(load):
    with pytest.raises(ConfigError, match=r'"seed" in "seed\.more" is a value, not a section'):
        load("seed = 1", "seed.more=2")


def test_a_change_of_an_unknown_key_is_refused_as_in_the_file(mistakes):
    assert mistakes("", "trainig.epochs=2") == ['trainig: unknown key; the nearest name is "training"']
    assert mistakes("", "training.epochs=many") == ['training.epochs: expected a valid integer, found "many"']


SAME = [
    "output.folder=elsewhere",
    "tracking.uri=off",
    "tracking.experiment=x",
    "training.device=cpu",
    "data.folder=x",
]
OTHER = [
    "name=other",
    "seed=1",
    "selector.ratio=0.3",
    "selector.kind=none",
    "training.epochs=3",
    "training.threads=1",
    "training.weight_decay=0.1",
    "embedding.dim=8",
    "backbone.kind=fm",
    "backbone.first_order=false",
    "export.min_auc=0.5",
]


@pytest.mark.parametrize("change", SAME)
def test_where_results_are_put_does_not_change_the_digest(load, change):
    assert load("", change).digest("d" * 36) == load().digest("d" * 36)


@pytest.mark.parametrize("change", OTHER)
def test_what_can_change_a_result_changes_the_digest(load, change):
    assert load("", change).digest("d" * 36) != load().digest("d" * 36)


def test_the_digest_is_short_and_follows_the_data(load):
    digest = load().digest("d" * 36)
    assert len(digest) == 12
    assert int(digest, 16) >= 0
    assert load().digest("e" * 36) != digest


def test_the_order_of_keys_does_not_change_the_digest(load):
    one = load("[training]\nepochs = 3\npatience = 1\n[embedding]\ndim = 8\n")
    other = load("[embedding]\ndim = 8\n[training]\npatience = 1\nepochs = 3\n")
    assert one.digest("d") == other.digest("d")


def test_a_ratio_alone_is_a_list_of_one(load):
    assert load("", "selector.ratio=0.3").digest("d") == load("", "selector.ratio=[0.3]").digest("d")


def test_every_backbone_can_be_configured():
    assert set(get_args(BackboneConfig.model_fields["kind"].annotation)) == set(BACKBONES)


@pytest.mark.parametrize("text", ["2024-05-01", '"2024-05-01"'])
def test_an_as_of_date_may_be_a_toml_date_or_text(tmp_path, text):
    (tmp_path / "run.toml").write_text('[data]\nschema = "s.toml"\ninput = "x.csv"\n')
    assert load_config(tmp_path / "run.toml", [f"data.as_of={text}"]).data.as_of == "2024-05-01"


def test_a_cut_may_be_a_toml_date_or_time():
    split = TimeSplit(by="time", column="t", valid=date(2024, 5, 1), test=datetime(2024, 5, 2, 6))
    assert (split.valid, split.test) == ("2024-05-01", "2024-05-02T06:00:00")
