"""Print the lower bounds of pyproject.toml as pip constraints: what ``make test-oldest`` installs.

torch and torchvision stay at the pins of constraints.txt: their oldest wheels are gone from
machines that have only a recent CPU build.
"""

import re
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
# Built for each other and for the machine: taken as `make` takes them.
PINNED = ("torch", "torchvision")
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)>=(?P<version>[0-9.]+)")


def lower_bounds() -> list[str]:
    """One ``name==version`` per requirement of the package and of its extras ``cpu`` and ``test``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(
            line
            for name in ("cpu", "plot", "dask", "demo", "serve", "test")
            for line in extras[name]
        ),
    ]
    found = [REQUIREMENT.match(line) for line in requirements]
    bounds = [f"{m['name']}=={m['version']}" for m in found if m and m["name"] not in PINNED]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return bounds + [line for line in pins if line.split("==")[0] in PINNED]


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
