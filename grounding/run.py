"""Cog's entry point: finds what labels name in a picture."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from batching import Batcher
from cog import BaseRunner, Input, Path, concurrent
from draw import annotate, save
from engines import load_engine
from formats import export, to_detections
from labels import parse_labels
from masks import add_masks, refuse_masks
from outputs import Output, Thresholds
from postprocess import merge
from prediction import DetectInput
from reading import read

MAX_BATCH = 8
"""Pictures in one pass; run() takes as many requests at once."""

CPU_THREADS = 2
"""Pictures read at once: one of 50 megapixels takes up to 800 MB until it is resized."""

# Each is one literal, however long: `cog build` reads them statically, and concatenated pieces
# would keep their quotes.
# ruff: noqa: E501
DEFAULT_LABELS = "person, face, hand, dog, cat, bird, car, bicycle, chair, table, bottle, cup, phone, laptop, book, plant, bag, shoe"
IMAGE = "Picture to search: PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF, at most 50 megapixels, 32768 pixels a side and 80 to 1 in shape. EXIF orientation is applied; transparency is laid over white."
TEXT_QUERIES = 'What to look for: labels separated by commas, semicolons, line breaks or periods ("cat, dog", "cat . dog ."), or a JSON list of strings. At most 2000. Blank: the default list. The labels used come back as queries_used.'
BOX_THRESHOLD = "Lowest score of a detection: mean probability of its label's tokens."
TEXT_THRESHOLD = "Probability that each single word of a detection's label must reach."
MAX_DETECTIONS = "Most detections to return, best first."
NMS = "Of boxes with one label that overlap by more than this IoU, keep the best. Leave out to keep all."
MASKS = "Also return the mask of each detection: `rle` (COCO run lengths over the whole picture) or `polygon` (outlines in px). Only the weights sam3 have masks; with others, anything but none is refused."
ANNOTATED = (
    "Also return the picture with its boxes drawn, and its masks if `masks` asks for them (JPEG)."
)
EXPORT_FORMAT = "Also return the detections as COCO or Label Studio JSON, in `export`."


class Runner(BaseRunner):
    """Detection of what labels name: the Grounding DINO family, SAM 3, or 80 classes without a GPU."""

    def setup(self) -> None:
        """Load what ENGINE and WEIGHTS name onto DEVICE in DTYPE."""
        self.engine = load_engine(os.environ)
        self.batcher = Batcher(self.engine.detect_many, MAX_BATCH)
        self.cpu_pool = ThreadPoolExecutor(CPU_THREADS, thread_name_prefix="cpu")

    @concurrent(max=8)  # type: ignore[untyped-decorator]
    async def run(
        self,
        image: Path = Input(description=IMAGE),
        text_queries: str = Input(
            default=DEFAULT_LABELS,
            max_length=65536,
            description=TEXT_QUERIES,
        ),
        box_threshold: float = Input(
            default=0.35,
            ge=0.0,
            le=1.0,
            description=BOX_THRESHOLD,
        ),
        text_threshold: float = Input(
            default=0.25,
            ge=0.0,
            le=1.0,
            description=TEXT_THRESHOLD,
        ),
        max_detections: int = Input(default=100, ge=1, le=900, description=MAX_DETECTIONS),
        nms: float | None = Input(
            default=None,
            ge=0.0,
            le=1.0,
            description=NMS,
        ),
        masks: str = Input(
            default="none",
            choices=["none", "rle", "polygon"],
            description=MASKS,
        ),
        annotated: bool = Input(default=False, description=ANNOTATED),
        format: str = Input(  # noqa: A002 - the name is the API's
            default="detections",
            choices=["detections", "coco", "label_studio"],
            description=EXPORT_FORMAT,
        ),
    ) -> Output:
        """Return the boxes of all things in the picture that the labels name, best first."""
        refuse_masks(masks, self.engine)
        labels = parse_labels(text_queries, DEFAULT_LABELS)
        query = self.engine.read_labels([label.text for label in labels])
        # Reading, merging and drawing run in threads, so that they do not block other requests.
        in_pool = partial(asyncio.get_running_loop().run_in_executor, self.cpu_pool)
        size, pixels, canvas = await in_pool(read, image, self.engine, annotated)
        prompts = tuple(chunk.input_ids for chunk in query.chunks)
        # A label of an engine with masks is one token, so that both thresholds are for its score.
        masks_from = None if masks == "none" else max(box_threshold, text_threshold)
        work = DetectInput(pixels, prompts, masks_from)
        # Passes with and without masks differ in what they compute.
        key = pixels.shape, masks_from is None
        seen = await asyncio.wrap_future(self.batcher.submit(key, work))
        limits = (box_threshold, text_threshold, nms)
        found = await asyncio.to_thread(merge, seen, query.chunks, *limits, most=max_detections + 1)
        names = [label.name for label in labels]
        kept = found.take(slice(max_detections))
        detections = to_detections(kept.boxes, kept.scores, kept.labels, names, size)
        grids = [seen[c].masks.get(q) for c, q in zip(kept.chunks, kept.queries, strict=True)]
        detections = await asyncio.to_thread(add_masks, detections, grids, size, masks)
        jpeg = await asyncio.to_thread(annotate, canvas, detections, grids) if canvas else None
        # Nothing is awaited from here on: a cancelled prediction leaves no file behind.
        return Output(
            detections=detections,
            image=size,
            queries_used=names,
            queries_read_as={names[i]: list(read) for i, read in query.read_as.items()},
            queries_ignored=[names[i] for i in sorted(query.ignored)],
            thresholds=Thresholds(
                box_threshold=box_threshold, text_threshold=text_threshold, nms=nms
            ),
            truncated=len(found.scores) > max_detections,
            model=self.engine.name,
            annotated_image=save(jpeg) if jpeg else None,
            export=export(format, detections, size, names, self.engine.name),
        )
