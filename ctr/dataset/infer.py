"""An unknown click log -> a schema that works as it is, with a comment on every choice."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset import canonical, splitting
from ctr.dataset.expressions import Expression, inferred, typed
from ctr.dataset.guessing import Guess, guess_field
from ctr.dataset.guessing_time import Time, best, guess_time
from ctr.dataset.inferred_text import schema_text
from ctr.dataset.inputs import Source, located
from ctr.dataset.log_sample import Sample, take_sample
from ctr.dataset.sniffing import sniff, stem
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.split_spec import RandomSplit, TimeSplit
from ctr.errors import ConfigError, DataError, nearest

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Split:
    """How rows are split, and which of the sample train. `why`: the reason, in a comment."""

    time: Time | None
    train: Bools
    why: str


def infer_schema(file: str, label: str, *, name: str | None = None) -> str:
    """Write a schema for a log.

    Args:
        file: path, glob or URL.
        label: a column of 0/1 or true/false, or an SQL expression that yields it; columns of a csv file without a
            header are called `column_1`, `column_2`, ...
        name: the schema's name; by default the file's.

    Returns:
        TOML text. Rows are split by time where a column tells the time of each row, at random otherwise. Columns that
        name rows, are constant, or give the answer away are left out, each with the reason in a comment.

    Raises:
        ConfigError: there is no such file, or no such column.
        DataError: the file cannot be read, the label is not 0 or 1, or no column is left to be a field.
    """
    with located(file) as sources:
        read = sniff(sources[0], label)
        sample = take_sample(sources, read)
    answer, used = _label(label, sample, sources[0])
    rest = [column for column in sample.frame.get_columns() if column.name not in used]
    times = [time for column in rest if (time := guess_time(column))]
    split = _split(best(times), sample, answer)
    own = {time.column: time for time in times}
    train, clicked = pl.Series(split.train), answer.filter(pl.Series(split.train))
    guesses = [
        _left_out(own[column.name], split)
        if column.name in own
        else guess_field(column.filter(train), clicked, complete=sample.complete)
        for column in rest
    ]
    derived = _derived(split.time, sample.frame.columns)
    fields = [guess for guess in guesses if guess.keys is not None]
    fields += [Guess(key, {"kind": "categorical"}, "of the row's time") for key in derived]
    if not fields:
        reasons = "".join(f'\n  "{guess.name}": {guess.why}' for guess in guesses)
        raise DataError(f'file "{sources[0].name}": no column besides the label can be a field{reasons}')
    return schema_text(
        name=name or stem(str(file)),
        label=label,
        sample=sample,
        derive=derived,
        split=split.time.column if split.time else None,
        why=split.why,
        fields=fields,
        left_out=[guess for guess in guesses if guess.keys is None],
    )


def _label(label: str, sample: Sample, source: Source) -> tuple[pl.Series, set[str]]:
    """The label of every row of the sample, Boolean, and the columns that it comes from."""
    frame = sample.frame
    if label not in frame.columns and label.replace("_", "").replace(" ", "").isalnum():
        if not sample.read.has_header:
            called = f'its columns are called "column_1" to "{frame.columns[-1]}"'
            raise ConfigError(f'label "{label}": file "{source.name}" has no header; {called}')
        raise ConfigError(f'label "{label}": no column of "{source.name}"{nearest(label, frame.columns)}')
    try:
        expression = Expression("label", label, frame.columns)
    except DataError as error:
        raise ConfigError(str(error)) from None
    if not expression.is_column:
        frame = frame.select(typed(frame[root], inferred(frame[root], 0.01)) for root in expression.roots)
        expression.check_row_wise(frame.head(1000))
    values = expression.evaluate(frame)
    numbers = _as_numbers(values)
    right = numbers.is_in([0.0, 1.0]).fill_null(False)
    if not right.all() and right.sum() < (1 - sample.read.max_bad_rows) * len(right):
        raise DataError(_advice(label, values, right, expression.is_column))
    answer = (numbers == 1.0).fill_null(False)
    if sample.complete and answer.n_unique() < 2:
        raise DataError(f'label "{label}": expected both 0 and 1, found {int(answer[0])} alone')
    return answer, set(expression.roots)


def _as_numbers(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        lowered = values.str.to_lowercase()
        values = values.set(lowered == "true", "1").set(lowered == "false", "0")
    elif values.dtype.is_nested() or values.dtype.is_temporal():
        return pl.Series([None] * len(values), dtype=pl.Float64)
    return canonical.numbers(values)[0]


def _advice(label: str, values: pl.Series, right: pl.Series, is_column: bool) -> str:
    """What a wrong label holds, and an expression that may be meant."""
    empty = values.null_count()
    found = f'label "{label}": expected 0 or 1 (or true and false) in every row'
    if empty > 0.01 * len(values):
        return f"{found}, found {empty:,} of {len(values):,} rows empty"
    if values.dtype.is_nested() or values.dtype.is_temporal():
        return f"{found}, found {values.dtype}"
    distinct = canonical.text(values).drop_nulls().unique().sort()
    wrong = str(canonical.text(values.filter(~right)).drop_nulls()[0])
    said = f'{found}, found for example "{wrong}"'
    if not is_column:
        return said
    column = label if label.isidentifier() else f'"{label}"'
    numbers = _as_numbers(values).drop_nulls()
    if len(numbers) >= 0.99 * values.count():
        low = float(np.min(numbers.to_numpy()))
        above = numbers.filter(numbers > low).to_numpy()
        if len(above) == 0:
            return f"{said} and nothing else"
        # With 1 to 5 stars, 4 and 5.
        cut = float(np.quantile(above, 0.5, method="higher"))
        test = f"{column} > 0" if low <= 0 else f"{column} >= {cut:g}"
    elif len(distinct) <= 20:
        test = f"{column} = '{str(distinct[-1]).replace(chr(39), chr(39) * 2)}'"
    else:
        return f"{said} and {len(distinct) - 1:,} other values"
    return f"{said}; an expression may be meant, such as --label {_shell(test)}"


def _shell(text: str) -> str:
    return f'"{text}"' if '"' not in text else "'" + text.replace("'", "'\\''") + "'"


def _split(time: Time | None, sample: Sample, answer: pl.Series) -> _Split:
    """By time where the parts come out whole, else at random."""
    parts = splitting.random_parts(sample.rows, RandomSplit(by="random"))
    at_random = parts == splitting.TRAIN if sample.complete else np.ones(len(parts), np.bool_)
    if time is None:
        return _Split(None, at_random, "no column tells the time of a row")
    words = f'"{time.column}" holds {time.says}'
    if not sample.complete:
        return _Split(time, np.ones(len(parts), np.bool_), words)
    key = TimeKey(TimeSplit(by="time", column=time.column))
    keys = key.parse(sample.frame[time.column])[0].to_numpy()
    try:
        parts = splitting.time_cuts(lambda: iter([keys]), key).parts(keys)
    except DataError:
        return _Split(None, at_random, f"{words}, but too few different ones to split by")
    clicks = answer.to_numpy()
    whole = all(len(set(clicks[parts == part])) == 2 for part in range(len(splitting.PARTS)))
    if not whole:
        return _Split(None, at_random, f"{words}, but a split by it leaves a part with one label alone")
    return _Split(time, parts == splitting.TRAIN, words)


def _left_out(time: Time, split: _Split) -> Guess:
    if split.time is time:
        return Guess(time.column, None, "rows are split by it; an instant never comes back")
    return Guess(time.column, None, f"{time.says}; derive what matters of it")


def _derived(time: Time | None, taken: list[str]) -> dict[str, str]:
    """Names and SQL of what is derived from the time; a name that is taken gets a longer one."""
    longer = {"hour": "hour_of_day", "weekday": "day_of_week"}
    found = time.derive if time else {}
    names = {key: longer[key] if key in taken else key for key in found}
    return {names[key]: text for key, text in found.items() if names[key] not in taken}
