"""Kinds of files that hold scans and are not read here: what each is, and what would help."""

from __future__ import annotations

from collections.abc import Mapping

_NIFTI = "convert it to NIfTI (.nii.gz), as 3D Slicer, SimpleITK.WriteImage or mri_convert do"
_UNPACK = "unpack it (gunzip, bunzip2, unxz)"
_FRAMES = "write the frames that you mean as images (ffmpeg -i FILE %04d.png)"
_TILES = "write tiles or a smaller view of it as TIFF or PNG (QuPath, bfconvert, vips)"
_ARRAYS = "write what is in it as PNG or NIfTI, with a table if classes are in it"
_ARCHIVE = "unpack it"

_VOLUMES: tuple[tuple[str, str, str], ...] = (
    (".mha .mhd", "MetaImage", _NIFTI),
    (".nrrd .nhdr", "NRRD", _NIFTI),
    (".mgz .mgh .mgh.gz", "FreeSurfer's MGH", _NIFTI),
    (".mnc .mnc.gz", "MINC", "convert it to NIfTI (mnc2nii, mri_convert)"),
    (".head", "AFNI's BRIK/HEAD", "convert it to NIfTI (3dAFNItoNIFTI)"),
    (".par", "Philips PAR/REC", "convert it to NIfTI (dcm2niix, parrec2nii)"),
    (".gipl .gipl.gz", "GIPL", _NIFTI),
    (".nii.bz2 .nii.xz .nii.zst .hdr.gz", "packed NIfTI", _UNPACK),
)
_PICTURES: tuple[tuple[str, str, str], ...] = (
    (".avi .mp4 .mov .mkv .wmv .mpg .mpeg .m4v .webm .flv", "a video", _FRAMES),
    (".svs .ndpi .mrxs .scn .vms .vmu .bif .svslide", "a whole-slide image", _TILES),
    (".czi .lif .nd2 .oib .oir .vsi .lsm .qptiff", "a microscope's own format", _TILES),
    (".npy .mat .h5 .hdf5 .pkl .pickle .pt .pth", "a file of arrays", _ARRAYS),
    (".parquet .feather .tfrecord .tfrecords .lmdb .mdb .zarr", "a file of arrays", _ARRAYS),
    (".h5.gz .npy.gz .pkl.gz .mat.gz", "a packed file of arrays", _ARRAYS),
    (".dcm.gz .dcm.bz2 .dcm.xz .dcm.zst .ima.gz", "packed DICOM", _UNPACK),
    (".png.gz .jpg.gz .tif.gz .tiff.gz", "a packed image", _UNPACK),
    (".ljpeg", "lossless JPEG without a header (DDSM)", "convert it to PNG"),
    (".heic .heif .avif .jxl .dng .cr2 .nef .arw", "a camera's format", "convert it to PNG"),
    (".psd .xcf", "a drawing program's format", "export it as PNG"),
    (".e2e .fds .fda .vol .oct", "an OCT device's own format", "export its B-scans as PNG"),
)
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (".zip .tar .tgz .tar.gz .tbz .tar.bz2 .tar.xz .7z .rar .z01", "an archive", _ARCHIVE),
    (".csv.gz .tsv.gz .csv.bz2 .csv.xz", "a packed table", _UNPACK),
    (".pdf .doc .docx .odt .rtf .ppt .pptx", "a document", "if it says classes, write them as CSV"),
    (".tcia", "a list of what to download", "open it with the NBIA Data Retriever"),
    (".img .img.gz", "a file of bare voxels", "put its .hdr beside it, or convert it to NIfTI"),
    (".raw .raw.gz .zraw .brik .brik.gz .rec", "a file of bare voxels", _NIFTI),
)


def _by_ending(rows: tuple[tuple[str, str, str], ...]) -> Mapping[str, str]:
    return {
        ending: f"{what}, which is not read here; {advice}"
        for endings, what, advice in rows
        for ending in endings.split()
    }


UNREAD_VOLUMES = _by_ending(_VOLUMES)
"""Ending -> what it is and what to do: files that are scans of their own."""
UNREAD_PICTURES = _by_ending(_PICTURES)
"""Likewise, of images, and of what lies in folders as if it were one."""
UNREAD_OTHERS = _by_ending(_OTHERS)
"""Likewise, of files that are no scan by themselves."""
UNREAD: Mapping[str, str] = {**UNREAD_VOLUMES, **UNREAD_PICTURES, **UNREAD_OTHERS}
PACKED = frozenset({"gz", "bz2", "xz", "zst"})
"""Last endings that tell nothing by themselves."""
