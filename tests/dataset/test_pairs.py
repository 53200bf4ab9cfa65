import pytest

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.pairs import chosen_pairs
from ctr.errors import ConfigError

SPECS = [
    FieldSpec(name="user"),
    FieldSpec(name="tags", kind="list"),
    FieldSpec(name="item"),
    FieldSpec(name="price", kind="numeric", transform="quantile", bins=4),
    FieldSpec(name="age", kind="numeric", transform="standard"),
    FieldSpec(name="picture", kind="vector", size=3),
    FieldSpec(name="position", role="bias", serve_value=1),
    FieldSpec(name="source", keep="never"),
]


def test_all_pairs_are_those_of_fields_with_one_value_a_row_in_schema_order():
    assert chosen_pairs(SPECS, None) == [("user", "item"), ("user", "price"), ("item", "price")]


def test_stated_pairs_are_put_in_schema_order():
    assert chosen_pairs(SPECS, [["price", "item"], ["item", "user"]]) == [("user", "item"), ("item", "price")]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (["user", "itme"], 'no field "itme"; the nearest name is "item"'),
        (["user", "user"], '"user" is named twice'),
        (["user"], "expected two names, found 1"),
        (["user", "item", "price"], "expected two names, found 3"),
        (["user", "tags"], '"tags" is a list field'),
        (["age", "user"], '"age" is a scaled number'),
        (["user", "picture"], '"picture" is a vector field'),
        (["user", "position"], '"position" is a bias field'),
        (["user", "source"], '"source" is never kept'),
    ],
)
def test_a_pair_that_cannot_be_is_refused_by_name(pair, message):
    with pytest.raises(ConfigError, match=message):
        chosen_pairs(SPECS, [pair])


def test_a_pair_stated_twice_is_refused_and_all_mistakes_are_reported_together():
    with pytest.raises(ConfigError) as error:
        chosen_pairs(SPECS, [["user", "item"], ["item", "user"], ["user", "nobody"]])
    assert "named twice" in str(error.value)
    assert "nobody" in str(error.value)


@pytest.mark.parametrize("specs", [SPECS[:2], SPECS[4:7], []])
def test_fewer_than_two_fields_that_can_take_part_are_refused(specs):
    with pytest.raises(ConfigError, match="at least two fields"):
        chosen_pairs(specs, None)
