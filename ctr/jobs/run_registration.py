"""The bundle of a finished run as a version of a registered model; and what MLflow still misses of the run.

A run's `mlflow.json` says which run of MLflow it is, and which version it became, so that a repeated run asks nobody.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctr import unsent
from ctr.config import Config
from ctr.errors import CtrError
from ctr.jobs.lock import RunLock
from ctr.registry import Version
from ctr.serving.manifest import MANIFEST
from ctr.tracking import OFF, asked, register_bundle, resend

STATE = "mlflow.json"


def version_tags(run: Path, report: Mapping[str, Any]) -> dict[str, str]:
    """What a version says of itself: the run, the feature set, test AUC, size and digest of the bundle, selector."""
    manifest = json.loads((run / "bundle" / MANIFEST).read_text(encoding="utf-8"))
    auc = (report["selected"] or report["baseline"])["test"]["auc"]
    return {
        "run": run.name,
        "feature_set": manifest["feature_set"] or "all",
        "test_auc": repr(auc),
        "bundle_bytes": str(report["bundle"]["bytes"]),
        "bundle_sha256": manifest["checksum"],
        "selector": str(report["selector"]),
    }


def settle(run: Path, config: Config, report: Mapping[str, Any]) -> Version | None:
    """Send what MLflow misses of a finished run, and register its bundle where that is asked for and not done.

    Returns:
        The version, where it was registered now.

    Raises:
        CtrError: the store does not answer or no longer has the run; the same command tries again.
    """
    tracking = config.tracking
    if tracking.uri == OFF:
        return None
    name = tracking.register_
    if not (run / unsent.UNSENT).is_file() and _is_registered(run, name):
        return None
    with RunLock(run):
        version = send_kept(run) if (run / unsent.UNSENT).is_file() else None
        if name is None or _is_registered(run, name):
            return version
        run_id = read_state(run).get("run_id")
        if run_id is None:
            raise CtrError(
                f'run "{run}": MLflow does not have it, so it cannot be registered; redo it with --force'
            )
        with asked(f'run "{run}"', tracking.uri, fallback=Path(config.output.folder)) as (client, _):
            version = register_bundle(client, name, run_id, version_tags(run, report), run / "bundle")
        remember(run, version)
        return version


def send_kept(run: Path, uri: str | None = None) -> Version | None:
    """Send what a run, a comparison or an evaluation kept; returns the version that was registered with it.

    Raises:
        CtrError: as `ctr.tracking.resend`.
    """
    job = resend(run, uri)
    state = read_state(run)
    if state and job.run_id != state.get("run_id"):
        _write(run, state | {"run_id": job.run_id})
    if job.registered is not None:
        remember(run, job.registered)
    return job.registered


def remember(run: Path, version: Version) -> None:
    """Note in the run's folder that it is registered."""
    _write(run, read_state(run) | {"registered": {"name": version.name, "version": version.number}})


def _is_registered(run: Path, name: str | None) -> bool:
    """Whether the run is a version of the model, or is to be one of none."""
    return name is None or (read_state(run).get("registered") or {}).get("name") == name


def read_state(run: Path) -> dict[str, Any]:
    """What `mlflow.json` holds; nothing where there is none."""
    try:
        content = json.loads((run / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(run: Path, state: Mapping[str, Any]) -> None:
    scratch = run / f".{STATE}"
    scratch.write_text(json.dumps(state), encoding="utf-8")
    scratch.replace(run / STATE)
