"""The options of a batch run, each written once: for the command line and for the Batch tab.

A field with a label has a control in the window. Its text there is that of the command's help.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from napari_simmat.engine.settings import (
    ChannelSelection,
    LinkSettings,
    PropagationSettings,
    parse_channels,
)
from napari_simmat.engine.table_settings import (
    DEFAULT_STATISTICS,
    TableSettings,
    parse_statistics,
)
from napari_simmat.io.part import ImagePart
from napari_simmat.io.plain import check_fields
from napari_simmat.io.units import parse_pixel_size

FLAG = Parameter(negative="", show_default=False)
"""A flag without a negative form."""
EXTRAS = (
    "overlay", "coco", "rois", "geojson", "map", "seg", "ctc", "zarr", "inside", "parquet",
    "anndata", "spatialdata",
)  # fmt: skip
"""The fields of `FileOptions` that are outputs besides labels, table and record."""


@Parameter(name="*", group="Files")
@dataclass(frozen=True, kw_only=True)
class FileOptions:
    """Input files, and outputs besides labels, table and record.

    Parameters
    ----------
    pattern
        Files of a folder to use, e.g. *.tif or plate*/*.png; all images by default.
    allow_outside
        Allow a manifest to name files outside its folder.
    channel_files
        Files whose channels are added to those of the image, e.g. other contrasts of a patient;
        one that lies elsewhere is resampled to the image. Of many images: a manifest's column.
    overlay
        Also write STEM_overlay.png, a picture of the image with its objects.
    coco
        Also write STEM_coco.json, the objects in COCO format.
    rois
        Also write STEM_rois.zip, the objects as ImageJ ROIs.
    geojson
        Also write STEM_objects.geojson, the objects for QuPath.
    map
        Also write STEM_map.geojson, the objects of a GeoTIFF in its map coordinates, for QGIS.
    seg
        Also write STEM_seg.dcm, the objects of a DICOM series as DICOM SEG, with the patient's
        name and number as in the series. Needs highdicom: pip install highdicom.
    ctc
        Also write STEM_RES, a result folder of the Cell Tracking Challenge: mask000.tif for each
        frame and res_track.txt.
    zarr
        Also write STEM_labels.ome.zarr, the label image as OME-Zarr with a pyramid.
    inside
        Also write the label image into an OME-Zarr image itself, as labels/simmat, in its version
        (0.4 to 0.6) and linked: viewers of the image list it. Its pixels stay as they are.
    parquet
        Also write STEM_objects.parquet, the table with types and units. Needs pyarrow: pip install
        pyarrow.
    anndata
        Also write STEM_objects.h5ad, the table as AnnData for scanpy and squidpy. Needs anndata:
        pip install anndata.
    spatialdata
        Also write STEM_spatial.zarr, labels, outlines and table as SpatialData, in one system of
        coordinates. Needs spatialdata: pip install spatialdata.
    report
        Also of a single image write the summary that several images get: simmat-report.html with
        histograms of the table and, of a time series, plots over time.
    resume
        Keep outputs made from the same image, model, prompts and settings; refuse others.
    overwrite
        Replace existing outputs.
    dry_run
        Show what would be done without doing it, and check that each image can be used.
    labels_in_memory
        GB of memory for a label image. With --prompts auto, a plane that needs more becomes
        STEM_labels.ome.zarr, tile by tile.
    """

    pattern: Annotated[str, {"label": "Pattern"}] = ""
    allow_outside: Annotated[bool, FLAG] = False
    channel_files: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")] = ()
    overlay: Annotated[bool, FLAG, {"label": "Overlay (PNG)"}] = False
    coco: Annotated[bool, FLAG, {"label": "COCO (JSON)"}] = False
    rois: Annotated[bool, FLAG, {"label": "ImageJ ROIs (zip)"}] = False
    geojson: Annotated[bool, FLAG, {"label": "QuPath (GeoJSON)"}] = False
    map: Annotated[bool, FLAG, {"label": "Map coordinates (GeoJSON)"}] = False
    seg: Annotated[bool, FLAG, {"label": "DICOM SEG, of a DICOM series"}] = False
    ctc: Annotated[bool, FLAG, {"label": "Cell Tracking Challenge"}] = False
    zarr: Annotated[bool, FLAG, {"label": "OME-Zarr, with a pyramid"}] = False
    inside: Annotated[bool, FLAG, {"label": "Labels of an OME-Zarr image, in it"}] = False
    parquet: Annotated[bool, FLAG, {"label": "Table (Parquet)"}] = False
    anndata: Annotated[bool, FLAG, {"label": "Table (AnnData)"}] = False
    spatialdata: Annotated[bool, FLAG, {"label": "Labels and table (SpatialData)"}] = False
    report: Annotated[bool, FLAG, {"label": "Report, of a single image too"}] = False
    resume: Annotated[bool, FLAG] = False
    overwrite: Annotated[bool, FLAG] = False
    dry_run: Annotated[bool, FLAG] = False
    labels_in_memory: float = 1.0

    @property
    def extras(self) -> list[str]:
        """The kinds of optional outputs."""
        return [kind for kind in EXTRAS if getattr(self, kind)]

    @property
    def existing(self) -> Literal["refuse", "resume", "overwrite"]:
        """What to do with existing outputs."""
        if self.resume and self.overwrite:
            raise ValueError(
                "--resume keeps what exists, --overwrite replaces it; give one of them."
            )
        return "resume" if self.resume else "overwrite" if self.overwrite else "refuse"


@Parameter(name="*", group="Channels")
@dataclass(frozen=True, kw_only=True)
class ChannelOptions:
    """Channels and pixel shape of images.

    Parameters
    ----------
    channels
        Channels of the model in its order, by name or number from 0, separated by commas, e.g.
        0,2,DAPI; all by default. An RGB model accepts repetitions: 0,1,1.
    channel_axis
        Axis of the channels, counted from 0, if a file does not say.
    pixel_ratio
        Height of a pixel over its width, if a file does not say.
    pixel_size
        Size of a pixel of the finest level, in --unit: one number, HEIGHT,WIDTH or
        DEPTH,HEIGHT,WIDTH. It counts even if a file says another.
    unit
        Of --pixel-size: m, cm, mm, um or nm.
    axes
        A letter for each axis of the file, e.g. TYX for a film that is read as a stack; T time, Z
        depth, C channel.
    plane
        Read one plane of a stack, or a projection: Z=12, counted from 0, Z=max, Z=mean or Z=min;
        of several axes T=0,Z=max. The labels then have no such axis.
    """

    channels: str | None = None
    channel_axis: int | None = None
    pixel_ratio: float = 1.0
    pixel_size: Annotated[str, {"label": "Pixel size"}] = ""
    unit: Annotated[str, {"label": "Unit"}] = ""
    axes: Annotated[str, {"label": "Axes"}] = ""
    plane: Annotated[str, {"label": "Plane"}] = ""

    @property
    def selection(self) -> ChannelSelection:
        """The same with --channels parsed."""
        return self._selecting(self.channels, "--channels")

    def _selecting(self, channels: str | None, option: str) -> ChannelSelection:
        try:
            chosen = None if channels is None else parse_channels(channels, ",")
        except ValueError as error:
            raise ValueError(f"{option} {error}") from None
        return ChannelSelection(
            channels=chosen,
            channel_axis=self.channel_axis,
            pixel_ratio=self.pixel_ratio,
            pixel_size=parse_pixel_size(self.pixel_size) if self.pixel_size else None,
            unit=self.unit,
            axes=self.axes,
            plane=self.plane,
        )


@Parameter(name="*", group="Channels")
@dataclass(frozen=True, kw_only=True)
class SegmentChannelOptions(ChannelOptions):
    """Channels of a segmented image, and of smaller objects in it.

    Parameters
    ----------
    children
        Channels, as of --channels, in which smaller objects are found that lie within the others,
        e.g. nuclei in cells: a second run, into the folder children in that of the output. Two
        tables say how many each object has (simmat-parents.csv), and in which each lies
        (simmat-children.csv).
    """

    children: Annotated[str, Parameter(show_default=False), {"label": "Children in"}] = ""

    @property
    def of_children(self) -> ChannelSelection | None:
        """The selection of the second run; None without one."""
        return self._selecting(self.children, "--children") if self.children else None


@Parameter(name="*", group="Table of objects")
@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What the table of objects holds.

    Parameters
    ----------
    statistics
        Statistics of each object in each channel, separated by commas: mean, median, std, sum, min,
        max, percentiles from p0 to p100, background (around it), net_sum (above that), and
        weighted_y, weighted_x, weighted_z (its weighted centroid).
    index
        A spectral index of the image's bands, whose statistics are columns as well: ndvi, gndvi,
        ndre, cire, savi, osavi, msavi, evi, evi2, ndwi, mndwi, ndmi, nbr, ngrdi, vari or exg; or
        name=formula, e.g. "ratio=(nir-red)/(nir+red)". Repeat it for several; in the window,
        separate them by semicolons.
    """

    statistics: Annotated[str, {"label": "Statistics"}] = ",".join(DEFAULT_STATISTICS)
    index: Annotated[tuple[str, ...], Parameter(negative=""), {"label": "Indices"}] = ()

    @property
    def settings(self) -> TableSettings:
        """The same parsed; ValueError if a statistic or an index does not exist."""
        from napari_simmat.engine.channels.indices import parse_indices

        table = TableSettings(
            statistics=parse_statistics(self.statistics),
            indices=self.index,
        )
        parse_indices(table.indices)
        return table


@Parameter(name="*", group="Table of objects")
@dataclass(frozen=True, kw_only=True)
class SegmentTableOptions(TableOptions):
    """What the table of a segmented image holds.

    Parameters
    ----------
    all_channels
        Measure all channels of the image, not only those that the model reads.
    object_class
        The class of the objects, e.g. Tumor: in the table, and for QuPath, COCO and ImageJ. Those
        whose prompts have a class, as outlines of QuPath do, keep it.
    """

    all_channels: Annotated[bool, FLAG, {"label": "Measure all channels"}] = False
    object_class: Annotated[str, {"label": "Class"}] = ""

    @property
    def settings(self) -> TableSettings:
        """The same parsed; ValueError if a statistic or an index does not exist."""
        return replace(
            super().settings,
            all_channels=self.all_channels,
            object_class=" ".join(self.object_class.split()),
        )


@Parameter(name="*", group="Measuring")
@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """What of an image is measured.

    Parameters
    ----------
    channels
        Channels to measure, by name or number from 0, separated by commas, e.g. 0,2,DAPI; all by
        default.
    channel_axis
        Axis of the channels, counted from 0, if the file does not say.
    pixel_size, unit, axes
        What the file does not say, or says wrongly, as of `simmat segment`.
    plane
        The plane or the projection of a stack that the labels are of, as of `simmat segment`.
    parents
        Labels of other objects, e.g. of the cells that hold the nuclei: the columns parent and
        parent_overlap say which of them covers most of an object, and how much of it.
    children
        Labels of objects within those that are measured, e.g. of the nuclei in cells, or in regions
        drawn in QuPath: the column children says how many each has.
    overwrite
        Replace an existing table.
    """

    channels: str | None = None
    channel_axis: int | None = None
    pixel_size: str = ""
    unit: str = ""
    axes: str = ""
    plane: str = ""
    parents: Path | None = None
    children: Path | None = None
    overwrite: Annotated[bool, FLAG] = False

    @property
    def selection(self) -> ChannelSelection:
        """The same with --channels parsed."""
        return ChannelOptions(
            channels=self.channels,
            channel_axis=self.channel_axis,
            pixel_size=self.pixel_size,
            unit=self.unit,
            axes=self.axes,
            plane=self.plane,
        ).selection


@Parameter(name="*", group="Slides and other pyramids")
@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """Which part of a slide, or of any image, is read.

    Parameters
    ----------
    level
        Level of a pyramid, 0 for the finest, which is the default.
    mpp
        Micrometers to a pixel: the nearest finer level is read, reduced to that size if it differs
        by more than 2 percent. 0 for pixels as they are.
    region
        Y0,X0,Y1,X1 in pixels of level 0; with a unit behind as lengths, e.g. 0,0,500,500um. Only
        that is read. Prompts and GeoJSON stay in pixels of level 0.
    """

    level: int | None = None
    mpp: Annotated[
        float, {"label": "Pixel (µm)", "special": "as it is", "min": 0, "max": 1000, "step": 0.05}
    ] = 0.0
    region: Annotated[str, {"label": "Region"}] = ""

    @property
    def part(self) -> ImagePart:
        """The part that is read."""
        return ImagePart(level=self.level, mpp=self.mpp or None, region=self.region)


@Parameter(name="*", group="Slides and other pyramids")
@dataclass(frozen=True, kw_only=True)
class SlideOptions(PartOptions):
    """Which part of a slide is read, and where everything is segmented.

    Parameters
    ----------
    tissue
        With --prompts auto, look at tissue alone, and measure intensities there: auto finds it by
        its color; or a label image of the whole slide at any size, or QuPath's GeoJSON.
    """

    tissue: Annotated[str, {"label": "Tissue"}] = ""


@Parameter(name="*", group="Stacks and time series")
@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """How objects go through the planes of a stack, or over time.

    Parameters
    ----------
    propagate
        Propagate each object of a stack from the planes with prompts to all others, until it ends.
        A plane with negative points only marks where it is absent. Runs through depth (Z), or time
        if there is none. Images of one plane are segmented without it.
    link
        Link the objects of the frames: each keeps its id over time; a dividing object gets two
        daughters. Also writes STEM_res_track.txt. Needs laptrack: pip install laptrack.
    objects
        If everything is segmented: planes, an object for each plane; or 3d, objects that go on from
        plane to plane along depth get one id, one row and one volume. Needs laptrack, too.
    link_axis
        The time axis, counted from 0 without channels; -1 as the file says.
    link_distance
        How far an object may move from frame to frame, in pixels; 0 for its usual diameter.
    link_gap
        Over how many frames an object may be missing.
    link_divisions
        Whether objects may divide.
    """

    propagate: Annotated[bool, FLAG, {"label": "Propagate objects through stacks"}] = False
    link: Annotated[bool, FLAG, {"label": "Link objects over time"}] = False
    objects: Annotated[
        Literal["planes", "3d"],
        {"label": "Stacks", "choices": [("Objects of each plane", "planes"), ("3D objects", "3d")]},
    ] = "planes"
    link_axis: Annotated[
        int, {"label": "Time axis", "special": "as the file says", "min": -1, "max": 9}
    ] = -1
    link_distance: float = 0.0
    link_gap: int = 0
    link_divisions: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def propagation(self) -> PropagationSettings | None:
        """The settings of propagation; None without --propagate."""
        return PropagationSettings() if self.propagate else None

    @property
    def linking(self) -> LinkSettings | None:
        """The settings of linking; None without --link and --objects 3d."""
        if self.link and self.objects == "3d":
            raise ValueError(
                "--link follows objects over time, --objects 3d along depth; give one of them."
            )
        if not self.link and self.objects == "planes":
            return None
        return LinkSettings(
            axis=None if self.link_axis < 0 else self.link_axis,
            distance=self.link_distance,
            gap=self.link_gap,
            divisions=self.link_divisions and self.link,
            along="time" if self.link else "depth",
        )

    def that_apply(self, *, to_everything: bool) -> SeriesOptions:
        """Those that count for segmenting everything, or for prompts; the others as by default."""
        unused = SeriesOptions()
        kept = self if self.link else replace(self, link_axis=unused.link_axis)
        if to_everything:
            return replace(kept, propagate=unused.propagate)
        return replace(kept, objects=unused.objects)


@Parameter(name="*", group="Cluster")
@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where images are segmented besides this process.

    Parameters
    ----------
    scheduler
        Address of a dask.distributed scheduler, e.g. tcp://10.0.0.1:8786, whose workers segment.
        It can run code on them, and they on what they receive: use one that you trust.
    shard
        K/N: segment only every N-th image, beginning with the K-th. Jobs of a cluster with one
        output folder divide the images so; each writes a summary of its own.
    """

    scheduler: Annotated[str, {"label": "Scheduler"}] = ""
    shard: str = ""
