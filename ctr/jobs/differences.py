"""What test says of the settings of a comparison: paired differences, corrected for their number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ctr.evaluation.influence import Influence
from ctr.evaluation.margins import Decision, decide, seeds_known
from ctr.evaluation.paired_seeds import Difference, holm, paired_difference, pooled
from ctr.jobs.entries import Entry, Rows, Setting, keep_all_of
from ctr.report.comparison_words import setting_words

_NEAR = (
    1.1  # "about as many bytes": so many times those of the tables that an alternative stands beside, at most
)


@dataclass(frozen=True)
class Compared:
    """One difference of test AUC, and of log loss: `setting` minus `other`.

    against: why it is taken: `keep_all`, `frequency` (at equal size) or `alternative` (the best on valid of those that
    take about as many bytes, or fewer).
    pooled: the difference of AUC with the spread over seeds of all sizes of the selector, or of all alternatives.
    """

    setting: Setting
    other: Setting
    against: str
    auc: Difference
    logloss: Difference
    pooled: Difference


class Differences:
    """All differences of a comparison.

    Args:
        groups: entries by setting, scored on test.
        rows: of test.
        margin: the loss of AUC that may be had.

    Differences are paired by seed, so settings that share none have none: `left_out` names them.
    """

    def __init__(self, groups: Mapping[Setting, Sequence[Entry]], rows: Rows, margin: float) -> None:
        self._groups, self._rows, self._margin = groups, rows, margin
        self._aucs: dict[tuple[Setting, int], Influence] = {}
        self._losses: dict[tuple[Setting, int], Influence] = {}
        self.left_out: list[str] = []  # pairs of settings that share no seed, in words
        found = [self._compared(*each) for each in self._pairs()]
        self.all = self._pooled([each for each in found if each is not None])
        self._corrected = holm([each.pooled.p_value for each in self.all])

    @property
    def level(self) -> float:
        """At which every interval holds at once with 95 % confidence (Bonferroni)."""
        return 1.0 - 0.05 / max(len(self.all), 1)

    def of(self, setting: Setting, against: str) -> Compared | None:
        """The difference of a setting that was taken for that reason."""
        return next((one for one in self.all if one.setting == setting and one.against == against), None)

    def decision(self, compared: Compared, *, corrected: bool) -> Decision:
        """What an interval says about the margin."""
        found, level = (compared.pooled, self.level) if corrected else (compared.auc, 0.95)
        return decide(found, self._margin, len(self._rows), level)

    def plain(self, compared: Compared) -> dict[str, Any]:
        """As JSON: 95 % bounds of this difference alone, and those that hold for all at once."""
        number = self.all.index(compared)
        low, high = compared.pooled.interval(self.level)[1:]
        decision = self.decision(compared, corrected=True)
        return {
            "against": compared.against,
            "other": compared.other._asdict(),
            "auc": compared.auc.interval()._asdict(),
            "others": self._others(compared),
            "auc_corrected": {"low": low, "high": high},
            "by_seed": list(compared.auc.by_seed),
            "rows_variance": compared.auc.rows_variance,
            "seeds_variance": compared.auc.seeds_variance if compared.auc.excess is not None else None,
            "p": compared.auc.p_value,
            "p_holm": self._corrected[number],
            "logloss": compared.logloss.interval()._asdict(),
            "outcome": decision.outcome,
            "provable": decision.provable,
            "more_rows": decision.more_rows,
            "seeds_known": seeds_known(compared.auc),
        }

    def _pairs(self) -> list[tuple[Setting, Setting, str]]:
        found = []
        for setting in self._groups:
            if setting.role == "keep_all":
                continue
            keep_all = keep_all_of(setting)
            if keep_all in self._groups:
                found.append((setting, keep_all, "keep_all"))
            frequency = setting._replace(role="selector", label="frequency")
            if frequency in self._groups and frequency != setting and setting.size is not None:
                found.append((setting, frequency, "frequency"))
            rival = self._rival(setting) if setting.role == "selector" else None
            if rival is not None:
                found.append((setting, rival, "alternative"))
        return found

    def _others(self, compared: Compared) -> list[dict[str, Any]]:
        """Of the best alternative: the differences to all others in reach, for a set is better than all or than none.

        That all of their 95 % intervals lie above zero needs no correction for their number (Berger, "Multiparameter
        Hypothesis Testing and Acceptance Sampling", Technometrics 1982).
        """
        if compared.against != "alternative":
            return []
        others = [other for other in self._in_reach(compared.setting) if other != compared.other]
        paired = ((other, self._paired(compared.setting, other, self._auc)) for other in others)
        return [{"other": other._asdict(), "auc": auc.interval()._asdict()} for other, auc in paired if auc]

    def _rival(self, setting: Setting) -> Setting | None:
        """The alternative in reach that is best on valid."""
        return max(
            self._in_reach(setting),
            key=lambda other: np.mean([entry.facts["valid"]["auc"] for entry in self._groups[other]]),
            default=None,
        )

    def _in_reach(self, setting: Setting) -> list[Setting]:
        """The alternatives whose tables take about as many bytes, or fewer."""
        return [
            other
            for other in self._groups
            if other.role == "alternative"
            and keep_all_of(other) == keep_all_of(setting)
            and self._mean(other, "table_bytes") <= _NEAR * self._mean(setting, "table_bytes")
        ]

    def _mean(self, setting: Setting, key: str) -> float:
        return float(np.mean([entry.facts[key] for entry in self._groups[setting]]))

    def _compared(self, setting: Setting, other: Setting, against: str) -> Compared | None:
        auc, logloss = (self._paired(setting, other, metric) for metric in (self._auc, self._loss))
        if auc is None or logloss is None:
            several = len({(each.backbone, each.embedding) for each in self._groups}) > 1
            names = [setting_words(each._asdict(), where=several) for each in (setting, other)]
            told = [", ".join(str(entry.seed) for entry in self._groups[each]) for each in (setting, other)]
            self.left_out.append(
                f"{names[0]} minus {names[1]}: they share no seed ({told[0]} and {told[1]}), and differences are "
                "paired by seed"
            )
            return None
        return Compared(setting, other, against, auc, logloss, auc)

    def _paired(
        self, setting: Setting, other: Setting, metric: Callable[[Setting, int], Influence]
    ) -> Difference | None:
        """`setting` minus `other`, over the seeds that both have; None where they share none."""
        own, its = ({entry.seed for entry in self._groups[each]} for each in (setting, other))
        seeds = sorted(own & its)
        if not seeds:
            return None
        new, old = ([metric(each, seed) for seed in seeds] for each in (setting, other))
        return paired_difference(new, old, self._rows.clusters)

    def _pooled(self, found: Sequence[Compared]) -> list[Compared]:
        """With one spread over seeds for the sizes of a selector, and one for all alternatives."""
        alike: dict[tuple[str, ...], list[int]] = {}
        for number, each in enumerate(found):
            own = each.setting.label if each.setting.role == "selector" else each.setting.role
            alike.setdefault((own, each.setting.backbone, each.setting.embedding, each.against), []).append(
                number
            )
        together = list(found)
        for numbers in alike.values():
            for number, auc in zip(numbers, pooled([found[n].auc for n in numbers]), strict=True):
                together[number] = replace(found[number], pooled=auc)
        return together

    def _scores(self, setting: Setting, seed: int) -> Any:
        return next(entry.test for entry in self._groups[setting] if entry.seed == seed)

    def _auc(self, setting: Setting, seed: int) -> Influence:
        if (setting, seed) not in self._aucs:
            self._aucs[setting, seed] = self._rows.auc(self._scores(setting, seed))
        return self._aucs[setting, seed]

    def _loss(self, setting: Setting, seed: int) -> Influence:
        if (setting, seed) not in self._losses:
            self._losses[setting, seed] = self._rows.logloss(self._scores(setting, seed))
        return self._losses[setting, seed]
