import numpy as np
import pytest

from carcond.store import embedding_matrix
from carcond.store.embedding_matrix import EmbeddingMatrix, blocks_of, to_single


def test_every_finite_half_precision_number_is_converted_exactly() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    converted = to_single(finite)
    np.testing.assert_array_equal(converted, finite.astype(np.float32))
    np.testing.assert_array_equal(np.signbit(converted), np.signbit(finite))


@pytest.mark.parametrize("rows", [np.arange(1300), np.arange(1300)[::-1], np.array([0, 2, 1, 3]), np.arange(0)])
def test_blocks_are_the_chosen_rows_in_order(rows: np.ndarray) -> None:  # type: ignore[type-arg]
    halves = np.random.default_rng(0).normal(size=(1300, 5)).astype(np.float16)
    matrix = EmbeddingMatrix(halves, rows)
    expected = halves[rows].astype(np.float32)
    np.testing.assert_array_equal(np.concatenate([block.copy() for block in blocks_of(matrix)]), expected)
    assert len(matrix) == len(rows)
    some = np.arange(len(rows))[1::2]
    np.testing.assert_array_equal(matrix[some], expected[some])


def test_no_block_is_greater_than_what_fits_into_a_cache() -> None:
    matrix = EmbeddingMatrix(np.zeros((2000, 3), dtype=np.float16), np.arange(2000))
    assert [len(block) for block in matrix.blocks()] == [512, 512, 512, 464]
    assert embedding_matrix.BLOCK == 512
