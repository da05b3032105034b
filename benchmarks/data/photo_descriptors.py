"""Gathers 1,010,000 SIFT descriptors (128 bytes each) from Debian's photographs.

    apt-get update
    python benchmarks/data/photo_descriptors.py OUT [--threads 1] [--dense]

With --dense, 10,010,000 descriptors of points on a grid instead, at three scales, as OUT/dense-10m.npy: ten minutes.

Needs an environment of its own, `pip install opencv-python-headless numpy`, and a machine with apt-get and dpkg-deb.
Takes about two minutes on one core, 3.2 GB of memory, 600 MB to fetch and 600 MB on the disk.

Written: OUT/sift-1m.npy, uint8 (1010000, 128), in random order, to be compared by squared Euclidean distance.

The pictures come from Debian's packages of wallpapers, fetched with `apt-get download` into OUT/photos and unpacked
there, not installed. Only photographs are listed: drawings and renderings give few descriptors, or the same one again
and again. Each photograph is taken once, though packages have some at several sizes. The
descriptors: D. Lowe, Distinctive image features from scale-invariant keypoints, 2004.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ROWS = 1_010_000
PER_PHOTO = 64_000  # the strongest; no photograph gives more than 6.4 % of the rows
LONGEST_SIDE = 4500
CONTRAST = 0.013  # OpenCV's default, 0.04, finds too few in soft photographs
SEED = 7
DENSE_ROWS = 10_010_000
GRID = 5  # pixels between points of the grid
SCALES = (1.0, 0.7, 0.5)  # of the picture
SPREAD_MIN = 3.0  # standard deviation of the grey around a point: below it there is noise to describe, and nothing else

PHOTOGRAPHS: dict[str, list[str]] = {
    "enlightenment-data": [
        f"usr/share/enlightenment/data/backgrounds/{name}.edj"
        for name in (
            "Bamboo", "God-Rays", "Green-Maple",
            "Lichen-Branches", "Mountain", "Peaks", "Red-Maple",
            "Sea-of-Lanterns", "Snow-Trees", "Spruce-Needles", "Sunset-Clouds",
            "White-Flower", "Yellow-Flower",
        )
    ],
    "lomiri-wallpapers-16.04": [
        f"usr/share/backgrounds/{name}.jpg"
        for name in (
            "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Picture_0B_by_freespace",
            "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi",
            "free_by_Peter_Nerlich", "friends_by_Aitzol_Berasategi",
            "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
            "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt",
            "sunset_by_Aitzol_Berasategi",
        )
    ],
    "lomiri-wallpapers-20.04": ["usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg"],
    "lxqt-themes": [
        f"usr/share/lxqt/wallpapers/{name}"
        for name in (
            "Valendas.png", "after-the-rain.jpg", "appleflower.png", "beam.png",
            "butterfly.png", "cloud.png", "drop.png", "flowers.png", "fog.jpg",
            "this-is-not-windows.jpg",
        )
    ],
    "mate-backgrounds": [
        f"usr/share/backgrounds/mate/nature/{name}.jpg"
        for name in (
            "Aqua", "Blinds", "Dune", "FreshFlower", "Garden", "GreenMeadow", "LadyBird",
            "RainDrops", "TwoWings", "Wood", "YellowFlower",
        )
    ],
    "plasma-workspace-wallpapers": [
        f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg"
        for name in (
            "BytheWater", "ColdRipple", "ColorfulCups", "EveningGlow", "FallenLeaf", "Grey",
            "Kite", "OneStandsOut", "Path", "summer_1am",
        )
    ],
}  # fmt: skip


def unpack(package: str, folder: Path) -> Path:
    """The folder with the package's files, fetched unless it is already there."""
    target = folder / package
    if not target.is_dir():
        debs = folder / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", package], cwd=debs, check=True)
        (deb,) = debs.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", deb, target], check=True)
        deb.unlink()
    return target


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture in grey, at most LONGEST_SIDE wide and high."""
    data = path.read_bytes()
    if path.suffix == ".edj":
        # Enlightenment's archive holds the photograph as JPEGs at several sizes.
        start = b"\xff\xd8\xff\xe0\x00\x10JFIF"
        data = start + max(data.split(start)[1:], key=len)
    grey: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError(f"{path}: not a picture")
    scale = LONGEST_SIDE / max(grey.shape)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return grey


def descriptors(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (n, 128): the SIFT descriptors of a picture's strongest keypoints."""
    sift = cv2.SIFT_create(nfeatures=PER_PHOTO, contrastThreshold=CONTRAST)
    _, found = sift.detectAndCompute(grey, None)
    if found is None:
        return np.empty((0, 128), np.uint8)
    # OpenCV gives whole numbers from 0 to 255 as float32: nothing is lost.
    return found[:PER_PHOTO].astype(np.uint8)


def dense_descriptors(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (n, 128): histograms of gradients around points of a grid, where there is something to see, at SCALES.

    As SIFT describes a keypoint that is not turned: 4 x 4 cells, 8 directions in each, clipped at .2 of the length.
    """
    sizes = [cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for scale in SCALES]
    return np.vstack([at_one_scale(size) for size in sizes])


def at_one_scale(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values = grey.astype(np.float32)
    mean, square = cv2.blur(values, (16, 16)), cv2.blur(values * values, (16, 16))
    length, angle = cv2.cartToPolar(cv2.Sobel(values, cv2.CV_32F, 1, 0), cv2.Sobel(values, cv2.CV_32F, 0, 1))
    ys, xs = np.nonzero((square - mean * mean >= SPREAD_MIN**2)[8:-8:GRID, 8:-8:GRID])
    ys, xs = GRID * ys + 8, GRID * xs + 8
    found = np.empty((len(ys), 4, 4, 8), np.float32)
    for direction in range(8):
        off = np.abs((angle * (4 / np.pi) - direction + 4) % 8 - 4)  # in steps of an eighth of a turn
        sums = cv2.blur(length * np.maximum(0, 1 - off), (4, 4))
        for i in range(4):
            for j in range(4):
                found[:, i, j, direction] = sums[ys + 4 * i - 6, xs + 4 * j - 6]
    rows = found.reshape(len(ys), 128)
    for _ in range(2):
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        np.minimum(rows, 0.2, out=rows)
    return np.asarray(np.minimum(512 * rows, 255), np.uint8)


def gather(folder: Path, describe: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """The descriptors of every photograph, fetched into `folder`."""
    found = []
    for package, names in PHOTOGRAPHS.items():
        unpacked = unpack(package, folder)
        for name in names:
            grey = read_grey(unpacked / name)
            found.append(describe(grey))
            height, width = grey.shape
            label = name.removesuffix("/contents/images/2560x1600.jpg")
            print(f"{package}/{Path(label).stem} {width}x{height}: {len(found[-1]):,}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for sift-1m.npy and photos/")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dense", action="store_true", help="of a grid, ten times as many: dense-10m.npy")
    given = parser.parse_args()
    cv2.setNumThreads(given.threads)
    start = time.perf_counter()
    wanted, name = (DENSE_ROWS, "dense-10m.npy") if given.dense else (ROWS, "sift-1m.npy")
    found = gather(given.out / "photos", dense_descriptors if given.dense else descriptors)
    rows = np.vstack(found)
    print(f"{len(rows):,} descriptors of {len(found)} photographs")
    if len(rows) < wanted:
        raise SystemExit(f"{wanted - len(rows):,} too few")
    np.save(given.out / name, rows[np.random.default_rng(SEED).permutation(len(rows))[:wanted]])
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
