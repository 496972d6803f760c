"""Compiled loops over the pixels of tiles, for :mod:`h2e._learners.texture_features`; the functions are plain Python."""

from __future__ import annotations

import numpy as np

N_BINS = 2048
"""Of equal width between the least and the largest value of a plane, in which its values are counted."""


def stain_planes(
    tiles: np.ndarray, densities: np.ndarray, unmix: np.ndarray, black: int, planes: np.ndarray, counts: np.ndarray
) -> None:
    """Fill the planes (n, 4, p, p) of three stains and saturation, and count bytes, (n, 4, 256).

    Those of red, green, blue and the least of them. Black pixels count as white: no stain is black, but cut-outs,
    borders and pen are, which are not tissue.
    """
    size = tiles.shape[-1]
    white, one = np.uint8(255), np.float32(1)
    red, green, blue = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    top, bottom = np.empty(size, np.uint8), np.empty(size, np.uint8)
    for n in range(len(tiles)):
        for y in range(size):
            for x in range(size):
                r, g, b = tiles[n, 0, y, x], tiles[n, 1, y, x], tiles[n, 2, y, x]
                if max(r, g, b) < black:
                    r = g = b = white
                top[x], bottom[x] = max(r, g, b), min(r, g, b)
                red[x], green[x], blue[x] = densities[r], densities[g], densities[b]
                counts[n, 0, r] += 1
                counts[n, 1, g] += 1
                counts[n, 2, b] += 1
                counts[n, 3, bottom[x]] += 1
            for stain in range(3):
                u, v, w = unmix[stain, 0], unmix[stain, 1], unmix[stain, 2]
                for x in range(size):
                    planes[n, stain, y, x] = u * red[x] + v * green[x] + w * blue[x]
            for x in range(size):
                brightest = np.float32(top[x])
                planes[n, 3, y, x] = (brightest - np.float32(bottom[x])) / max(brightest, one)


def products(values: np.ndarray, out: np.ndarray) -> None:
    """Write sums over the pixels of values (n, 4, pixels) and of their products, (n, 5, 4): the first row has the sums."""
    for n in range(len(values)):
        for i in range(4):
            total = 0.0
            for x in range(values.shape[2]):
                total += values[n, i, x]
            out[n, 0, i] = total
            for j in range(i + 1):
                total = 0.0
                for x in range(values.shape[2]):
                    total += np.float64(values[n, i, x]) * np.float64(values[n, j, x])
                out[n, i + 1, j] = out[n, j + 1, i] = total


def around_ranks(
    values: np.ndarray, least: np.ndarray, largest: np.ndarray, ranks: np.ndarray, some: np.ndarray, at: np.ndarray
) -> None:
    """Write what is left to sort of each row (n, pixels) to know the values of some ranks: those that share a bin with one.

    And, (n, k), where the ranks are among them. The last of the ranks is the number of pixels, and tells how many they
    are.
    """
    size = values.shape[1]
    bins, wanted = np.empty(size, np.uint16), np.empty(N_BINS, np.bool_)
    for n in range(len(values)):
        low, per_unit = least[n], np.float32(N_BINS - 1) / max(largest[n] - least[n], np.float32(1e-30))
        for x in range(size):
            bins[x] = np.int32((values[n, x] - low) * per_unit)
        counts = np.zeros(N_BINS, np.int64)
        for x in range(size):
            counts[bins[x]] += 1
        k = below = left_out = 0
        for b in range(N_BINS):
            below += counts[b]
            wanted[b] = ranks[k] < below
            left_out += 0 if wanted[b] else counts[b]
            while ranks[k] < below:
                at[n, k] = ranks[k] - left_out
                k += 1
        at[n, k] = size - left_out
        n_some = 0
        for x in range(size):
            if wanted[bins[x]]:
                some[n, n_some] = values[n, x]
                n_some += 1


def octave(images: np.ndarray, out: np.ndarray) -> None:
    """Write means over the pixels of each image (n, h, w) that are two from its edge, (n, 8).

    Of the difference to a binomial blur by (1, 4, 6, 4, 1) / 16 along both axes: square, cube, fourth power, and the
    share above its standard deviation. Of the gradient: length, and the products xx, yy, xy.
    """
    height, width = images.shape[1:]
    column, bands = np.empty(width, np.float32), np.empty((height - 4, width - 4), np.float32)
    four, six, blur, half = np.float32(4), np.float32(6), np.float32(1 / 256), np.float32(0.5)
    for n in range(len(images)):
        total = np.zeros(8)
        for y in range(2, height - 2):
            a, b, c, d, e = images[n, y - 2], images[n, y - 1], images[n, y], images[n, y + 1], images[n, y + 2]
            for x in range(width):
                column[x] = (a[x] + e[x]) + four * (b[x] + d[x]) + six * c[x]
            # Neighbours as slices: of an index below zero the compiler would have to think, and not vectorize.
            far, near, middle = column[: width - 4], column[1 : width - 3], column[2 : width - 2]
            next_near, next_far = column[3 : width - 1], column[4:]
            left, here, right = c[1 : width - 3], c[2 : width - 2], c[3 : width - 1]
            above, below, bands_here = b[2 : width - 2], d[2 : width - 2], bands[y - 2]
            s2 = s3 = s4 = edge = xx = yy = xy = np.float32(0)
            for x in range(width - 4):
                band = here[x] - ((far[x] + next_far[x]) + four * (near[x] + next_near[x]) + six * middle[x]) * blur
                bands_here[x] = band
                dx, dy = (right[x] - left[x]) * half, (below[x] - above[x]) * half
                square = band * band
                s2 += square
                s3 += square * band
                s4 += square * square
                edge += np.sqrt(dx * dx + dy * dy)
                xx += dx * dx
                yy += dy * dy
                xy += dx * dy
            for k, part in enumerate((s2, s3, s4, np.float32(0), edge, xx, yy, xy)):
                total[k] += part
        total /= bands.size
        sd, n_above = np.float32(np.sqrt(total[0])), 0
        for y in range(height - 4):
            for x in range(width - 4):
                n_above += bands[y, x] > sd
        total[3] = n_above / bands.size
        out[n] = total


def halve(images: np.ndarray, out: np.ndarray) -> None:
    """Write the mean of each 2 × 2 pixels of images (n, h, w); an odd last row or column is left out."""
    quarter = np.float32(0.25)
    for n in range(len(out)):
        for y in range(out.shape[1]):
            upper, lower = images[n, 2 * y], images[n, 2 * y + 1]
            for x in range(out.shape[2]):
                out[n, y, x] = ((upper[2 * x] + lower[2 * x]) + (upper[2 * x + 1] + lower[2 * x + 1])) * quarter
