"""Serve a model that is alive at once, and ready once its warm-up has compiled every shape it serves.

    pip install fastapi uvicorn
    MEGACACHE_URL=s3://bucket/scorer/v1 uvicorn serve_fastapi:app --port 8000

/livez says whether the process should live, /readyz whether it should get requests, /receipt what the warm start was
worth. SIGTERM lets requests end, and an upload that has begun.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI, HTTPException
from torch import Tensor, nn

import megacache

SHAPES = (1, 8)
WIDTH = 16

torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
net = nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 1)).to(device).eval()
compiled = torch.compile(net, dynamic=False)


@torch.no_grad()  # in here, for each thread has a mode of its own, and a graph is compiled for one mode
def scores(rows: list[list[float]]) -> list[float]:
    """Score rows, filled up to the next shape that is compiled."""
    shape = next(shape for shape in SHAPES if shape >= len(rows))
    batch = torch.zeros(shape, WIDTH)
    batch[: len(rows)] = torch.tensor(rows)
    found: Tensor = compiled(batch.to(device))
    return [float(score) for score in found[: len(rows), 0]]


def warm_up() -> "Future[megacache.PublishResult]":
    """Compile every shape, and begin to publish; this runs beside the server, which answers probes meanwhile."""
    print("warm:", megacache.warm(timeout=30))
    for shape in SHAPES:
        scores([[0.0] * WIDTH] * shape)
    print("receipt:", megacache.receipt(), flush=True)
    return megacache.publish(wait=False, timeout=20)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Warm up while the server runs, and let the upload end before the process does."""
    app.state.warm_up = asyncio.create_task(asyncio.to_thread(warm_up))
    yield
    print("publish:", await asyncio.wrap_future(await app.state.warm_up), flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/livez")
async def livez() -> str:
    """Answer at once; fail if the warm-up has failed, for this process will never be ready."""
    if app.state.warm_up.done() and app.state.warm_up.exception():
        raise HTTPException(500, f"warm-up failed: {app.state.warm_up.exception()}")
    return "alive"


@app.get("/readyz")
async def readyz() -> str:
    """Be ready once everything is compiled."""
    if not app.state.warm_up.done() or app.state.warm_up.exception():
        raise HTTPException(503, "warming up")
    return "ready"


@app.get("/receipt")
def receipt() -> dict[str, Any]:
    """Tell what the warm start was worth."""
    return megacache.receipt().to_json()


@app.post("/scores")
def post_scores(rows: list[list[float]]) -> list[float]:
    """Score at most eight rows of sixteen numbers."""
    if not 0 < len(rows) <= max(SHAPES) or any(len(row) != WIDTH for row in rows):
        raise HTTPException(422, f"1 to {max(SHAPES)} rows of {WIDTH} numbers are asked for")
    return scores(rows)
