"""One job: the crowdAI mapping data in; clean splits, weights, scores and a model card out.

    python pipelines/train_crowdai.py /data/crowdai -o out --config configs/crowdai-mask-rcnn.yaml

What breaks training is mended or left out first, in copies of the documents. The data's official
splits leak: most chips of val are in train too. So the network is trained on what `dedupe` leaves
of train, and measured twice, on the official val, as far as it is sound, and on its clean part. Run
again, it goes on where it stopped. No algorithm lives here.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.config import load_config, load_train_config
from geoseg.data.check import fix
from geoseg.data.cocofile import read_coco
from geoseg.data.dedupe import clean_manifest, find_duplicates, take_prints
from geoseg.data.layout import Split, find_split
from geoseg.data.manifest import write_manifest
from geoseg.errors import ConfigError, GeosegError
from geoseg.files import output_errors
from geoseg.stages.base import Tally
from geoseg.stages.evaluate import evaluate_chips, evaluate_model, read_truth, report_chips
from geoseg.stages.modelcard import write_model_card
from geoseg.stages.train import WEIGHTS_FILE, train_run

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMITS = "Trained on one data set of one resolution: check a sample before use anywhere else."


def main(words: Sequence[str] | None = None) -> int:
    """Do the whole job; return the exit code."""
    words = sys.argv[1:] if words is None else words
    options = _parse(words)
    try:
        splits = [find_split(options.root, name, small=options.small) for name in ("train", "val")]
        splits = [mend(split, options.output / "data") for split in splits]
        manifest = options.output / "clean.json"
        if not manifest.exists():
            make_manifest(splits, manifest)
        weights = train(options, manifest)
        scores = measure(weights, splits[1], manifest, options.output)
        command = shlex.join(["python", "pipelines/train_crowdai.py", *words])
        print(f"wrote {write_model_card(weights, scores, command=command, limits=LIMITS)}")
    except GeosegError as error:
        print(f"train_crowdai: {error}", file=sys.stderr)
        return 1
    return 0


def mend(split: Split, root: Path) -> Split:
    """Return the split with a clean copy of its document, below a root that training takes."""
    folder = root / split.name
    images, document = folder / "images", folder / split.document.name
    if folder.resolve() == split.document.parent.resolve():
        raise ConfigError(f"{folder} is the data set itself: choose another --output")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not images.is_symlink():
            images.symlink_to(split.images.resolve(), target_is_directory=True)
    if images.resolve() != split.images.resolve():
        raise ConfigError(f"{folder} is a copy of {images.resolve()}: choose another --output")
    if not document.exists():  # made once: a training that goes on keeps its data
        found = fix(split.document, split.images, document)
        print(f"{split.name}: {len(found.annotations.images)} chips, {found.counts() or 'sound'}")
    elif document.stat().st_mtime_ns < split.document.stat().st_mtime_ns:
        raise ConfigError(
            f"{split.document} has changed since {document} was made: choose another --output"
        )
    return Split(name=split.name, images=images, document=document)


def make_manifest(splits: Sequence[Split], path: Path) -> None:
    """Write which chips are kept: one of each, and none of val in train."""
    chips = {
        s.name: [s.images / name for name in read_coco(s.document).images.file_names]
        for s in splits
    }
    folders = {s.name: s.images for s in splits}
    found = find_duplicates(take_prints(chips, folders=folders))
    write_manifest(path, clean_manifest(found))
    print(f"{found.n_groups} different chips; of val, {found.leaks()['val', 'train']} are in train")


def train(options: argparse.Namespace, manifest: Path) -> Path:
    """Train on the clean part of train; return the weights."""
    root = options.output / "data"
    words = [f"data.root={root}", f"data.manifest={manifest}", *options.set]
    words += ["data.small=true"] if options.small else []
    config = load_train_config(options.config, assignments=words)
    train_run(config, options.output / "run", say=print)
    return Path(options.output, "run", WEIGHTS_FILE)


def measure(weights: Path, val: Split, manifest: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Score the weights on the official val, as it was mended, and on its clean part."""
    model = load_config(options={"model.name": str(weights), "model.score": 0.05}).model
    scores = {}
    for name, chosen in (("official val, mended", None), ("clean val", manifest)):
        truth = read_truth(val.document, manifest=chosen, split="val")
        results = evaluate_model(truth, val.images, model, Tally())
        found = evaluate_chips(truth, results)
        page = folder / f"{name.partition(',')[0].replace(' ', '-')}.html"
        report_chips(page, found, images=val.images)
        scores[name] = found.figures.as_dict()
        print(f"{name}: AP {found.figures.ap:.3f}, AP50 {found.figures.ap50:.3f}")
    return scores


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with train/ and val/")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--config", help="YAML of training options")
    parser.add_argument("--small", action="store_true", help="use annotation-small.json")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
