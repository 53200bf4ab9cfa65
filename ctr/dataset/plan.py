"""What a schema asks of an input: which expressions are evaluated, and which columns they and the fields need."""

from collections.abc import Collection, Mapping, Sequence

from ctr.dataset.expressions import Expression, roots
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.schema import Schema
from ctr.errors import DataError, nearest


class Plan:
    """The expressions of a schema, checked against the columns that there are.

    Args:
        schema: the schema.
        names: columns of the input and of its side tables.
        fields: the fields to prepare.
        training: whether label, `where` and split apply; otherwise only what the fields need is planned.
        split_column: the column that the split names.

    Attributes:
        derived: names and expressions, in the order in which they are evaluated.
        in_expressions: columns that expressions name, sorted; they get types.
        used: all columns that are needed, keys of joins excepted.

    Raises:
        DataError: an expression is wrong, or a name is no column.
    """

    def __init__(
        self,
        schema: Schema,
        names: Sequence[str],
        fields: Sequence[FieldSpec],
        training: bool,
        split_column: str | None,
    ) -> None:
        self._known = list(names)
        self._typed: set[str] = set()
        self._plain: set[str] = set()
        self.derived: dict[str, Expression] = {}
        needed = set(schema.derive) if training else _behind({field.name for field in fields}, schema.derive)
        for name, text in schema.derive.items():
            if name in needed:
                expression = self._expression(f"derive.{name}", text)
                self.derived[name] = expression
                self._known = list(dict.fromkeys([*self._known, name]))
        self.where = self._expression("where", schema.where) if training and schema.where else None
        self.label = self._column("label", schema.label) if training else None
        truth = schema.true_probability if training else None
        self.true_probability = self._column("true_probability", truth) if truth else None
        self.weight = self._column("weight", schema.weight) if training and schema.weight else None
        for field in fields:
            self._raw(field.name, f'field "{field.name}"')
        self.row_id = schema.row_id if training else None
        if self.row_id is not None:
            self._raw(self.row_id, f'schema row_id = "{self.row_id}"')
        if split_column is not None:
            self._raw(split_column, f'schema split.column = "{split_column}"')
        self.in_expressions = sorted(self._typed)
        self.used = self._typed | self._plain

    @property
    def checked(self) -> list[Expression]:
        """The expressions besides `derived` that compute something."""
        return [
            expression
            for expression in (self.where, self.label, self.true_probability, self.weight)
            if expression is not None and not expression.is_column
        ]

    def _expression(self, key: str, text: str) -> Expression:
        expression = Expression(key, text, self._known)
        self._typed |= set(expression.roots) - set(self.derived)
        return expression

    def _column(self, key: str, text: str) -> Expression:
        """An expression that, where it is simply a column, needs no type: its cells are read as numbers anyway."""
        if text not in self._known:
            return self._expression(key, text)
        self._raw(text, key)
        return Expression(key, text, self._known)

    def _raw(self, name: str, what: str) -> None:
        if name not in self._known:
            raise DataError(f"{what} is no column of the input and not derived{nearest(name, self._known)}")
        if name not in self.derived:
            self._plain.add(name)


def _behind(names: Collection[str], derive: Mapping[str, str]) -> set[str]:
    """The derived names that `names` are computed from, directly or not."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in derive and name not in found:
            found.add(name)
            todo += roots(derive[name])
    return found
