import threading

import pytest

from ctr.dataset import parallel
from ctr.dataset.parallel import threaded


@pytest.mark.parametrize("waiting", [0, 4, 1000])
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
    # While one core works on the first, the other one does as many as may wait, and the two after that.
    for _ in range({0: 3, 4: 4, 1000: 8}[waiting]):
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


def test_nothing_is_begun_when_nobody_asks_any_more(monkeypatch):
    monkeypatch.setattr(parallel, "cores", lambda: 1)
    begun, go_on = [], threading.Event()

    def work(item):
        begun.append(item)
        if item:
            go_on.wait(10)

    results = threaded(work, range(9), size=lambda item: 1, waiting=100)
    next(results)
    threading.Timer(0.1, go_on.set).start()
    results.close()
    assert len(begun) <= 2
