"""The section `[embedding]`: every combination that makes no sense is refused in one line, and budgets may be text."""

import pytest

from ctr.config import Config, load_config
from ctr.errors import ConfigError
from ctr.settings import check, dump_toml, load_toml

DATA = '[data]\nschema = "schema.toml"\ninput = "log.csv"\n'
HASHED = 'encoding = "hashed"\n'
UNIFIED = '[embedding]\nkind = "unified"\n'


@pytest.fixture
def load(tmp_path):
    """Loads a configuration of the given text (`[data]` is added, with `data` at its end)."""

    def run(text="", data="") -> Config:
        path = tmp_path / "run.toml"
        path.write_text(text + "\n" + DATA + data, encoding="utf-8")
        return load_config(path)

    return run


BUDGETS = {
    "2500000": 2_500_000,
    '"2500000"': 2_500_000,
    '"2.5MB"': 2_500_000,
    '"2.5 MB"': 2_500_000,
    '" 12kB "': 12_000,
    '"300 B"': 300,
    '"0.5GB"': 500_000_000,
    '"1KiB"': 1024,
    '"1.5MiB"': 1_572_864,
    '"1GiB"': 1_073_741_824,
    '"0.001kB"': 1,
    '"0.1kB"': 100,
}


@pytest.mark.parametrize("text", BUDGETS)
def test_a_budget_is_a_number_of_bytes_or_text_with_a_unit(load, text):
    assert load(f"{UNIFIED}bytes = {text}").embedding.bytes == BUDGETS[text]


def test_a_budget_in_words_is_the_same_run_as_in_numbers(load):
    assert load(f'{UNIFIED}bytes = "2.5MB"').digest("d") == load(f"{UNIFIED}bytes = 2500000").digest("d")
    assert load(f"{UNIFIED}bytes = 2500001").digest("d") != load(f"{UNIFIED}bytes = 2500000").digest("d")


LOOKUPS = "cannot be put together from lookups"
NEEDS = 'applies to kind = "hashed" and "unified", found kind = "table"'
WRONG = {
    f'{UNIFIED}bytes = "many"': 'embedding.bytes: expected bytes such as 2500000 or "2.5MB", found "many"',
    f'{UNIFIED}bytes = "2.5mb"': 'embedding.bytes: expected bytes such as 2500000 or "2.5MB", found "2.5mb"',
    f'{UNIFIED}bytes = "1e6"': 'embedding.bytes: expected bytes such as 2500000 or "2.5MB", found "1e6"',
    f'{UNIFIED}bytes = "-1MB"': 'embedding.bytes: expected bytes such as 2500000 or "2.5MB", found "-1MB"',
    f'{UNIFIED}bytes = ""': 'embedding.bytes: expected bytes such as 2500000 or "2.5MB", found ""',
    f"{UNIFIED}bytes = 0": "embedding.bytes: expected at least 1 byte, found 0",
    f"{UNIFIED}bytes = -5": "embedding.bytes: expected at least 1 byte, found -5",
    f'{UNIFIED}bytes = "0.2B"': "embedding.bytes: expected at least 1 byte, found 0",
    f"{UNIFIED}bytes = 2.5": "embedding.bytes: expected a valid integer or string, found 2.5",
    f"{UNIFIED}bytes = true": "embedding.bytes: expected a valid integer or string, found True",
    f"{UNIFIED}rows = 0": "embedding.rows: expected greater than or equal to 1, found 0",
    f'{UNIFIED}bytes = "1kB"\nrows = 5': "embedding: state bytes or rows, not both",
    f"{UNIFIED}lookups = 3": f"embedding: dim = 16 {LOOKUPS} = 3 rows of equal width; state a dim that 3 divides",
    f'{UNIFIED}composition = "robe"\ndim = 9': f"embedding: dim = 9 {LOOKUPS} = 2",
    f"{UNIFIED}lookups = 0": "embedding.lookups: expected greater than or equal to 1, found 0",
    f"{UNIFIED}lookups = 17": "embedding.lookups: expected less than or equal to 16, found 17",
    f"{UNIFIED}field_lookups = {{user = 0}}": "embedding.field_lookups.user: expected greater than or equal to 1",
    f'{UNIFIED}composition = "sum"': "embedding.composition: expected",
    f'{UNIFIED}composition = "quotient_remainder"\nlookups = 4': '"quotient_remainder" always has two lookups',
    f'{UNIFIED}composition = "quotient_remainder"\nfield_lookups = {{user = 2}}': "always has two lookups",
    f"{UNIFIED}collision_free = -1": "embedding.collision_free: expected greater than or equal to 0, found -1",
    f"{UNIFIED}init_scale = 0.0": "embedding.init_scale: expected greater than 0, found 0.0",
    f"{UNIFIED}budget = 3": "embedding.budget: unknown key",
    '[embedding]\nkind = "multiplexed"': "embedding.kind: expected",
    '[embedding]\ncomposition = "robe"': f"embedding: composition {NEEDS}",
    '[embedding]\nbytes = "1MB"': f"embedding: bytes {NEEDS}",
    "[embedding]\nrows = 3": f"embedding: rows {NEEDS}",
    "[embedding]\nlookups = 4": f"embedding: lookups {NEEDS}",
    "[embedding]\nfield_lookups = {user = 3}": f"embedding: field_lookups {NEEDS}",
    "[embedding]\ncollision_free = 5": f"embedding: collision_free {NEEDS}",
}


def lines_of(error):
    heading, *lines = str(error.value).splitlines()
    assert heading.endswith('run.toml": 1 mistake')
    return [line.strip() for line in lines]


@pytest.mark.parametrize("text", WRONG)
def test_what_makes_no_sense_is_refused_in_one_line(load, text):
    with pytest.raises(ConfigError) as error:
        load(text)
    (line,) = lines_of(error)
    assert WRONG[text] in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            'no vocabulary that embedding.kind = "table" could give rows to; use embedding.kind = "unified"',
        ),
        (f"{UNIFIED}collision_free = 5", "embedding.collision_free needs a vocabulary"),
        ('[embedding]\nkind = "hashed"\ncollision_free = 5', "embedding.collision_free needs a vocabulary"),
    ],
)
def test_without_a_vocabulary_no_value_has_a_row_of_its_own(load, text, message):
    load(text)
    with pytest.raises(ConfigError) as error:
        load(text, HASHED)
    (line,) = lines_of(error)
    assert message in line


RIGHT = [
    UNIFIED,
    '[embedding]\nkind = "hashed"\nrows = 7',
    f'{UNIFIED}composition = "multi_hash"\nlookups = 3',  # rows are added up: any number of them
    f'{UNIFIED}composition = "quotient_remainder"\ndim = 9',
    f'{UNIFIED}composition = "robe"\nlookups = 16\nfield_lookups = {{user = 1}}',
    f"{UNIFIED}lookups = 1\ndim = 7\nfield_lookups = {{user = 3}}",  # projected
    "[embedding]\nlookups = 2",  # what a table need not be told, but may
]


@pytest.mark.parametrize("text", RIGHT)
def test_what_makes_sense_can_be_written_out_and_read_back(load, text, tmp_path):
    config = load(text)
    path = tmp_path / "resolved.toml"
    path.write_text(dump_toml(config.model_dump(mode="json", by_alias=True)))
    again = check(load_toml(path, "config"), Config, "again")
    assert again == config
    assert again.digest("d") == config.digest("d")


def test_the_encoding_is_part_of_the_data_and_what_is_read_of_it_part_of_the_run(load):
    assert load().data.encoding == "vocabulary"
    assert load(UNIFIED, HASHED).data.encoding == "hashed"
    others = [f"{UNIFIED}{key}" for key in ("lookups = 4", "rows = 9", "field_lookups = {user = 1}")]
    digests = {load(text).digest("d") for text in ["", UNIFIED, *others]}
    assert len(digests) == 5
