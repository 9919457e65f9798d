"""A labeled image in the cache of its data set."""

import numpy as np

from napari_simmat.datasets.labeled_image import ImageCache, LabeledImage

H, W = 12, 20


def test_image_cache_keeps_recent_images_within_its_bytes():
    class Source:
        def __init__(self, name):
            self.name, self.read_times = name, 0

        def read(self):
            self.read_times += 1
            return LabeledImage(self.name, np.zeros((10, 10)), np.zeros((10, 10), np.uint8))

    cache, sources = ImageCache(2000), [Source("a"), Source("b"), Source("c")]
    for source in (*sources, sources[2], sources[1], sources[0]):
        cache.read(source)
    assert [source.read_times for source in sources] == [2, 1, 1]
