"""NIfTI files that are refused, each for one reason (BADINPUTS A), and what is no file at all (B)."""

import gzip
import math
import os
import socket
import struct
from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
SHAPE = (8, 8, 6)
X = np.arange(math.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
MASK = np.zeros(SHAPE, np.uint8)
MASK[2:5, 2:5, 1:4] = 1

# Byte offsets in a NIfTI-1 header: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, INTER = 40, 70, 76, 108, 112, 116
QFORM_CODE, SFORM_CODE, QUATERN, SROW, MAGIC, EXTENDER = 252, 254, 256, 280, 344, 348


def nifti(x=X, affine=AFFINE) -> bytes:
    return nib.Nifti1Image(x, affine, dtype=x.dtype).to_bytes()


def patch(*changes, x=X) -> bytes:
    """A sound file with some header fields overwritten: (offset, struct format, values…)."""
    raw = bytearray(nifti(x))
    for offset, form, *values in changes:
        struct.pack_into("<" + form, raw, offset, *values)
    return bytes(raw)


def short_by(raw: bytes, n: int) -> bytes:
    return raw[:-n]


def flip_crc(raw: bytes) -> bytes:
    packed = bytearray(gzip.compress(raw))
    packed[-6] ^= 1
    return bytes(packed)


def filled(value, dtype="f4") -> np.ndarray:
    x = X.astype(dtype)
    x[0, 0, 0] = value
    return x


zip_ = gzip.compress
NAN, INF = math.nan, math.inf

# id -> (content of patient_flair.nii.gz, what the reason says)
IMAGES = {
    "01-empty": (b"", "empty file"),
    "02-text": (b"hello, not gzip", r"not gzip \(starts 68 65 6c\)"),
    "02-plain": (nifti(), "not gzip .* name it .nii"),
    "03-gzip-of-nothing": (zip_(b""), r"header shorter than 348 bytes \(got 0\)"),
    "03-gzip-of-little": (zip_(nifti()[:300]), r"shorter than 348 bytes \(got 300\)"),
    "04-truncated-gzip": (zip_(nifti())[:-60], r"truncated \(got \d+ of 1120 bytes\)"),
    "05-short-voxels": (zip_(short_by(nifti(), 100)), r"truncated \(got 1020 of 1120 bytes\)"),
    "06-crc": (flip_crc(nifti()), "gzip CRC mismatch"),
    "06-damaged": (zip_(nifti())[:80] + b"\xff" * 30 + zip_(nifti())[110:], "gzip"),
    "06-garbage-after-gzip": (zip_(nifti()) + b"garbage", "garbage after the gzip stream"),
    "06-garbage-in-gzip": (zip_(nifti() + b"garbage"), "data after the 1120 bytes"),
    "07-magic": (zip_(patch((MAGIC, "4s", b"xyz\0"))), r"magic 'xyz\?', want n\+1"),
    "07-analyze": (zip_(patch((MAGIC, "4s", b"\0" * 4))), "magic"),
    "07-no-header": (zip_(b"\x01" * 400), "not a NIfTI header"),
    "08-huge": (zip_(patch((DIM, "4h", 3, 32767, 32767, 32767))), r"1.41e\+14 bytes\), more than"),
    "09-ratio": (zip_(patch((DIM, "4h", 3, 600, 600, 600))), "more than 1100 to 1"),
    "10-bomb": (zip_(patch((DIM, "4h", 3, 700, 700, 700)) + bytes(10**7)), "more than the limit"),
    "11-negative-dim": (zip_(patch((DIM + 2, "h", -5))), r"dim\[1\] = -5"),
    "12-zero-dim": (zip_(patch((DIM + 4, "h", 0))), r"empty volume \(dim\[2\] = 0\)"),
    "13-ndim-9": (zip_(patch((DIM, "h", 9))), r"dim\[0\]=9 not in 1..7"),
    "13-ndim-0": (zip_(patch((DIM, "h", 0))), r"dim\[0\]=0 not in 1..7"),
    "14-4d": (zip_(nifti(np.stack([X, X, X], 3))), r"4-dimensional \(8 x 8 x 6 x 3\)"),
    "15-2d": (zip_(nifti(X[..., 0])), "needs 3D"),
    "15-one-slice": (zip_(nifti(X[..., :1])), "needs 3D, this is 8 x 8 x 1"),
    "16-datatype": (zip_(patch((DATATYPE, "h", 999))), "datatype 999"),
    "17-rgb": (zip_(patch((DATATYPE, "h", 128))), "RGB voxels"),
    "18-complex": (zip_(nifti(X.astype(np.complex64))), "complex voxels"),
    "19-nan": (zip_(nifti(filled(NAN))), "1 voxels are NaN or infinite"),
    "19-inf": (zip_(nifti(filled(-INF, "f8"))), "1 voxels are NaN or infinite"),
    "20-constant": (zip_(nifti(np.full_like(X, 7))), r"every voxel is 7 \(zero variance\)"),
    "21-negative-pixdim": (zip_(patch((PIXDIM + 8, "f", -1))), r"pixdim\[2\] = -1 mm outside"),
    "22-zero-pixdim": (zip_(patch((PIXDIM + 4, "f", 0))), r"pixdim\[1\] = 0 mm outside"),
    "23-nan-pixdim": (zip_(patch((PIXDIM + 12, "f", NAN))), r"pixdim\[3\] = nan mm outside"),
    "24-tiny-zoom": (zip_(patch((PIXDIM + 4, "f", 1e-6))), r"outside 0.05..20"),
    "24-huge-zoom": (zip_(patch((PIXDIM + 4, "f", 500))), r"outside 0.05..20"),
    "25-nan-sform": (zip_(patch((SROW + 12, "f", NAN))), r"affine not finite \(sform\)"),
    "25-inf-sform": (zip_(patch((SROW, "f", INF))), r"affine not finite \(sform\)"),
    "25-nan-qform": (zip_(patch((QFORM_CODE, "h", 1), (QUATERN, "f", NAN))), "qform"),
    "26-singular-sform": (zip_(patch((SROW, "12f", *([1, 2, 3, 4] * 3)))), "singular sform"),
    "26-zero-sform": (zip_(patch((SROW, "12f", *([0] * 12)))), "singular sform"),
    "29-inf-slope": (zip_(patch((SLOPE, "f", INF))), "scl_slope = inf"),
    "29-inf-inter": (zip_(patch((INTER, "f", -INF))), "scl_inter = -inf"),
    "30-nan-slope": (zip_(patch((SLOPE, "f", NAN))), "scl_slope = nan"),
    "31-overflow": (zip_(patch((SLOPE, "f", 3e38))), r"382 voxels are not representable in float32"),
    "32-float64": (zip_(nifti(filled(1e300, "f8"))), "1 voxels are not representable"),
    "32-uint64": (zip_(nifti(filled(2**53 + 2, "u8"))), r"beyond 2\^53"),
    "32-int64": (zip_(nifti(filled(-(2**63), "i8"))), r"beyond 2\^53"),
    "33-far-offset": (zip_(patch((VOX_OFFSET, "f", 1e12))), r"vox_offset = 1e\+12, want 352"),
    "33-negative-offset": (zip_(patch((VOX_OFFSET, "f", -100))), "vox_offset = -100, want 352"),
    "33-nan-offset": (zip_(patch((VOX_OFFSET, "f", NAN))), "vox_offset = nan, want 352"),
    "33-odd-offset": (zip_(patch((VOX_OFFSET, "f", 352.5))), "vox_offset = 352.5, want 352"),
    "34-half-pair": (zip_(patch((MAGIC, "4s", b"ni1\0"))), "half of a .hdr/.img pair"),
    "38-extension": (
        zip_(patch((VOX_OFFSET, "f", 368), (EXTENDER, "b3x2i", 1, 4096, 6)) + bytes(16)),
        "extension block of 4096 bytes runs into the voxels",
    ),
    "38-past-the-end": (zip_(patch((VOX_OFFSET, "f", 1e6))), "header shorter than"),
}  # fmt: skip

# id -> (content of patient_seg.nii.gz, what the reason says)
MASKS = {
    "35-shape": (zip_(nifti(MASK[:, :, :5])), "mask: is 8 x 8 x 5, its image 8 x 8 x 6"),
    "36-shifted": (zip_(nifti(MASK, AFFINE + np.eye(4, k=3) * 0.01)), "mask: has another affine"),
    "37-empty": (zip_(nifti(np.zeros_like(MASK))), "mask: is empty"),
    "37-full": (zip_(nifti(np.ones_like(MASK))), "mask: covers every voxel"),
    "37-labels": (zip_(nifti(MASK * 9)), r"mask: has labels \{0, 9\}; want a subset of \[0, 1, 2"),
    "37-halves": (zip_(nifti(MASK * np.float32(0.5))), "mask: values are not labels"),
    "37-truncated": (zip_(short_by(nifti(MASK), 9)), "mask: truncated"),
}


def place(parent: Path, patient: str, image: bytes, mask: bytes) -> tuple[Path, Path]:
    folder = parent / patient
    folder.mkdir(parents=True)
    paths = folder / f"{patient}_flair.nii.gz", folder / f"{patient}_seg.nii.gz"
    for path, content in zip(paths, (image, mask), strict=True):
        path.write_bytes(content)
    return paths


CORPUS = {name: (image, zip_(nifti(MASK)), reason) for name, (image, reason) in IMAGES.items()}
CORPUS |= {name: (zip_(nifti()), mask, reason) for name, (mask, reason) in MASKS.items()}


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # socket paths are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


NOT_FILES = {
    "symlink": (lambda p: p.symlink_to("/etc/hostname"), "a symbolic link, not a regular file"),
    "dangling": (lambda p: p.symlink_to("nowhere"), "a symbolic link, not a regular file"),
    "fifo": (os.mkfifo, "a FIFO, not a regular file"),
    "folder": (Path.mkdir, "a folder, not a regular file"),
    "socket": (make_socket, "a device or socket, not a regular file"),
    "absent": (lambda p: None, "missing"),
    "unreadable": (lambda p: (p.write_bytes(b"x"), p.chmod(0)), "cannot be opened"),
}

NAMES = [
    ("a\n.nii", "control characters"),
    ("\x1b[2J.nii", "control characters"),
    (os.fsdecode(b"\xff\xfe.nii"), "not valid UTF-8"),
    ("x" * 251 + ".nii", "too long"),
]
