"""Run a model over a folder of pictures; write the crowdAI mapping challenge's submission format.

Frame: pixels of each picture. Results are written as they come, so that memory does not grow with
the folder; every picture is predicted, and those that cannot be read are named at the end.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from typing import TYPE_CHECKING, TextIO

import numpy as np

from geoseg.coco import encode_rle
from geoseg.data.cocofile import read_coco
from geoseg.data.cocowrite import JSON_SUFFIXES, MAX_RESULTS_PER_IMAGE, result_record
from geoseg.errors import GeosegWarning, ModelError
from geoseg.files import check_apart, check_output, output_errors, staged
from geoseg.models import find_model, load_model
from geoseg.morphology import NO_STEPS, reach_of, refine
from geoseg.predict import Predictor
from geoseg.stages.base import Progress, Silence, Tally
from geoseg.stages.pictures import document_pictures, list_pictures, picture_batches
from geoseg.stages.scores import calibrated, least_raw
from geoseg.tta import ViewsPredictor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from geoseg.config.options import ModelOptions
    from geoseg.detections import Detections
    from geoseg.errors import ReadError
    from geoseg.models import ModelSpec
    from geoseg.morphology import MorphologyOptions
    from geoseg.stages.pictures import Picture
    from geoseg.tta import ChipPredictor, TtaOptions

DEFAULTS = {"morphology.duplicate_ios": 0.0}
"""Keys of a config for pictures: weak duplicates of what a better one may have missed add to AP."""
LEAST_SCORE = 0.05
"""The network's own scores below add nothing to AP that could be seen, and much to the file."""


def predict_dir(
    folder: Path,
    output: Path,
    options: ModelOptions,
    *,
    tta: TtaOptions | None = None,
    morphology: MorphologyOptions | None = None,
    coco: Path | None = None,
    most_per_image: int = MAX_RESULTS_PER_IMAGE,
    progress: Progress | None = None,
) -> Tally:
    """Predict every picture of a folder and write COCO results.

    Args:
        folder: Of pictures: jpg, png or tif of any size and mode.
        output: The .json file: a list of image_id, category_id, score, segmentation (run-length
            encoding) and bbox (left, top, width, height), best first within each picture.
        options: Model, device, batch size, least score and reader threads.
        tta: From which sides pictures are seen; by default from one.
        morphology: Steps on the masks, lengths in pixels; by default there are none.
        coco: A COCO document: its images are predicted, under its ids, instead of the folder's.
        most_per_image: Only so many of the best detections of a picture are written.
        progress: Told about pictures done.

    Returns:
        Counts; pictures that could not be read are in `failed`.

    Raises:
        GeosegError: An input, the model or the output does not serve; nothing is written.
    """
    check_output(output, JSON_SUFFIXES)
    check_apart([output], [coco])
    reach_of(morphology or NO_STEPS, None)  # raises where pixels would have to be metres
    if coco is None:
        pictures, blame = list_pictures(folder)
        if blame is not None:
            warnings.warn(
                f"image ids are running numbers from 1 in order of file names, as {blame!r} is no "
                "whole number of its own; --coco takes them from a document",
                GeosegWarning,
                stacklevel=2,
            )
    else:
        pictures = document_pictures(read_coco(coco), folder)
    tally = Tally()
    with tally.timed("load"):
        predictor = load_for_pictures(options)
    spec = predictor.model.spec
    found = predict_pictures(
        pictures,
        predictor,
        tta=tta,
        morphology=morphology,
        calibrate=options.calibrate,
        threads=options.readers,
        tally=tally,
        progress=progress,
    )
    with staged(output) as new, closing(found):
        with output_errors(output):
            file = new.open("w", encoding="ascii")
        with file:
            _write(file, output, found, spec, most_per_image)
    return tally


def load_for_pictures(options: ModelOptions) -> Predictor:
    """Load a model for pictures of any size."""
    spec = find_model(options.name).spec
    least = LEAST_SCORE if options.score is None else least_raw(options, spec.calibration)
    model = load_model(options.name, device=options.device, score_threshold=least)
    return Predictor(model, score_threshold=least, batch_size=options.batch_size)


def predict_pictures(
    pictures: Sequence[Picture],
    predictor: Predictor,
    *,
    tta: TtaOptions | None = None,
    morphology: MorphologyOptions | None = None,
    calibrate: bool = True,
    threads: int = 2,
    tally: Tally,
    progress: Progress | None = None,
) -> Generator[tuple[Picture, Detections], None, None]:
    """Yield each picture that can be read with what was found in it, in order, counting.

    A picture is seen at its own size: nothing is resized to the model's chips. Scores are
    probabilities where the model's spec says which, unless `calibrate` is false or the steps make
    scores of their own.

    Raises:
        ReadError: Not one picture can be read.
        ModelError: The network's output is not what it must be.
        DeviceError: Not even one picture fits in the device's memory.
    """
    progress, steps = progress or Silence(), morphology or NO_STEPS
    is_own = calibrate and steps.score == "model"
    chosen = predictor.model.spec.calibration if is_own else None
    tally.chips = len(pictures)
    progress.start("predict", len(pictures))

    def fail(picture: Picture, error: ReadError) -> None:
        tally.failed.append((picture.name, str(error)))
        progress.advance(1)

    batches = picture_batches(
        pictures, batch_size=predictor.batch_size, threads=threads, on_error=fail
    )
    seer: ChipPredictor = predictor
    if tta is not None and tta.views != "none":
        seer = ViewsPredictor(predictor, tta, score_threshold=predictor.score_threshold)
    for group, batch in tally.timed_items("read", batches):
        _see_whole(predictor, batch.images.shape[2:])
        with tally.timed("infer"):
            found = [detections for _, detections in seer.stream([batch])]
        for picture, detections in zip(group, found, strict=True):
            tally.inferred += 1
            refined = refine(detections, steps, gsd_m=None)
            tally.detections += len(refined)
            yield picture, calibrated(refined, chosen)
        progress.advance(len(group))
    tally.check()


def category_id(spec: ModelSpec, label: int) -> int:
    """Return the COCO id of a label of a model.

    Raises:
        ModelError: The model's description does not know the label.
    """
    if not 1 <= label <= len(spec.categories):
        known = ", ".join(str(c.label) for c in spec.categories)
        raise ModelError(f"{spec.name}: labels must be one of {known}, the model returned {label}")
    return spec.categories[label - 1].id


def _see_whole(predictor: Predictor, shape_hw: tuple[int, ...]) -> None:
    """Let a network with weights of ours see pictures of this size unresized."""
    transform = getattr(predictor.model.module, "transform", None)
    if predictor.model.spec.sha256 is not None and transform is not None:
        transform.min_size, transform.max_size = (min(shape_hw),), max(shape_hw)


def _write(
    file: TextIO,
    output: Path,
    found: Iterable[tuple[Picture, Detections]],
    spec: ModelSpec,
    most: int,
) -> None:
    """Write what was found as it comes."""
    gap = "[\n"
    for picture, detections in found:
        records = ",\n".join(_records(picture, detections, spec, most))
        if records:
            with output_errors(output):  # of the writing alone: reading has errors of its own
                file.write(gap + records)
            gap = ",\n"
    with output_errors(output):
        file.write("\n]\n" if gap != "[\n" else "[]\n")
        file.flush()


def _records(picture: Picture, detections: Detections, spec: ModelSpec, most: int) -> Iterator[str]:
    """Yield the best detections of a picture as JSON."""
    order = np.argsort(-detections.scores, kind="stable")[:most]
    for i in order.tolist():
        x0, y0, x1, y1 = detections.boxes[i].tolist()
        yield result_record(
            image_id=picture.image_id,
            category_id=category_id(spec, int(detections.labels[i])),
            score=float(detections.scores[i]),
            box_xywh=[x0, y0, x1 - x0, y1 - y0],
            rle=encode_rle(detections.window_mask(i)),
        )
