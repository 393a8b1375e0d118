"""Linear algebra on one core."""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def one_core() -> Iterator[None]:
    """Limit linear algebra to one thread.

    Fitting heads is many small products: on cores that others use too, threads that wait for each other take eight
    times as long.
    """
    # A limit holds for the libraries loaded when it is set: all that fitting and clustering use come first.
    # Imported here, since the web process fits nothing.
    import sklearn.cluster  # noqa: PLC0415
    import sklearn.linear_model  # noqa: F401, PLC0415

    with threadpool_limits(limits=1):
        yield
