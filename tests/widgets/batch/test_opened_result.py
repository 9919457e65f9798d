import numpy as np
import tifffile

from napari_simmat.io.zarr import write_labels_zarr
from napari_simmat.progress import finish
from napari_simmat.widgets.batch.file_table import FilesModel, rows_of
from napari_simmat.widgets.batch.opened_result import open_result_job
from tests.widgets.scenes import gray


def test_open_result_reads_the_file_that_was_written(tmp_path):
    image, planned, zarr = (tmp_path / name for name in ("a.tif", "a_labels.tif", "l.ome.zarr"))
    tifffile.imwrite(image, gray())
    labels = np.arange(200 * 220, dtype=np.uint32).reshape(200, 220)
    write_labels_zarr(zarr, labels, "YX")
    files = FilesModel()
    plan = [{"image": str(image), "labels_file": str(planned)}]
    files.set_rows(rows_of({"output": str(tmp_path), "files": plan, "skipped": []}))
    assert files.rows[0].labels == planned
    files.update(0, "written", {"labels_file": str(zarr), "objects": 1})
    assert (files.rows[0].image, files.rows[0].labels) == (image, zarr)
    opened = finish(open_result_job(image, zarr))
    np.testing.assert_array_equal(np.asarray(opened.labels), labels)
