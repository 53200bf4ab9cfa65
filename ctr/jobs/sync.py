"""Sends to MLflow what runs, comparisons and evaluations kept on disk because it did not answer."""

from collections.abc import Callable
from pathlib import Path

from ctr.errors import ConfigError, CtrError
from ctr.jobs.lock import RunLock
from ctr.jobs.run_registration import send_kept
from ctr.unsent import UNSENT, found_below


def sync(folder: Path, *, uri: str | None = None, tell: Callable[[str], None]) -> int:
    """Send what `folder` and the folders below it keep; whatever is sent is deleted from what is kept.

    Args:
        folder: such as the one of all runs.
        uri: of a store to send it to instead of those that did not answer.
        tell: called with a line for each that was sent.

    Returns:
        How many were sent.

    Raises:
        ConfigError: there is no such folder.
        CtrError: something could not be sent; all others are.
    """
    if not folder.is_dir():
        raise ConfigError(
            f'"{folder}": expected the folder of runs, or of a run, a comparison or an evaluation'
        )
    sent, failed = 0, []
    for each in list(found_below(folder)):
        try:
            with RunLock(each):
                if not (each / UNSENT).is_file():  # another process was faster
                    continue
                version = send_kept(each, uri)
        except CtrError as error:
            failed.append(f'"{each}": {error}')
            continue
        sent += 1
        also = f', registered as version {version.number} of "{version.name}"' if version else ""
        tell(f"sent: {each}{also}")
    if failed:
        raise CtrError(
            f"{len(failed)} not sent, {sent} sent; all is still kept:\n"
            + "\n".join(f"  {line}" for line in failed)
        )
    return sent
