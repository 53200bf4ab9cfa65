"""Who shares rows with whom, feature by feature."""

from collections import Counter


def field_collisions(features):
    """Per field merged, within, across, own_noise and other_noise.

    Args:
        features: (field, count, set of rows, all places as a tuple) of each feature.
    """
    found = {}
    for field in {field for field, *_ in features}:
        own = [feature for feature in features if feature[0] == field]
        tally = Counter()
        learned = own_noise = other_noise = 0.0
        for this in own:
            _, count, rows, places = this
            others = [other for other in features if other is not this]
            alike = [other for other in others if other[0] == field]
            strange = [other for other in others if other[0] != field]
            tally["merged"] += any(other[3] == places for other in alike)
            tally["within"] += any(other[2] & rows for other in alike)
            tally["across"] += any(other[2] & rows for other in strange)
            for row in rows:
                near = sum(other[1] for other in alike if row in other[2])
                far = sum(other[1] for other in strange if row in other[2])
                learned += count
                own_noise += count * near / (count + near + far)
                other_noise += count * far / (count + near + far)
        shares = {name: tally[name] / len(own) for name in ("merged", "within", "across")}
        found[field] = {**shares, "own_noise": own_noise / learned, "other_noise": other_noise / learned}
    return found
