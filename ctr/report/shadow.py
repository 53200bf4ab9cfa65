"""What shadow fields say of a feature set, in words."""

from ctr.report.units import Report, count, pick, share


def shadow_sentence(report: Report) -> str:
    """How many values without meaning the search kept, and what that says of the rest; empty where nobody asked."""
    found = pick(report, "feature_set", "shadow")
    if not found:
        return ""
    names = " and ".join(", ".join(f'"{name}"' for name in found["fields"]).rsplit(", ", 1))
    own, of_kept = found["share"], found["of_kept"]
    return (
        f"Of the {count(found['total'])} values of shuffled copies of {names}, which mean nothing, the search kept "
        f"{count(found['kept'])}: {share(own['value'])} (95 % interval {share(own['low'])} to {share(own['high'])}). "
        f"So about {share(of_kept['value'])} ({share(of_kept['low'])} to {share(of_kept['high'])}) of the kept values, "
        "or fewer, are there by chance."
    )
