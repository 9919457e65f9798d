"""How many stars of a drawn field are found, matched to the truth by position.

``python research/scripts/star_field.py`` prints what ``docs/reports/measurements.md`` says. The
settings are those of ``docs/astronomy.md``.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from napari_simmat import AutomaticSettings, TableSettings, segment

FIELDS, COUNT, SIDE, SIGMA, NOISE = 4, 250, 512, 1.2, 10.0
CLOSE, ALONE = 1.0, 8.0
"""Pixels within which a source is found, and without another source within which it is alone."""
PEAKS = 5, 10, 20, 40, 100, 200
"""Edges of the bins of brightness: the peak over the noise of a pixel."""
SETTINGS = AutomaticSettings(
    seeds="maxima",
    maxima_distance=3,
    maxima_height=0.05,
    quality=0.3,
    stability=0.5,
    min_area=3,
)


def draw(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A field, and its sources (N, 3): y, x, and the peak over the noise."""
    places = rng.uniform(6, SIDE - 6, (COUNT, 2))
    faintest, brightest = math.log(PEAKS[0]), math.log(PEAKS[-1])
    peaks = np.exp(rng.uniform(faintest, brightest, COUNT))
    image = np.zeros((SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    for (top, left), peak in zip(places, peaks, strict=True):
        rows, columns = (slice(max(0, int(at) - 10), int(at) + 11) for at in (top, left))
        square = (y[rows, columns] - top) ** 2 + (x[rows, columns] - left) ** 2
        image[rows, columns] += peak * NOISE * np.exp(-square / (2 * SIGMA**2))
    noisy = image + 1000 + rng.normal(0, NOISE, image.shape)
    return noisy.astype(np.float32), np.column_stack([places, peaks])


def matched(
    true: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs, one to one, of sources and of objects whose centroids are `CLOSE`."""
    far = cdist(true, found)
    one, other = linear_sum_assignment(np.minimum(far, 10 * CLOSE))
    near = far[one, other] <= CLOSE
    return one[near], other[near]


def main() -> None:
    """Print completeness by brightness, purity, and how well places and fluxes are met."""
    rng = np.random.default_rng(0)
    sources, hits, alone, offsets, ratios, objects = [], [], [], [], [], 0
    for _ in range(FIELDS):
        image, true = draw(rng)
        table = TableSettings(statistics=("net_sum", "weighted_y", "weighted_x"))
        found = segment(image, automatic=SETTINGS, table=table).objects
        at = np.array([[row["weighted_y_channel0"], row["weighted_x_channel0"]] for row in found])
        pairs, partners = matched(true[:, :2], at)
        hit = np.zeros(len(true), bool)
        hit[pairs] = True
        apart = cdist(true[:, :2], true[:, :2])
        np.fill_diagonal(apart, np.inf)
        lonely = apart.min(1) > ALONE
        flux = true[:, 2] * NOISE * 2 * np.pi * SIGMA**2
        net = np.array([row["net_sum_channel0"] for row in found], float)
        single = lonely[pairs]
        offsets.append(np.linalg.norm(true[pairs, :2] - at[partners], axis=1)[single])
        ratios.append((net[partners] / flux[pairs])[single])
        sources.append(true)
        hits.append(hit)
        alone.append(lonely)
        objects += len(found)
    peaks, hit, lonely = np.concatenate(sources)[:, 2], np.concatenate(hits), np.concatenate(alone)
    print(
        "| peak over noise | sources | found | alone | found |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for low, high in pairwise(PEAKS):
        rows = [(peaks >= low) & (peaks < high) & each for each in (True, lonely)]
        cells = [f"{each.sum()} | {100 * hit[each].mean():.0f} %" for each in rows]
        print(f"| {low} to {high} | {' | '.join(cells)} |")
    off, share = np.median(np.concatenate(offsets)), np.nanmedian(np.concatenate(ratios))
    print(
        f"{len(peaks)} sources, {hit.sum()} found ({100 * hit.mean():.0f} %), of those alone "
        f"{100 * hit[lonely].mean():.0f} %; {objects} objects, of which "
        f"{100 * hit.sum() / objects:.0f} % are a source. Alone, in the median: {off:.2f} pixels "
        f"off, net sum {100 * share:.0f} % of the flux."
    )


if __name__ == "__main__":
    main()
