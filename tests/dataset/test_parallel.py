import threading

import pytest

from ctr.dataset import parallel
from ctr.dataset.parallel import threaded


@pytest.mark.parametrize("waiting", [0, 3, 1000])
def test_results_come_in_order_and_small_ones_are_worked_ahead(monkeypatch, waiting):
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    begun, first_may_end, enough = [], threading.Event(), threading.Semaphore(0)

    def work(item):
        begun.append(item)
        enough.release()
        if item == 0:
            assert first_may_end.wait(10)
        return item

    results = threaded(work, range(8), size=lambda item: 1, waiting=waiting)
    found = []
    reader = threading.Thread(target=lambda: found.extend(results))
    reader.start()
    # While the first is being worked on, the other core has as many as may wait: one where none may.
    for _ in range({0: 2, 3: 3, 1000: 8}[waiting]):
        assert enough.acquire(timeout=10)
    assert not enough.acquire(timeout=0.1)
    first_may_end.set()
    reader.join(10)
    assert found == list(range(8)) == sorted(begun)


def test_what_goes_wrong_comes_when_it_is_its_turn():
    results = threaded(lambda item: 1 // item, [1, 0, 1])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
