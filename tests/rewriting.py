"""Files of skad with other content under a right checksum, as a stranger could write them."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from skad.persistence import _archive


def parts(path):
    """Content and tensors of a file."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return json.loads(metadata["content"]), tensors


def write(path, content, tensors, version="0.1.0"):
    """Write them where a file is to be loaded."""
    metadata = {"skad_format": "1", "skad_version": version, "content": json.dumps(content)}
    metadata["checksum"] = _archive.checksum(metadata, tensors)
    save_file(tensors, path, metadata=metadata)


def entry(content, place):
    """The [name, value] pair of an attribute, as "estimators_.0.bank_.index" names it."""
    pair = [None, content]
    for name in place.split("."):
        kind, inner = next(iter(pair[1].items()))
        if kind in ("list", "tuple"):
            pair = [None, inner[int(name)]]
        else:
            items = pair[1]["state"] if kind == "object" else inner
            pair = next(item for item in items if item[0] == name)
    return pair


def state_of(content, place=""):
    """List of the [name, value] pairs of an object."""
    return (entry(content, place)[1] if place else content)["state"]


# ---- mutations ---------------------------------------------------------------------------------------

ODD = [
    *(None, True, 0, 1, -1, 3, 64, 2**31, 2**63, 10**30, 0.5, -0.5, 1e30, 1e300),
    *(float("nan"), float("inf"), -float("inf"), "", "x", "auto", "cuda:7", "meta", "resnet18"),
    *("/dev/zero", "\0", "\ud800", "IVF4,Flat", "pad", "drop", "4GB", "-1", [], {}, [1]),
    *({"list": []}, {"tuple": [1, 2]}, {"again": 0}, {"again": -1}, {"again": 5}, {"again": 10**9}),
    *({"class": "PatchCoreDetector"}, {"class": "object"}, {"object": "Popen", "state": []}),
    *({"array": "array0"}, {"array": "none"}, {"texts": ["a"]}, {"dict": []}, {"odd": 1}),
]


def _places(value, place=()):
    yield place
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(item, (*place, key))


def _at(value, place):
    for key in place:
        value = value[key]
    return value


def mutate_content(content, rng: random.Random):
    """Change one thing in a content, at any depth."""
    places = list(_places(content))
    place = rng.choice(places[1:])
    parent, key = _at(content, place[:-1]), place[-1]
    kind = rng.randrange(5)
    if kind == 0:
        del parent[key]
    elif kind == 1:
        parent[key] = copy.deepcopy(_at(content, rng.choice(places)))
    elif kind == 2 and isinstance(parent[key], list):
        parent[key].append(copy.deepcopy(rng.choice(ODD + parent[key])))
    else:
        parent[key] = copy.deepcopy(rng.choice(ODD))


def mutate_tensors(tensors, rng: random.Random):
    """Change, remove or add one array."""
    name = rng.choice(sorted(tensors))
    array = tensors[name]
    odd = np.array([np.nan, np.inf, -np.inf, 3e38, -1e20])
    changes = [
        lambda: array.astype(rng.choice(["float64", "float32", "int64", "float16", "bool"])),
        lambda: np.where(np.arange(array.size).reshape(array.shape) == 1, rng.choice(odd), array),
        lambda: array[: len(array) // 2] if array.ndim else array[None],
        lambda: array[..., : array.shape[-1] // 2] if array.ndim else array[None],
        lambda: array.reshape(-1),
        lambda: array[..., None],
        lambda: np.concatenate([array, array]) if array.ndim else array,
        lambda: array[:0] if array.ndim else array,
        lambda: array[::-1] if array.ndim else array,
        lambda: array * rng.choice([-1, 0, 1000]),
    ]
    with np.errstate(all="ignore"):
        changed = rng.choice(changes)()
        changed = changed.astype(array.dtype) if rng.random() < 0.8 else changed
    if rng.random() < 0.1:
        del tensors[name]
    else:
        where = f"{name}x" if rng.random() < 0.1 else name
        tensors[where] = np.ascontiguousarray(changed).reshape(changed.shape)
