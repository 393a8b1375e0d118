import subprocess
import sys

from threadpoolctl import threadpool_info

from carcond.model.single_thread import one_core

_LIMITED = """
from carcond.model.single_thread import one_core
with one_core():
    import sklearn.cluster, sklearn.linear_model, scipy.linalg
    from threadpoolctl import threadpool_info
    pools = threadpool_info()
    print(len(pools), max(pool["num_threads"] for pool in pools))
"""


def test_a_process_that_has_loaded_nothing_yet_is_held_to_one_thread_too() -> None:
    """Libraries that are first loaded inside the limit would run on all cores."""
    finished = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True)
    pools, threads = finished.stdout.split()
    assert int(pools) > 1
    assert threads == "1"


def test_the_limit_ends() -> None:
    with one_core():
        pass
    before = [pool["num_threads"] for pool in threadpool_info()]
    with one_core():
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert [pool["num_threads"] for pool in threadpool_info()] == before
