"""The routes: uploads in, answers and the page out."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from msmae import __version__
from msmae.serve import schemas
from msmae.serve.batches import Batches
from msmae.serve.decode import Decoded
from msmae.serve.decoders import Decoders
from msmae.serve.describe import described, refuse_useless_keep, together
from msmae.serve.engine import Answer, Engine, Question
from msmae.serve.guard import Guard, problem
from msmae.serve.limits import Limits, Refused
from msmae.serve.metrics import TYPE, Metrics
from msmae.serve.neighbours import Neighbours
from msmae.serve.uncertainty import COVERAGE

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/views.js": ("views.js", "text/javascript; charset=utf-8"),
    "/answer.js": ("answer.js", "text/javascript; charset=utf-8"),
    "/strings.js": ("strings.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": text}
    for status, text in {
        400: "the request is no form",
        401: "the token is missing or wrong",
        403: "another site, or another name of this machine",
        408: "the upload came too slowly",
        413: "too many bytes or files",
        422: "a file or a number that cannot be used",
        503: "too many requests at a time",
    }.items()
}
router = APIRouter(responses=REFUSALS)
Uploads = Annotated[
    list[UploadFile], File(description="PNG, JPEG, TIFF or DICOM; several files are images of one patient")
]


@dataclass
class Service:
    """What the routes share."""

    engine: Engine
    limits: Limits
    metrics: Metrics
    decoders: Decoders
    batches: Batches[Question, Answer]
    neighbours: Neighbours | None
    model_file: Path
    loaded: tuple[int, int]

    async def decode(self, files: list[UploadFile], *, pictures: bool) -> list[tuple[str, Decoded]]:
        """Names and images. Raises Refused with the reason of every file that cannot be used."""
        if len(files) > self.limits.files:
            raise Refused(413, "too_many", f"{len(files)} files are more than {self.limits.files} of one patient")
        names = [shown_name(file.filename) for file in files]

        async def one(file: UploadFile) -> Decoded | Refused:
            try:
                content = await file.read()
                return await self.decoders(content, name=file.filename or "", pictures=pictures)
            except Refused as refused:
                return refused

        found = await asyncio.gather(*(one(file) for file in files))
        bad = [(i, names[i], item.sentence) for i, item in enumerate(found) if isinstance(item, Refused)]
        if bad:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise Refused(422, "unreadable", f"{bad[0][1]}: {bad[0][2]}{more}", bad)
        return [(name, item) for name, item in zip(names, found, strict=True) if isinstance(item, Decoded)]


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; (0, 0) where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def shown_name(name: str | None) -> str:
    """A client's file name as it is given back: the last part, without control characters, at most 120 characters."""
    last = re.split(r"[/\\]", name or "")[-1]
    plain = "".join(character for character in last if character.isprintable())
    return plain[:120] or "image"


@router.post("/predict", summary="The answer to the images of one patient", response_model=schemas.Prediction)
async def predict(
    request: Request,
    files: Uploads,
    keep: Annotated[float, Form(gt=0, le=1, description="share of the patches that the model may see")] = 1.0,
    map: Annotated[bool, Form(description="answer with the attention map and the kept patches")] = True,
    pictures: Annotated[bool, Form(description="answer with the image and what is drawn over it")] = False,
) -> dict[str, Any]:
    service: Service = request.app.state.service
    engine = service.engine
    refuse_useless_keep(engine, keep)
    decoded = await service.decode(files, pictures=pictures)
    if len({item.patient for _, item in decoded} - {""}) > 1:
        raise Refused(422, "patients", "the DICOM headers name more than one patient: send one patient at a time")
    compared = pictures and service.neighbours is not None
    answers = await asyncio.gather(
        *(
            service.batches(Question(item.array, keep, map=map, reconstruction=pictures, features=compared))
            for _, item in decoded
        )
    )
    service.metrics.images += len(answers)
    images = [
        described(engine, name, item, answer, pictures=pictures)
        for (name, item), answer in zip(decoded, answers, strict=True)
    ]
    if compared and service.neighbours is not None:
        for image, answer in zip(images, answers, strict=True):
            nearest = service.neighbours.nearest
            image["neighbours"] = await asyncio.to_thread(nearest, np.asarray(answer.features))
    return {"images": images, "patient": together(engine, answers)}


@router.post("/embed", summary="The encoder's features of images", response_model=schemas.Embedding)
async def embed(request: Request, files: Uploads) -> dict[str, Any]:
    service: Service = request.app.state.service
    if service.engine.segmenter:
        raise Refused(422, "segmenter", "a segmenter gives no features of whole images")
    decoded = await service.decode(files, pictures=False)
    questions = [Question(item.array, map=False, features=True) for _, item in decoded]
    answers = await asyncio.gather(*(service.batches(question) for question in questions))
    service.metrics.images += len(answers)
    return {
        "images": [
            {"name": name, "features": np.asarray(answer.features).tolist()}
            for (name, _), answer in zip(decoded, answers, strict=True)
        ]
    }


@router.get("/model", summary="What the model is", response_model=schemas.Information)
async def model(request: Request) -> dict[str, Any]:
    service: Service = request.app.state.service
    engine, known, limits = service.engine, service.engine.uncertainty, service.limits
    return {
        "task": "segmentation" if engine.segmenter else "classification",
        "classes": engine.classes,
        "multilabel": engine.card.multilabel,
        "image_size": engine.card.image_size,
        "grid": engine.grid,
        "channels": engine.card.channels,
        "coverage": None if known.image_level is None else COVERAGE,
        "thresholds": known.thresholds and dict(zip(engine.classes, known.thresholds, strict=True)),
        "validation_images": known.images,
        "least_keep": engine.least_keep(),
        "selector": engine.selector(),
        "prepared": not engine.segmenter and engine.model.prepared is not None,
        "reconstructs": engine.reconstructor is not None,
        "neighbours": service.neighbours is not None,
        "limits": {"upload_bytes": limits.upload, "files": limits.files, "pixels": limits.pixels},
    }


@router.get("/health", summary="Whether the server answers", response_model=schemas.Health)
async def health(request: Request) -> dict[str, str]:
    service: Service = request.app.state.service
    same = stamp(service.model_file) == service.loaded
    return {"status": "ok", "model_file": "as loaded" if same else "changed since it was loaded"}


@router.get(
    "/metrics",
    summary="Counters for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    service: Service = request.app.state.service
    sizes = service.batches.sizes
    return Response(service.metrics.text((sizes[0], sizes[1])), media_type=TYPE)


def make_app(
    run: str,
    *,
    limits: Limits | None = None,
    token: str | None = None,
    neighbours: bool = False,
    device: str = "cpu",
) -> FastAPI:
    """The server of a finished run. Raises UserError where the run cannot be served."""
    limits = limits or Limits()
    engine = Engine(run, device=device)
    bank = Neighbours.of(run, engine) if neighbours else None
    folder = Path(run) / "model" if (Path(run) / "model").is_dir() else Path(run)
    counters = Metrics()

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        batches: Batches[Question, Answer] = Batches(engine.answers, most=limits.batch)
        decoders = Decoders(engine.task(pixels=limits.pixels), limits, count=os.cpu_count())
        path = folder / "model.safetensors"
        app.state.service = Service(engine, limits, counters, decoders, batches, bank, path, stamp(path))
        try:
            await asyncio.get_running_loop().run_in_executor(batches.thread, engine.warm_up, limits.batch)
            batches.start()
            yield
        finally:
            await batches.close()
            decoders.close()

    app = FastAPI(
        title="msmae",
        version=__version__,
        summary="What a model says of medical images. Research software, not a medical device.",
        docs_url=None,
        redoc_url=None,
        lifespan=running,
    )
    app.include_router(router)
    add_page(app)
    add_refusals(app)
    app.add_middleware(Guard, limits=limits, metrics=counters, token=token)
    return app


def add_page(app: FastAPI) -> None:
    """The page's files, read once."""
    for route, (file, kind) in PAGE.items():
        content = (resources("msmae.serve") / "page" / file).read_bytes()
        app.add_api_route(route, page_route(content, kind), include_in_schema=False)


def page_route(content: bytes, kind: str) -> Any:
    """A route that gives one file."""

    async def give() -> Response:
        return Response(content, media_type=kind)

    return give


def add_refusals(app: FastAPI) -> None:
    """Every refusal, ours or the framework's, is the same JSON."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return JSONResponse(problem(error), status_code=error.status)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = str(first["loc"][-1]) if first["loc"] else "the request"
        sentence = f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        return JSONResponse(problem(Refused(422, "invalid", sentence)), status_code=422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> JSONResponse:
        body = problem(Refused(error.status_code, "http", str(error.detail)))
        return JSONResponse(body, status_code=error.status_code, headers=error.headers)
