"""Image files from anyone: bombs, damage, odd formats, links, names, and files that change."""

import io
import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageFile

from cgan.data import ImageFolder, Loader, load_pictures
from cgan.data import image_file as limits
from cgan.data.image_file import read_image
from cgan.data.image_folder import scan_folder
from cgan.errors import DataError
from tests.conftest import make_pets

SHAPE = (3, 8, 8)
RANDOM = np.random.default_rng(0)
NOISE = Image.fromarray(RANDOM.integers(0, 256, (8, 8, 3), dtype=np.uint8))
RAMP = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deflated_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(1 << 20, count - at))) for at in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, before: bytes = b""
) -> bytes:
    """A PNG from a header, compressed rows, and chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + before + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(tags: dict[int, int], data: bytes) -> bytes:
    """A little-endian TIFF; each tag has one value, and tag 273 or 324 points to the data."""
    at = 8 + 2 + 12 * (len(tags) + 1) + 4
    offsets = 324 if 322 in tags else 273
    entries = sorted((tags | {offsets: at}).items())
    listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + listed + bytes(4) + data


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_gif() -> bytes:
    small = bytearray(encoded(NOISE.quantize(8), "GIF"))
    small[6:10] = struct.pack("<HH", 30_000, 30_000)
    return bytes(small)


def huge_webp() -> bytes:
    frames = {"save_all": True, "append_images": [NOISE.rotate(90)]}  # on a canvas of any size
    small = bytearray(encoded(NOISE, "WEBP", lossless=True, **frames))
    assert small[12:16] == b"VP8X"
    small[24:30] = (12_000 - 1).to_bytes(3, "little") + (10_000 - 1).to_bytes(3, "little")
    return bytes(small)


def huge_tiles() -> bytes:
    """A TIFF of 8×8 pixels in one tile of 30,000×30,000: the image's size says nothing."""
    data = b"never decoded"
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000}
    return tiff(tags | {325: len(data)}, data)


BOMBS = {
    "a.png": png(30_000, 30_000, 1, 0, zlib.compress(b"")),
    "warned.png": png(12_000, 10_000, 1, 0, zlib.compress(b"")),
    "b.gif": huge_gif(),
    "c.webp": huge_webp(),
    "d.tif": tiff({256: 12_000, 257: 10_000, 258: 8, 259: 1, 262: 1, 277: 1, 279: 9}, b"."),
    "tiles.tif": huge_tiles(),
    "e.bmp": b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 12_000, 10_000, 1, 24) + bytes(45),
    "f.ppm": b"P6 12000 10000 255\n",
    "g.jpg": encoded(NOISE, "JPEG").replace(b"\0\x08\0\x08\x03", b"\x75\x30\x2e\xe0\x03", 1),
}


@pytest.mark.parametrize("name", BOMBS)
def test_images_of_too_many_pixels_are_never_decoded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # the caller may have switched it off
    with pytest.raises(DataError, match=f"{name} .*too many pixels, and the limit is 89,478,485"):
        read_image(path, SHAPE)


def test_pillows_own_limits_are_one_sentence_too(tmp_path: Path) -> None:
    for name in ("a.png", "warned.png"):  # one is an error of Pillow, the other a warning
        (tmp_path / name).write_bytes(BOMBS[name])
        with limits.ignore_pillow_warnings(), pytest.raises(DataError, match="too many pixels"):
            read_image(tmp_path / name, SHAPE)
        with pytest.raises(DataError, match="too many pixels"):
            read_image(tmp_path / name, SHAPE)


def test_a_real_bomb_takes_no_memory(tmp_path: Path) -> None:
    """20 kB that decode to 120 million bytes, read with 100 MB of memory left."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png(12_000, 10_000, 1, 0, deflated_zeros(10_000 * 1_501)))
    assert path.stat().st_size < 20_000
    code = (
        "import resource, sys; from pathlib import Path; from cgan.data.image_file import *;"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, used + 10**8))\n"
        "try: read_image(Path(sys.argv[1]), (1, 8, 8))\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)], capture_output=True, text=True
    )
    assert "too many pixels" in done.stdout, done.stderr


def test_the_largest_image_is_read_and_one_row_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_PIXELS", 64)
    NOISE.save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png", SHAPE).permute(1, 2, 0), pixels_of(NOISE))
    NOISE.resize((8, 9)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="too many pixels"):
        read_image(tmp_path / "b.png", SHAPE)


def pixels_of(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))


def test_huge_sparse_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    NOISE.save(path)
    os.truncate(path, limits.MAX_FILE_BYTES)
    assert read_image(path, SHAPE).shape == SHAPE  # bytes after the image do not matter
    os.truncate(path, limits.MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match=r"x.png .*it has 357,913,941 bytes"):
        read_image(path, SHAPE)


def test_threads_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "count_cores", lambda: 64)
    for gib, threads in ((0, 1), (1, 1), (5, 3), (1000, 64)):
        monkeypatch.setattr(limits, "free_memory", lambda gib=gib: gib << 30)
        with limits.reading_threads() as pool:
            assert pool._max_workers == threads


@pytest.mark.parametrize("size", [(1, 1), (50_000, 1), (1, 50_000), (3, 2)])
def test_extreme_shapes(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "x.png")
    read = read_image(tmp_path / "x.png", SHAPE)
    assert read.shape == SHAPE
    assert read[:, 0, 0].tolist() == [9, 8, 7]


KINDS = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM"]


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_files(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(big, kind)
    path = tmp_path / "x.png"  # the suffix does not matter
    for length in (0, 1, 20, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"x.png cannot be read as an image \(.+\)$"):
            read_image(path, SHAPE)
    if kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "PPM"):  # the caller wants them nevertheless
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert read_image(path, SHAPE).shape == SHAPE


GREY_16 = np.linspace(0, 65_535, 64).reshape(8, 8)


def test_16_bits_are_scaled_to_8(tmp_path: Path) -> None:
    grey = GREY_16.astype(np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in grey)
    big_endian = {256: 8, 257: 8, 258: 16, 259: 1, 262: 1, 277: 1, 278: 8, 279: 128}
    swapped = tiff(big_endian, b"")
    entries = [struct.unpack_from("<HHII", swapped, 10 + 12 * i) for i in range(9)]
    head = b"MM\0*" + struct.pack(">IH", 8, 9)
    head += b"".join(struct.pack(">HHII", *entry) for entry in entries) + bytes(4)
    files = {
        "i16.png": png(8, 8, 16, 0, zlib.compress(rows)),
        "i16.tif": encoded(Image.fromarray(grey), "TIFF"),
        "i16b.tif": head + grey.astype(">u2").tobytes(),
        "i.tif": encoded(Image.fromarray(GREY_16.astype(np.int32)), "TIFF"),
        "i.pgm": b"P5 8 8 65535\n" + grey.astype(">u2").tobytes(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        read = read_image(tmp_path / name, (1, 8, 8))
        assert torch.equal(read[0], torch.from_numpy((grey // 257).astype(np.uint8))), name
    transparent = png(8, 8, 16, 0, zlib.compress(rows), chunk(b"tRNS", struct.pack(">H", 0)))
    (tmp_path / "t.png").write_bytes(transparent)
    assert read_image(tmp_path / "t.png", (1, 8, 8))[0, 0, :2].tolist() == [255, grey[0, 1] // 257]


def test_16_bit_colour_is_scaled_to_8(tmp_path: Path) -> None:
    pixels = np.array(NOISE).astype(np.uint16)
    rows = b"".join(b"\0" + (row * 257).astype(">u2").tobytes() for row in pixels)
    (tmp_path / "x.png").write_bytes(png(8, 8, 16, 2, zlib.compress(rows)))
    read = read_image(tmp_path / "x.png", SHAPE)
    assert torch.equal(read.permute(1, 2, 0), pixels_of(NOISE))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GREY_16.astype(np.float32) / 65_535, "floating-point numbers: convert it to 8 or 16"),
        (np.full((8, 8), np.nan, dtype=np.float32), "floating-point numbers"),
        (GREY_16.astype(np.int32) * 2, "not in 0..65535"),
        (GREY_16.astype(np.int32) - 1, "not in 0..65535"),
    ],
)
def test_pixels_of_unknown_range_are_refused(
    values: np.ndarray, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(values).save(tmp_path / "a" / "x.tif")
    with pytest.raises(DataError, match=reason):
        scan_folder(tmp_path)


def test_colour_spaces(tmp_path: Path) -> None:
    """CMYK, YCCK and LAB become RGB: a red image stays red."""
    red = Image.new("RGB", (8, 8), (200, 10, 10))
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (110, 198, 178)])
    for name, data in {
        "cmyk.jpg": encoded(red.convert("CMYK"), "JPEG", quality=100),
        "ycck.jpg": red_ycck(),
        "cmyk.tif": encoded(red.convert("CMYK"), "TIFF"),
        "lab.tif": encoded(lab, "TIFF"),
    }.items():
        (tmp_path / name).write_bytes(data)
        r, g, b = read_image(tmp_path / name, SHAPE)[:, 4, 4].tolist()
        assert r > 150, name
        assert max(g, b) < 50, name


def red_ycck() -> bytes:
    """Pillow writes CMYK only: put YCC into its channels, and say so in the marker of Adobe."""
    cyan = Image.new("RGB", (8, 8), (0, 245, 245)).convert("YCbCr")  # the complement of red
    bands = [*cyan.split(), Image.new("L", (8, 8), 200)]
    inverted = Image.merge("CMYK", [band.point(lambda value: 255 - value) for band in bands])
    data = bytearray(encoded(inverted, "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def test_transparency_is_white_in_palettes_too(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(0, (0, 0, 4, 8))
    for name, options, left in (
        ("a.png", {}, [0, 0, 0]),
        ("b.png", {"transparency": 0}, [255, 255, 255]),
        ("c.png", {"transparency": b"\x80\xff"}, [127, 127, 127]),
        ("d.gif", {"transparency": 0}, [255, 255, 255]),
    ):
        image.save(tmp_path / name, **options)
        read = read_image(tmp_path / name, SHAPE)
        assert read[:, 0, 0].tolist() == left, name
        assert read[:, 0, 7].tolist() == [200, 0, 0], name


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_the_first_frame_of_several_is_read(name: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 0, 200))]
    lossless = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
    assert read_image(tmp_path / name, SHAPE)[:, 4, 4].tolist() == [200, 0, 0]


def test_wrong_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image's suffix does not matter, but only the listed formats are opened at all."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args: started.append(args))
    path = tmp_path / "x.png"
    for kind in KINDS:
        path.write_bytes(encoded(NOISE, kind))
        assert read_image(path, SHAPE).shape == SHAPE
    others = [encoded(NOISE, kind) for kind in ("EPS", "PDF", "ICO", "TGA", "PCX", "DDS")]
    for data in [*others, b"hello", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>"]:
        path.write_bytes(data)
        with pytest.raises(DataError, match="damaged or in none of the formats PNG, JPEG, BMP"):
            read_image(path, SHAPE)
    assert not started


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp", "x.tif"])
def test_orientation(name: str, tmp_path: Path) -> None:
    """Orientation 6 turns the file's pixels clockwise. The TIFF is uncompressed and not square."""
    exif = Image.Exif()
    exif[0x112] = 6
    image = Image.fromarray(np.add.outer(10 * np.arange(8), 8 * np.arange(16)).astype(np.uint8))
    image.save(tmp_path / name, exif=exif, **({"lossless": True} if name == "x.webp" else {}))
    image.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    expected = read_image(tmp_path / "upright.png", (1, 8, 8))
    difference = read_image(tmp_path / name, (1, 8, 8)).int() - expected.int()
    assert difference.abs().max() <= (20 if name == "x.jpg" else 0)


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp"])
def test_damaged_exif_and_profiles_do_not_break_an_image(name: str, tmp_path: Path) -> None:
    far = b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0" * 9
    wrong_type = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02A\0\0\0\0\0\0\0"
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / name
    for block in (b"", b"\xff" * 40, far, wrong_type, b"MM\0*\0\0\0\x08\0\x09"):
        NOISE.save(path, exif=b"Exif\0\0" + block, icc_profile=b"no profile")
        assert len(scan_folder(tmp_path).take(torch.tensor([0]))) == 1


def test_bombs_in_texts_and_profiles_of_a_png(tmp_path: Path) -> None:
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.array(NOISE)))
    zeros = deflated_zeros(20 << 20)
    for before in (
        chunk(b"zTXt", b"key\0\0" + zeros),
        chunk(b"iTXt", b"key\0\1\0\0\0" + zeros),
        chunk(b"iCCP", b"key\0\0" + zeros),
    ):
        (tmp_path / "x.png").write_bytes(png(8, 8, 8, 2, rows, before))
        with pytest.raises(DataError, match="(?i)too large"):
            read_image(tmp_path / "x.png", SHAPE)


def test_links_pipes_and_devices(tmp_path: Path, pets: Path) -> None:
    """Nothing hangs. What cannot be read is broken; a folder is a folder, whatever its name."""
    cat = pets / "cat"
    (cat / "up.png").symlink_to(pets)  # a folder
    (cat / "folder.png").mkdir()
    (pets / "loop").symlink_to(pets)
    (pets / "self").symlink_to(pets / "self")
    (cat / "good.png").symlink_to(cat / "00.png")
    assert len(scan_folder(pets)) == 25
    (cat / "dangling.png").symlink_to(tmp_path / "nowhere")
    (cat / "itself.png").symlink_to(cat / "itself.png")
    (cat / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(cat / "pipe.png")
    for name, reason in (
        ("dangling.png", "No such file"),
        ("itself.png", "Too many levels"),
        ("pipe.png", "not a regular file"),
        ("zero.png", "not a regular file"),
    ):
        with pytest.raises(DataError, match=f"{name} cannot be read as an image .*{reason}"):
            scan_folder(pets)
        (cat / name).unlink()
    assert len(scan_folder(pets)) == 25


def test_unreadable_files_and_folders(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the errors are simulated."""

    def refuse(path: Path, *args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(
            DataError,
            match=r"00.png .*Permission denied\); 23 more cannot be read either: add --skip-broken",
        ):
            scan_folder(pets)
    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", refuse)
        with pytest.raises(DataError, match="pets'? cannot be read: Permission denied"):
            scan_folder(pets)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", refuse)
        with pytest.raises(DataError, match="pets'? cannot be read: Permission denied"):
            load_pictures(str(pets))
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        load_pictures("a" * 5_000)


def test_odd_file_names(pets: Path) -> None:
    good = (pets / "cat" / "00.png").read_bytes()
    for name in (b"caf\xe9.png", b"new\nline.PNG", b"\x1b[31m.JPEG", b" .Tif", b"%s{}.gif"):
        (pets / "cat" / os.fsdecode(name)).write_bytes(good)
    for name in (".DS_Store", "._x.png", ".hidden.jpg", "Thumbs.db", "png", "x.png.txt"):
        (pets / "cat" / name).write_bytes(b"no image")
    scanned = scan_folder(pets)
    assert len(scanned) == 29
    assert len(scanned.digest()) == 64
    assert len(load_pictures(str(pets), memory_bytes=0)) > 0


def test_broken_files_are_counted_in_one_sentence(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(20):
        (pets / "cat" / f"b{index:02}.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        scan_folder(pets)
    assert str(caught.value).startswith(f"{pets / 'cat' / 'b00.png'} cannot be read as an image (")
    assert str(caught.value).endswith(
        "); 19 more cannot be read either: add --skip-broken to skip them"
    )
    assert len(scan_folder(pets, skip_broken=True)) == 24
    (warning,) = {r.getMessage() for r in caplog.records if r.levelno == logging.WARNING}
    assert warning.startswith("skipped 20 broken images: ")
    assert warning.endswith(", 17 more")
    assert warning.count("cannot be read as an image") == 3


def test_classes_without_a_readable_image_are_named(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"c{index}").mkdir()
        (tmp_path / f"c{index}" / "x.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"no image of c0, c1, c2, 2 more in .* can be read"):
        scan_folder(tmp_path, skip_broken=True)


def test_thousands_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(NOISE, "PNG")
    for index in range(2_000):
        (tmp_path / f"{index:04}").mkdir()
        if index % 2:
            (tmp_path / f"{index:04}" / "x.png").write_bytes(data)
    scanned = scan_folder(tmp_path)
    assert len(scanned.classes) == 1_000
    assert scanned.labels.tolist() == list(range(1_000))
    empty, same, copies = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert empty.endswith("0002, " + str(tmp_path / "0004") + ", 997 more")
    assert same.startswith("1 images are in several classes, such as ")
    assert same.endswith("x.png, 997 more: --skip-conflicts leaves them out")
    assert copies == "999 of 1,000 images are copies of another file"


@pytest.mark.parametrize("change", ["vanish", "break", "pipe", "grow"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_changes_after_the_scan(change: str, workers: int, pets: Path) -> None:
    """One sentence, also from a worker process, and no worker stays."""
    folder = load_pictures(str(pets), memory_bytes=0)
    assert isinstance(folder, ImageFolder)
    batches = Loader(folder, 4, workers=workers).batches()
    next(batches)
    path = folder.paths[0]
    path.unlink()
    if change == "break":
        path.write_bytes(b"\x89PNG\r\n")
    elif change == "pipe":
        os.mkfifo(path)
    elif change == "grow":
        path.write_bytes(BOMBS["a.png"])
    with pytest.raises(DataError) as caught:
        list(islice(batches, 20))
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be read as an image (")
    assert message.endswith(
        "although it could be read at the start: restore it, or start again with --skip-broken"
    )
    assert "\n" not in message
    assert not torch.multiprocessing.active_children()


def test_a_file_that_changes_while_all_are_read(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_folder(pets)
    scan.paths[3].unlink()
    monkeypatch.setattr("cgan.data.load.scan_folder", lambda *args, **options: scan)
    with pytest.raises(DataError, match="although it could be read at the start"):
        [load_pictures(str(pets), split) for split in ("train", "validation", "test")]


def test_warnings_of_pillow_are_not_shown(pets: Path) -> None:
    far = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\xff\xff\xff\xff\0\0\0\0" * 9
    NOISE.save(pets / "cat" / "x.jpg", exif=far)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        scan_folder(pets).take(torch.arange(25))
    assert not seen


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_mutations_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    """60 files per format with flipped bits, a third of them cut; scan and read agree."""
    random = np.random.default_rng(KINDS.index(kind))
    exif = Image.Exif()
    exif[0x112] = 6
    whole = encoded(NOISE, kind, **({"exif": exif} if kind != "GIF" else {}))
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.png"
    outcomes = set()
    for index in range(60):
        data = bytearray(whole)
        for at in random.integers(len(data), size=random.integers(1, 4)):
            data[at] ^= 1 << random.integers(8)
        path.write_bytes(data[: random.integers(len(data))] if index % 3 == 0 else data)
        with limits.ignore_pillow_warnings():
            try:
                readable = read_image(path, SHAPE).shape == SHAPE
            except DataError:
                readable = False
        try:
            assert len(scan_folder(tmp_path)) == readable
        except DataError:
            assert not readable
        outcomes.add(readable)
    assert outcomes == {True, False}


def test_ordinary_images_are_unchanged(tmp_path: Path) -> None:
    """No limit or check alters a pixel of an image that needs no conversion."""
    root = make_pets(tmp_path / "pets", side=28)
    for path in sorted(root.rglob("00.png")):
        with Image.open(path) as image:
            expected = pixels_of(image)
        assert torch.equal(read_image(path, (3, 28, 28)).permute(1, 2, 0), expected)
