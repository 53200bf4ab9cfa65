"""A join in time by nested loops."""


def latest_before(log, side, max_age=None):
    """Per row (key, time) of the log the value of the latest row (key, time, value) of its key strictly before it."""
    found = []
    for key, moment in log:
        best = None
        for other, since, value in side:
            fits = key is not None and other == key and moment is not None and since < moment
            if fits and (best is None or since > best[0]):
                best = since, value
        too_old = best is not None and max_age is not None and moment - best[0] > max_age
        found.append(None if best is None or too_old else best[1])
    return found
