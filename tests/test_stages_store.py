"""Detections on disk: what goes in comes out, whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import make_chip, make_detections, make_grid, make_window
from hypothesis import given
from hypothesis import strategies as st

from geoseg.chips import Chip
from geoseg.detections import Detections
from geoseg.errors import FormatError, InputNotFoundError, OutputError
from geoseg.stages.origin import Origin
from geoseg.stages.store import (
    DetectionWriter,
    chips_in_rows,
    count_detections,
    detections_origin,
    read_detections,
)

Found = list[tuple[Chip, Detections]]


def origin() -> Origin:
    return Origin(
        scene_id="ort 東",
        scene_path="s3://bucket/a b.tif",
        grid=make_grid(height=900, width=700),
        labels={1: "building", 7: "tent"},
        model={"name": "m", "sha256": None},
        config={"scene": {"bands": [1, 2, 3]}},
    )


def written(path: Path, found: Found) -> Path:
    with DetectionWriter(path, origin()) as writer:
        for chip, detections in found:
            writer.write(chip, detections)
    return path


def fields(chip: Chip, detections: Detections) -> list[object]:
    return [
        (chip.row, chip.col, chip.window, chip.core, detections.window),
        *(
            getattr(detections, name).tolist()
            for name in ("boxes", "scores", "labels", "mask_boxes", "mask_offsets", "mask_data")
        ),
    ]


@st.composite
def finds(draw: st.DrawFn) -> Found:
    found = []
    n_chips = draw(st.integers(0, 5))
    for k in range(n_chips):
        window = make_window(row=100 * k, col=draw(st.integers(0, 9)), height=64, width=48)
        n = draw(st.integers(0, 4))
        boxes, masks = [], []
        for _ in range(n):
            x0, y0 = draw(st.integers(0, 40)), draw(st.integers(0, 50))
            x1, y1 = draw(st.integers(x0 + 1, 48)), draw(st.integers(y0 + 1, 64))
            rng = np.random.default_rng(draw(st.integers(0, 2**31)))
            boxes.append((x0, y0, x1, y1))
            masks.append(rng.integers(0, 256, (y1 - y0, x1 - x0), dtype=np.uint8))
        if n:
            detections = make_detections(
                boxes=boxes,
                masks=masks,
                scores=[draw(st.floats(0, 1, width=32)) for _ in range(n)],
                labels=[draw(st.integers(1, 99)) for _ in range(n)],
                window=window,
            )
        else:
            detections = Detections.empty("s", window)
        found.append((make_chip(row=k, window=window), detections))
    return found


@given(found=finds(), rows=st.integers(1, 7))
def test_detections_round_trip_however_the_file_is_cut(found: Found, rows: int) -> None:
    expected = [fields(*item) for item in found]
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder, "d.parquet"), found)
        assert [fields(*item) for item in read_detections(path)] == expected
        assert count_detections(path) == sum(len(item[1]) for item in found)
        pq.write_table(pq.read_table(path), path, row_group_size=rows)
        assert [fields(*item) for item in read_detections(path)] == expected


def test_the_origin_comes_back(tmp_path: Path) -> None:
    path = written(tmp_path / "d.parquet", [])
    back = detections_origin(path)
    assert list(read_detections(path)) == []
    for name in ("scene_id", "scene_path", "labels", "model", "config"):
        assert getattr(back, name) == getattr(origin(), name)
    assert back.grid.crs == origin().grid.crs
    assert back.grid.transform == origin().grid.transform
    assert (back.grid.height, back.grid.width) == (900, 700)


def test_nothing_is_left_when_the_body_raises(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DetectionWriter(tmp_path / "d.parquet", origin()) as writer:
            writer.write(make_chip(), make_detections())
            assert len(list(tmp_path.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_former_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "d.parquet", [(make_chip(), make_detections())])
    before = path.read_bytes()

    def broken() -> None:
        with DetectionWriter(path, origin()) as writer:
            writer.write(make_chip(), make_detections(scores=[0.1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "d.parquet"
    link.symlink_to(tmp_path / "real" / "e.parquet")
    written(link, [(make_chip(), make_detections())])
    assert link.is_symlink()
    assert count_detections(tmp_path / "real" / "e.parquet") == 1


@pytest.mark.parametrize("name", ["d.geojson", "d", "no/d.parquet", "dir.parquet"])
def test_outputs_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "dir.parquet").mkdir()
    with pytest.raises(OutputError):
        DetectionWriter(tmp_path / name, origin())


def test_missing_files_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(InputNotFoundError):
        detections_origin(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.drop_columns(["score"]),
        lambda t: t.append_column("more", pa.array(["x"] * len(t))),
        lambda t: t.set_column(0, "row", pa.array(["a"] * len(t))),
    ],
    ids=["column missing", "column too many", "column of another type"],
)
def test_other_columns_are_refused(tmp_path: Path, change: object) -> None:
    path = written(tmp_path / "d.parquet", [(make_chip(), make_detections())])
    assert callable(change)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(FormatError, match="columns"):
        list(read_detections(path))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("height", -1),
        ("core_width", 0),
        ("row", None),
        ("score", None),
        ("score", 7.0),
        ("mask", b""),
        ("mask", None),
        ("mask_box", [0, 0, -5, 5]),
        ("mask_box", [0, 0, 2**31 - 1, 2**31 - 1]),
        ("mask_box", None),
        ("box", None),
    ],
)
def test_values_that_cannot_be_are_refused(tmp_path: Path, column: str, value: object) -> None:
    path = written(tmp_path / "d.parquet", [(make_chip(), make_detections())])
    table = pq.read_table(path)
    place = table.schema.get_field_index(column)
    bad = pa.array([value], table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), bad), path)
    with pytest.raises(FormatError, match=r"d\.parquet"):
        list(read_detections(path))


def test_chips_are_grouped_into_rows() -> None:
    found = [(make_chip(row=r, col=c), make_detections()) for r, c in [(0, 0), (0, 3), (2, 1)]]
    rows = [[chip.col for chip, _ in row] for row in chips_in_rows(found)]
    assert rows == [[0, 3], [1]]
