r"""
===============================
Judge images in an HTTP service
===============================

A page to drop pictures on, and JSON for machines, around a file of ``skad.export_onnx`` or
``skad.save``. An exported file needs neither torch nor scikit-learn.

Run, for instance::

    python examples/serve.py line3.onnx --workers 2       # then open http://127.0.0.1:8000
    curl --data-binary @part.png http://127.0.0.1:8000/predict
    curl --form image=@part.png "http://127.0.0.1:8000/predict?heatmap=true"
    curl --data-binary @part.png http://127.0.0.1:8000/heatmap --output heatmap.png

FastAPI and uvicorn come with ``pip install "skad[serve]"``. There is no password: the service listens on
this machine alone unless told otherwise (``--host``); put what checks users in front of it.
``docs/deploy.md`` has the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import logging
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client as prom
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from PIL import Image
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.formparsers import MultiPartParser
from starlette.requests import ClientDisconnect

import skad
from skad.metrics import DriftMonitor

ENVIRONMENT = "SKAD_SERVE_"
SHARED_COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# Others that Pillow reads are rare on a line, and some of them run programs (EPS).
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
TIMEOUT = 30.0  # seconds within which an image must have arrived
LARGEST_LAYER = 1024  # pixels of the longer side: a map is smooth
BOUNDARIES = 10_000  # bytes that a form may add to its image
POLICY = "default-src 'self' 'unsafe-inline' data: blob:"

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Settings:
    """What the service is told: by arguments, or by variables such as ``SKAD_SERVE_FILE``."""

    file: str = ""
    workers: int = 1
    """Processes."""
    threads: int = 0
    """Images that each process scores at once; 0: as many as its share of the CPUs."""
    max_waiting: int = 32
    """Images that each process holds at once; further ones are refused (503)."""
    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000

    @classmethod
    def of_environment(cls) -> Settings:
        """Read the variables; what is not set stays at its default."""
        told = {one.name: os.environ.get(ENVIRONMENT + one.name.upper()) for one in fields(cls)}
        kinds = {one.name: type(one.default) for one in fields(cls)}
        return cls(**{name: kinds[name](text) for name, text in told.items() if text is not None})

    def to_environment(self) -> None:
        """Hand the settings to the processes that uvicorn starts."""
        for name, value in asdict(self).items():
            os.environ[ENVIRONMENT + name.upper()] = str(value)

    def share(self) -> tuple[int, int]:
        """Divide the CPUs: images at once, and threads that each is scored by."""
        cpus = max(1, (os.cpu_count() or 1) // self.workers)
        at_once = self.threads or cpus
        return at_once, max(1, cpus // at_once)


class Metrics:
    """Counts for Prometheus; of all processes together where they share a folder.

    Drift is that of the scores (``skad.metrics.DriftMonitor``, docs/drift.md). Each process watches the
    images that it was given, at its share of a level of 5 %.
    """

    def __init__(self, model: Any, workers: int) -> None:
        self._registry = CollectorRegistry()
        add = {"registry": self._registry}
        self._images = prom.Counter("skad_images", "Images that were judged.", ["verdict"], **add)
        self._errors = prom.Counter("skad_errors", "Requests without a verdict.", ["status"], **add)
        self._seconds = prom.Histogram("skad_seconds", "From request to verdict.", **add)
        self._evidence = prom.Gauge(
            "skad_drift_log10_evidence", "Evidence of drift among images called good.", **add
        )
        self._alarm = prom.Gauge(
            "skad_drift_alarm",
            "1: the evidence has reached its level.",
            **add,
            multiprocess_mode="max",
        )
        for verdict in ("good", "defective"):
            self._images.labels(verdict)
        self._lock = threading.Lock()
        self._monitor = None
        scores, offset = model.calibration_scores_, model.offset_
        if scores is not None and (np.asarray(scores) > offset).any():
            self._monitor = DriftMonitor(scores, threshold=offset, level=0.05 / workers)

    def note_verdict(self, found: dict[str, Any], seconds: float) -> None:
        """Count an image that was judged."""
        self._images.labels(found["verdict"]).inc()
        self._seconds.observe(seconds)
        if self._monitor is not None:
            with self._lock:
                self._monitor.update([found["score"]])
                self._evidence.set(self._monitor.log10_evidence_[-1])
                self._alarm.set(self._monitor.is_drifting_)

    def note_error(self, status: int) -> None:
        """Count a request that was refused, or failed."""
        self._errors.labels(str(status)).inc()

    def render(self) -> bytes:
        """Write the text that Prometheus reads."""
        registry = self._registry
        if SHARED_COUNTS in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry)


class Inspector:
    """Judges encoded images; from any thread."""

    def __init__(self, settings: Settings) -> None:
        at_once, n_threads = settings.share()
        exported = settings.file.endswith(".onnx")
        self.model = skad.load(settings.file, **({"n_threads": n_threads} if exported else {}))
        self._overlay, self._max_pixels = skad.HeatmapOverlay(self.model), settings.max_pixels
        self.pool = ThreadPoolExecutor(at_once, thread_name_prefix="judge")

    def judge(self, body: bytes, heatmap: bool = False) -> dict[str, Any]:
        """Judge an image: what the service answers."""
        found = self._inspect(body)
        listed = skad.Regions([found.regions], [found.shape])
        regions = json.loads(listed.to_json_lines(contours=heatmap))
        answer = {
            "verdict": _named(found),
            "score": found.score + 0.0,  # the best score is minus zero
            "offset": float(self.model.offset_),
            "p_value": found.p_value,
            **{name: regions[name] for name in ("height", "width", "regions")},
        }
        if heatmap:
            layer = _png(self._layer(found.heatmap()))
            answer["heatmap"] = f"data:image/png;base64,{base64.b64encode(layer).decode()}"
        return answer

    def draw(self, body: bytes) -> tuple[bytes, dict[str, Any]]:
        """Draw an image with its heat map over it, as PNG; also return what was found."""
        found = self._inspect(body)
        picture = self._overlay.draw(body, found.heatmap(), found.regions)
        return _png(picture), {"verdict": _named(found), "score": found.score + 0.0}

    def _inspect(self, body: bytes) -> skad.Inspection:
        _check(body, self._max_pixels)
        try:
            (found,) = self.model.inspect([body])
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise HTTPException(422, f"the image {reason.partition('): ')[2] or reason}") from error
        return found

    def _layer(self, heatmap: np.ndarray) -> Image.Image:
        """Colour a map, transparent where the image is as good images are."""
        step = -(-max(heatmap.shape) // LARGEST_LAYER)
        shares = self._overlay.shares(heatmap[::step, ::step])
        layer = np.zeros((*shares.shape, 4))
        layer[..., 0], layer[..., 1], layer[..., 3] = 255, 230 * (1 - shares), 180 * shares**1.2
        return Image.fromarray(np.round(layer).astype(np.uint8))


def _named(found: skad.Inspection) -> str:
    return "good" if found.verdict > 0 else "defective"


def _check(body: bytes, max_pixels: int) -> None:
    """Refuse what is no image, or too large a one, by its header."""
    try:
        with Image.open(BytesIO(body), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"the image has more than {max_pixels} pixels.") from error
    except Exception as error:  # whatever a damaged header leads Pillow to
        raise HTTPException(415, f"this is no {', '.join(FORMATS)} image.") from error
    if width * height > max_pixels:
        raise HTTPException(413, f"{width} x {height} pixels are more than {max_pixels}.")


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


async def read_image(request: Request, max_bytes: int) -> bytes:
    """Read the image of a request, the body itself or a field of a form; never more than allowed."""
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    most = max_bytes + BOUNDARIES * is_form
    too_long = HTTPException(413, f"more than {max_bytes} bytes.")
    if int(request.headers.get("content-length") or 0) > most:
        raise too_long
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_long
    image = await _of_form(request, bytes(body)) if is_form else bytes(body)
    if len(image) > max_bytes:
        raise too_long
    return image


async def _of_form(request: Request, body: bytes) -> bytes:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, parts(), max_files=1).parse()
    except Exception as error:  # whatever a broken form leads its parser to
        raise HTTPException(400, "the form cannot be read.") from error
    try:
        for _, value in form.multi_items():
            if not isinstance(value, str):
                return await value.read()
    finally:
        await form.close()
    raise HTTPException(422, "the form has no file: curl --form image=@part.png")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the service; uvicorn calls it once in each process."""
    settings = settings or Settings.of_environment()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit speaks
    inspector = Inspector(settings)
    metrics = Metrics(inspector.model, settings.workers)
    held = 0

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        inspector.pool.shutdown(cancel_futures=True)

    app = FastAPI(title="skad", docs_url=None, redoc_url=None, lifespan=lifespan)

    async def work(request: Request, function: Any, *arguments: Any) -> Any:
        """Read an image and judge it in a thread; what fails is counted, and ends this request alone."""
        nonlocal held
        start = time.perf_counter()
        held += 1
        try:
            if held > settings.max_waiting:
                raise HTTPException(503, "too many images at once.", {"Retry-After": "1"})
            reading = read_image(request, settings.max_bytes)
            body = await asyncio.wait_for(reading, TIMEOUT)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(inspector.pool, function, body, *arguments)
        except Exception as error:
            refusal = _refusal(error)
            metrics.note_error(refusal.status_code)
            raise refusal from error
        finally:
            held -= 1
        found = answer if isinstance(answer, dict) else answer[1]
        metrics.note_verdict(found, time.perf_counter() - start)
        return answer

    @app.post("/predict")
    async def predict(request: Request, heatmap: bool = False) -> dict[str, Any]:
        return await work(request, inspector.judge, heatmap)

    @app.post("/heatmap")
    async def draw(request: Request) -> Response:
        picture, found = await work(request, inspector.draw)
        headers = {f"X-Skad-{name}": str(value) for name, value in found.items()}
        return Response(picture, media_type="image/png", headers=headers)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        model = inspector.model
        content = getattr(model, "content_", None)
        return {
            "status": "ok",
            "detector": content.detector if content else type(model).__name__,
            "file": os.path.basename(settings.file),
            "offset": float(model.offset_),
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "skad": skad.__version__,
        }

    @app.get("/metrics")
    async def count() -> PlainTextResponse:
        return PlainTextResponse(metrics.render(), media_type=prom.CONTENT_TYPE_LATEST)

    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

    @app.get("/")
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY})

    return app


def _refusal(error: Exception) -> HTTPException:
    """Say in one line why there is no verdict; what nobody has foreseen goes to the log as well."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, ClientDisconnect)):
        return HTTPException(408, "the image did not arrive in time.")
    log.error("an image could not be judged", exc_info=error)
    return HTTPException(500, "the image could not be judged; the log of the service says why.")


def read_arguments() -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(
        description="Judge images over HTTP.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("file", help="of skad.export_onnx (.onnx) or skad.save (.skad)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: reachable from elsewhere")
    parser.add_argument("--port", type=int, default=8000, help="of the service")
    for name, text in (
        ("workers", "processes"),
        ("threads", "images that each scores at once; 0: as many as its share of the CPUs"),
        ("max_waiting", "images that each holds at once"),
        ("max_bytes", "of an image"),
        ("max_pixels", "of an image"),
    ):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=getattr(Settings, name), help=text)
    args = parser.parse_args()
    own = {one.name: getattr(args, one.name) for one in fields(Settings)}
    return args, Settings(**own)


def main() -> None:
    args, settings = read_arguments()
    if not Path(settings.file).is_file():
        sys.exit(f"{settings.file!r}: there is no such file.")
    settings.to_environment()
    # Processes import for seconds on a busy machine; uvicorn would take them for dead after five.
    patience = {"timeout_worker_healthcheck": 60}
    where = {"host": args.host, "port": args.port, "app_dir": str(Path(__file__).parent)}
    with tempfile.TemporaryDirectory(prefix="skad-serve-") as folder:
        if settings.workers > 1:
            os.environ[SHARED_COUNTS] = folder
        uvicorn.run("serve:create_app", factory=True, workers=settings.workers, **where, **patience)


if __name__ == "__main__":
    main()
