"""Regular outlines against exact truth, and against buildingregulariser on the same outlines."""

from __future__ import annotations

import hashlib
import importlib.util
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import shapely

from benchmarks.clock import interleave
from benchmarks.rows import Row, at_least, at_most, exactly
from benchmarks.scenes import NOT_HERE, real_scene
from geoseg.config import Config, ModelOptions, ScaleOptions
from geoseg.evaluate.footprints import match_footprints
from geoseg.evaluate.shapes import measure_shapes
from geoseg.models import DEFAULT_MODEL
from geoseg.polygonize import PolygonizeOptions, contour, to_ground
from geoseg.regularize import RegularizeOptions, regularize, share_walls
from geoseg.stages.executors import Dask
from geoseg.stages.footprints import footprints
from geoseg.stages.infer import infer
from geoseg.stages.neighbours import from_metres, to_metres
from geoseg.stages.outputs import OutputPlan
from geoseg.testing import make_town, worn_masks
from geoseg.topology import settle_overlaps

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from geoseg.grid import Grid

    Shapes = NDArray[np.object_]

PEER = "buildingregulariser"
PEER_MISSING = f"{PEER} is not installed: pip install {PEER}==0.2.5"
OPTIONS = RegularizeOptions(enabled=True)
TANGENTS, FEWEST, MOST, TIMES_FASTER = 0.6, 0.9, 1.15, 3.0
SCENES = ("banepa_outskirts_c0", "banepa_outskirts_c1", "zanzibar_c0", "zanzibar_c1", "nairobi_c1")
SCORE = 0.5
OVERLAP_M2 = 1e-6
MANY = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Means over footprints matched with the truth, and counts over all."""

    iou: float
    tangents_deg: float
    vertex_ratio: float
    overlaps: int
    invalid: int
    count: int


def regular(
    folder: Path,
    *,
    size_px: int = 2100,
    rounds: int = 5,
    many: int = MANY,
    scenes: tuple[str, ...] = SCENES,
) -> list[Row]:
    """Measure outlines of worn masks of the synthetic town, raw and regular, against exact truth.

    `geoseg.testing.worn_masks` paints each building's exact outline and wears it as a network
    would: rounded by 1.5 px and, in large buildings, by more; noisy; shifted by 0.4 px; one in 17
    running on into a neighbour. Raw outlines are geoseg's own contours, simplified within 0.1 m.
    Ours are made regular one by one, then share walls, then give up ground claimed twice, as in a
    run. buildingregulariser 0.2.5 gets the raw outlines, with its defaults and with right angles
    only. Tangent angles, vertex ratio: means over pairs matched at IoU .5, as in `evaluate`.
    Seconds are CPU seconds of one core, without reading or writing, ours with shared walls. Real
    scenes: the bundled model's detections of score .5, means over all scenes' pairs.
    """
    town = make_town(size_px=size_px)
    traced = contour(*worn_masks(to_pixels(town.truth, town.grid).tolist()))
    raw = on_ground(traced, town.grid)
    sides = {"raw": raw, "geoseg": ours(traced, town.grid), **theirs(raw)}
    found = {name: measure(frame, town.truth) for name, frame in sides.items()}
    name = f"town {size_px}"
    return [
        *_promised(found, name),
        *_compared(found, name),
        *_speed(traced, raw, town.grid, rounds),
        *_real(folder, scenes),
        *(_parallel(traced, folder, many) if many else []),
    ]


def to_pixels(frame: gpd.GeoDataFrame, grid: Grid) -> Shapes:
    """Return outlines in pixels of a north-up grid."""
    to = grid.transform
    place = np.array([to.c, to.f]), np.array([to.a, to.e])
    return shapely.transform(frame.geometry.to_numpy(), lambda xy: (xy - place[0]) / place[1])


def on_ground(shapes: Shapes, grid: Grid) -> gpd.GeoDataFrame:
    """Return outlines as a run would write them."""
    ground, area = to_ground(shapes, grid, options=PolygonizeOptions())
    return gpd.GeoDataFrame(geometry=list(ground[area > 0]), crs=grid.crs)


def ours(traced: Shapes, grid: Grid) -> gpd.GeoDataFrame:
    """Return outlines made regular, walls shared and overlaps settled."""
    frame = on_ground(_regular(traced, grid), grid)
    metric = share_walls(to_metres(frame.geometry.to_numpy(), grid), options=OPTIONS)
    settled = settle_overlaps(metric, np.ones(len(metric)), min_area_m2=5.0)
    settled = settled[~shapely.is_empty(settled)]
    return gpd.GeoDataFrame(geometry=list(from_metres(settled, grid)), crs=grid.crs)


def theirs(raw: gpd.GeoDataFrame) -> dict[str, gpd.GeoDataFrame]:
    """Return what the peer makes of raw outlines; nothing where it is not installed."""
    if importlib.util.find_spec(PEER) is None:
        return {}
    return {PEER: _peer(raw), f"{PEER}, right angles": _peer(raw, allow_45_degree=False)}


def measure(frame: gpd.GeoDataFrame, truth: gpd.GeoDataFrame) -> Measured:
    """Measure outlines against the truth, and against each other."""
    shapes = frame.geometry.to_numpy()  # in its own CRS: shared walls bend apart in another
    fit = measure_shapes(frame, truth)
    sound = shapely.make_valid(shapes)
    one, other = shapely.STRtree(sound).query(sound, predicate="intersects")
    one, other = one[one < other], other[one < other]
    shared = shapely.area(shapely.intersection(sound[one], sound[other]))
    return Measured(
        iou=float(match_footprints(frame, truth).iou.mean()),
        tangents_deg=fit.max_tangent_angle_error_deg,
        vertex_ratio=fit.vertex_ratio,
        overlaps=int((shared > OVERLAP_M2).sum()),
        invalid=int((~shapely.is_valid(shapes)).sum()),
        count=len(frame),
    )


def _row(name: str, value: float | None, **fields: Any) -> Row:
    return Row(benchmark="regularize", name=name, value=value, **fields)


def _promised(found: dict[str, Measured], where: str) -> list[Row]:
    raw, mine = found["raw"], found["geoseg"]
    iou = f"{mine.iou:.4f}, raw {raw.iou:.4f}; {mine.count} footprints, raw {raw.count}"
    tangents = f"{mine.tangents_deg:.2f} degrees, raw {raw.tangents_deg:.2f}"
    ratio = f"raw {raw.vertex_ratio:.2f}"
    overlaps = f"raw {raw.overlaps}"
    return [
        _row(f"{where}, mean IoU over raw", round(mine.iou - raw.iou, 4), **at_least(0), note=iou),
        _row(
            f"{where}, max tangent angle error of raw's",
            round(mine.tangents_deg / raw.tangents_deg, 4),
            **at_most(TANGENTS),
            note=tangents,
        ),
        _row(
            f"{where}, vertex ratio, least",
            round(mine.vertex_ratio, 3),
            **at_least(FEWEST),
            note=ratio,
        ),
        _row(f"{where}, vertex ratio, most", round(mine.vertex_ratio, 3), **at_most(MOST)),
        _row(f"{where}, overlapping pairs", mine.overlaps, **exactly(0), note=overlaps),
        _row(f"{where}, invalid geometries", mine.invalid, **exactly(0)),
    ]


def _compared(found: dict[str, Measured], where: str) -> list[Row]:
    mine = found["geoseg"]
    peers = [name for name in found if name.startswith(PEER)]
    if not peers:
        return [_row(f"{where}, against {PEER}", None, note=PEER_MISSING)]
    rows = []
    for name in peers:
        peer = found[name]
        off = abs(mine.vertex_ratio - 1), abs(peer.vertex_ratio - 1)
        sound = mine.overlaps + mine.invalid, peer.overlaps + peer.invalid
        rows += [
            _row(
                f"{where}, mean IoU over {name}",
                round(mine.iou - peer.iou, 4),
                **at_least(0),
                note=f"{peer.iou:.4f} of {peer.count}",
            ),
            _row(
                f"{where}, max tangent angle error of that of {name}",
                round(mine.tangents_deg / peer.tangents_deg, 3),
                **at_most(1),
                note=f"{peer.tangents_deg:.2f} degrees",
            ),
            _row(
                f"{where}, vertex ratio nearer to 1 than {name}",
                round(off[1] - off[0], 3),
                **at_least(0),
                note=f"{peer.vertex_ratio:.3f}",
            ),
            _row(
                f"{where}, fewer overlaps and invalid than {name}",
                sound[1] - sound[0],
                **at_least(0),
                note=f"{peer.overlaps} overlaps, {peer.invalid} invalid",
            ),
        ]
    return rows


def _speed(traced: Shapes, raw: gpd.GeoDataFrame, grid: Grid, rounds: int) -> list[Row]:
    contenders = {"geoseg": lambda: _cpu_seconds(_whole, traced, grid)}
    if importlib.util.find_spec(PEER) is not None:
        contenders[PEER] = lambda: _cpu_seconds(_peer, raw)
    times = interleave(contenders, rounds=rounds)
    rate = round(len(traced) / times.median("geoseg"))
    rows = [_row("footprints a second of one core", rate, unit="/s", note=f"{len(traced)} at once")]
    if PEER not in contenders:
        return [*rows, _row(f"times the speed of {PEER}", None, note=PEER_MISSING)]
    ratio = round(times.ratio(PEER, "geoseg"), 2)
    note = times.about(PEER, "geoseg")
    return [*rows, _row(f"times the speed of {PEER}", ratio, **at_least(TIMES_FASTER), note=note)]


def _whole(traced: Shapes, grid: Grid) -> Shapes:
    shapes = shapely.transform(_regular(traced, grid), lambda xy: xy * grid.pixel_size_m)
    return share_walls(shapes, options=OPTIONS)


def _regular(traced: Shapes, grid: Grid) -> Shapes:
    return regularize(traced, scale_xy=grid.pixel_size_m, options=OPTIONS).shapes


def _peer(raw: gpd.GeoDataFrame, **options: Any) -> gpd.GeoDataFrame:
    import buildingregulariser  # noqa: PLC0415 - optional

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return buildingregulariser.regularize_geodataframe(raw, num_cores=1, **options)


def _cpu_seconds(work: Any, *arguments: Any) -> float:
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def _real(folder: Path, names: tuple[str, ...]) -> list[Row]:
    """Measure a run's footprints of real scenes, regular and not."""
    here = [scene for scene in map(real_scene, names) if scene is not None]
    if not here:
        return [_row("real scenes", None, note=NOT_HERE)]
    model = ModelOptions(name=DEFAULT_MODEL, score=SCORE)
    found: dict[str, list[tuple[Measured, int]]] = {}
    for scene in here:
        detections = folder / f"{scene.name}.parquet"
        infer(str(scene.path), detections, Config(model=model))
        sides = {}
        for name, enabled in (("raw", False), ("geoseg", True)):
            output = folder / "out.parquet"
            config = Config(model=model, regularize=RegularizeOptions(enabled=enabled))
            footprints(detections, OutputPlan(vector=output), config)
            sides[name] = gpd.read_parquet(output)
        metric = sides["raw"].to_crs(sides["raw"].estimate_utm_crs())
        for name, frame in {**sides, **theirs(metric[["geometry"]])}.items():
            pairs = len(match_footprints(frame, scene.truth))
            found.setdefault(name, []).append((measure(frame, scene.truth), pairs))
    pooled = {name: _pooled(parts) for name, parts in found.items()}
    where = f"{len(here)} real scenes"
    return [*_promised(pooled, where), *_compared(pooled, where)]


def _pooled(parts: list[tuple[Measured, int]]) -> Measured:
    """Return means weighted by pairs, and sums of counts."""
    weights = np.array([pairs for _, pairs in parts], float)

    def mean(name: str) -> float:
        return float(np.average([getattr(part, name) for part, _ in parts], weights=weights))

    def total(name: str) -> int:
        return sum(getattr(part, name) for part, _ in parts)

    return Measured(
        iou=mean("iou"),
        tangents_deg=mean("tangents_deg"),
        vertex_ratio=mean("vertex_ratio"),
        overlaps=total("overlaps"),
        invalid=total("invalid"),
        count=total("count"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The town's outlines, moved: a unit of work."""

    name: str
    outlines: str
    """Path of raw outlines, WKB in a numpy file."""
    shift_px: float


def _parallel(traced: Shapes, folder: Path, many: int) -> list[Row]:
    """Make many outlines regular with two Dask workers, and one after the other."""
    path = folder / "outlines.npy"
    np.save(path, np.array([bytes(wkb) for wkb in shapely.to_wkb(traced)]))
    count = -(-many // len(traced))
    tiles = [Tile(name=f"t{k}", outlines=str(path), shift_px=float(1000 * k)) for k in range(count)]
    start = time.perf_counter()
    serial = {tile.name: regular_tile(tile, None) for tile in tiles}
    alone = time.perf_counter() - start
    with Dask(ScaleOptions(workers=2), setup=_no_model, plugin_key="none") as dask:
        start = time.perf_counter()
        shared = {tile.name: digest for tile, digest in dask.map(regular_tile, tiles, needs="cpu")}
        spread = time.perf_counter() - start
    same = sum(serial[name] == digest for name, digest in shared.items())
    note = f"{count * len(traced)} footprints; {alone:.0f} s in one process, {spread:.0f} s in two"
    return [
        _row("blocks as in one process, share", same / count, **exactly(1), note=note),
        _row("footprints a second, 2 workers", round(count * len(traced) / spread), unit="/s"),
    ]


def regular_tile(tile: Tile, _: object) -> str:
    """Return the SHA-256 of a tile's regular outlines."""
    raw = shapely.from_wkb(np.load(tile.outlines).tolist())
    moved = shapely.transform(raw, lambda xy: xy + tile.shift_px)
    made = regularize(moved, scale_xy=(0.3, 0.3), options=OPTIONS)
    digest = hashlib.sha256(made.iou_raw.tobytes())
    for wkb in shapely.to_wkb(made.shapes):
        digest.update(wkb)
    return digest.hexdigest()


def _no_model(_device: str | None, _quiet: bool) -> None:
    """Workers of this benchmark need no model."""
