"""Rows in memory, as `ctr.evaluation.paired` reads them: at once, or in batches that are said not to fit."""

import numpy as np

from ctr.evaluation.paired import Batch


class Rows:
    def __init__(self, labels, scores, mass=None, clusters=None, groups=None, batch=None):
        self.models = list(scores)
        self._labels = np.asarray(labels, np.float64)
        self._mass = np.ones(len(labels)) if mass is None else np.asarray(mass, np.float64)
        self._scores = {name: np.asarray(values, np.float64) for name, values in scores.items()}
        self._clusters, self._groups, self._batch = clusters, groups, batch
        self.clusters = None if clusters is None else int(np.max(clusters)) + 1

    def _some(self, chosen, codes):
        own = None if codes is None else np.asarray(codes)[chosen]
        scores = {name: values[chosen] for name, values in self._scores.items()}
        return Batch(self._labels[chosen], self._mass[chosen], own, scores)

    def batches(self):
        size = self._batch or len(self._labels)
        for start in range(0, len(self._labels), size):
            yield self._some(slice(start, start + size), self._clusters)

    def whole(self):
        return None if self._batch else self._some(slice(None), self._clusters)

    def groups(self):
        if self._groups is None:
            return None
        parts = [np.asarray(self._groups) % 2 == side for side in (0, 1)] if self._batch else [slice(None)]
        return (self._some(part, self._groups) for part in parts)
