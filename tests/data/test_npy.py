"""The headers of a pack's arrays: what is written is what numpy reads, and any other header is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foreframe.data.pack.npy import HEADER_BYTES, header, open_array
from foreframe.errors import DataError

U1, F4 = np.dtype(np.uint8), np.dtype(np.float32)


@pytest.mark.parametrize(("dtype", "shape"), [(U1, (5, 4, 6, 3)), (F4, (5, 7)), (U1, (10**9, 8192, 8192, 3))])
def test_a_header_is_128_bytes_and_numpy_reads_it(tmp_path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]):
    made = header(dtype, shape)
    assert len(made) == HEADER_BYTES
    (tmp_path / "a.npy").write_bytes(made)
    with (tmp_path / "a.npy").open("rb") as file:
        assert np.lib.format.read_magic(file) == (1, 0)
        assert np.lib.format.read_array_header_1_0(file) == (shape, False, dtype)


def test_an_array_is_mapped_and_cannot_be_changed(tmp_path: Path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    (tmp_path / "a.npy").write_bytes(header(F4, (3, 4)) + values.tobytes())
    found = open_array(tmp_path / "a.npy", F4, (3, 4))
    np.testing.assert_array_equal(found, values)
    assert not found.flags.writeable


GOOD = header(U1, (3, 4))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "expected an .npy file"),
        (pickle.dumps(np.zeros((3, 4), np.uint8)), "expected an .npy file"),
        (b"\x93NUMPY\x02\x00" + GOOD[8:] + bytes(12), "expected an .npy file"),
        (GOOD[:8] + b"\xff\xff" + GOOD[10:] + bytes(12), "header of at most 1024 bytes"),
        (GOOD[:40], "found another"),
        (GOOD.replace(b"|u1", b"|O8") + bytes(12), "found another"),
        (GOOD.replace(b"False", b"True ") + bytes(12), "found another"),
        (GOOD.replace(b"(3, 4)", b"(3, x)") + bytes(12), "found another"),
        (GOOD.replace(b"|u1", b"<f4") + bytes(12), "expected uint8 of shape (3, 4), found float32 of shape (3, 4)"),
        (GOOD.replace(b"(3, 4)", b"(4, 3)") + bytes(12), "found uint8 of shape (4, 3)"),
        (GOOD + bytes(11), "expected 140 bytes for shape (3, 4), found 139"),
        (GOOD + bytes(13), "expected 140 bytes for shape (3, 4), found 141"),
    ],
)
def test_any_other_header_or_length_is_refused(tmp_path: Path, content: bytes, words: str):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_array(tmp_path / "a.npy", U1, (3, 4))
    assert words in str(caught.value)
    assert str(tmp_path / "a.npy") in str(caught.value)


def test_a_shape_of_terabytes_is_refused_by_the_size_of_the_file(tmp_path: Path):
    shape = (10**9, 8192, 8192, 3)
    (tmp_path / "a.npy").write_bytes(header(U1, shape) + bytes(12))
    with pytest.raises(DataError, match="expected 201326592000000128 bytes"):
        open_array(tmp_path / "a.npy", U1, shape)
