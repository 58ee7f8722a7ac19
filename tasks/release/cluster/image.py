"""Build context of a release's image: a folder with its Bento, its packages by hash and a Containerfile, for any tool.

No container engine is called and nothing is downloaded here. Why the Containerfile is not the one that BentoML writes:
docs/decisions/kubernetes.md.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from string import Template
from typing import Any

from tasks.ground import files, locked_packages, paths
from tasks.ground.errors import Mistake
from tasks.release import bento_store
from tasks.release.package import package
from tasks.runtime import families

TEMPLATES = Path(__file__).with_name("templates")

BASE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-trixie"
"""What the image is built on: the Python that the release was tried with. `--build-arg BASE=…` names another."""


def name_of(model: str) -> str:
    """A model's name as images and Kubernetes take it: `flight_delay` is `flight-delay`."""
    name = model.replace("_", "-")
    if len(name) > 63 or not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name):  # RFC 1035, as a Service wants it
        raise Mistake(
            f"params.yaml: models.{model}: {name!r} is no name for a Kubernetes Service (at most 63 characters, the "
            f"last one a letter or a digit). Give the model another name"
        )
    return name


def reference(images: str, model: str, candidate: str) -> str:
    """The image's name, `<images>/<model>:<candidate>`; `images` is a registry and a path in it."""
    return f"{images.rstrip('/')}/{name_of(model)}:{candidate}"


def of_version(model: str, version: int | None = None, to: Path | None = None) -> tuple[Path, str]:
    """Write the build context of a version's image; gives its folder, and the candidate, which is the image's tag.

    Without a version it is the champion's; without `to`, a folder below var/images is made.

    Raises:
        Mistake: there is no such version.
        DataMissing: its artifacts are gone, or there is no champion.
        ModelFileRefused: its artifacts were changed.
        RegistryUnavailable: the store is locked or gone.
    """
    from tasks.release.registry import registry

    candidate = registry.resolve(model, "champion" if version is None else str(version)).candidate
    bento_store.ensure(model, candidate)
    to = to or paths.images() / model / candidate
    write(package.bento_folder(model, candidate), to)
    return to, candidate


def write(bento: Path, to: Path) -> None:
    """Write a build context: Containerfile, requirements.txt, bento/; what stood at `to` is replaced."""
    with files.replacing(to) as context:
        # env/ has BentoML's own Dockerfile
        shutil.copytree(bento, context / "bento", ignore=shutil.ignore_patterns("__pycache__", "env"))
        source = context / "bento" / "src"
        package.identity_of(source)
        files.write_text(context / "requirements.txt", requirements(source))
        files.write_text(context / "Containerfile", containerfile(package.release_facts(source)))


def containerfile(facts: dict[str, Any]) -> str:
    """The Containerfile of a release; its labels say where the image comes from, by OCI's names where there is one.

    Each is on one line, and a builder fills nothing in for `$`.
    """
    labels = {
        "org.opencontainers.image.title": facts["name"],
        "org.opencontainers.image.version": facts["candidate"],
        "org.opencontainers.image.description": facts["about"],
        "evergreen.data": facts["lineage"]["data"],
        "evergreen.model.sha256": facts["model_sha256"],
        "evergreen.packages": facts["lineage"]["packages"],
        "evergreen.trained.from": facts["training"]["from"],
        "evergreen.trained.until": facts["training"]["until"],
    }
    quoted = {key: json.dumps(" ".join(value.split()), ensure_ascii=False) for key, value in labels.items()}
    lines = " \\\n      ".join(f"{key}={value}" for key, value in quoted.items()).replace("$", "\\$")
    template = Template((TEMPLATES / "Containerfile").read_text(encoding="utf-8"))
    return template.substitute(
        model=facts["name"],
        candidate=facts["candidate"],
        base=BASE,
        libraries=_install(families.debian(facts["lineage"].get("libraries", {}))),
        labels=f"LABEL {lines}",
    )


def _install(packages: list[str]) -> str:
    """What the base lacks of Debian's packages: an instruction, or none."""
    if not packages:
        return ""
    return (
        f"RUN apt-get update && apt-get install --yes --no-install-recommends {' '.join(packages)} && \\\n"
        "    rm -rf /var/lib/apt/lists/*\n"
    )


def requirements(release: Path) -> str:
    """The pins of a release, each with the hashes that the lock knows.

    pip wants a hash for all or for none. An older release may name a version that this checkout's lock no longer does:
    then it is installed by its exact versions alone, and the first line says so.
    """
    pins = (release / "requirements.txt").read_text(encoding="utf-8").splitlines()
    hashing = [path for path in locked_packages.lock_files() if path.suffix == ".lock"]
    lock = "\n".join(path.read_text(encoding="utf-8") for path in hashing)
    entries = re.split(r"(?m)^(?=\S)", lock)  # a pin, and lines with its hashes
    hashed = {
        str(pin): entry for entry in entries for some in locked_packages.read_lock(entry).values() for pin in some
    }
    unknown = [pin for pin in pins if pin not in hashed]
    if unknown:
        reason = f"# no hashes: the lock has none for {', '.join(unknown[:3])}"
        return "\n".join([reason, *pins, ""])
    return "".join(hashed[pin] for pin in pins)
