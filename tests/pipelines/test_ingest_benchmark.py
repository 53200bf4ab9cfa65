"""The benchmark of a file that is added to others measures what it says."""

import pytest

from pipelines.benchmarks.ingest import measure_added


@pytest.mark.slow
def test_a_file_that_is_added_is_the_only_one_that_is_counted():
    # The benchmark itself stops where another number of files is counted.
    found = measure_added(rows=3000)
    assert set(found) == {"ingest_added_file_over_whole", "ingest_nine_known_over_none"}
    assert found["ingest_added_file_over_whole"] == pytest.approx(0.5, abs=0.5)
