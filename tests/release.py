"""``make release``: builds the wheel and the sdist twice, checks them, and lists what is in them, in ``.release/``."""

from __future__ import annotations

import base64
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow_provider_aixplain import __version__

ROOT = Path(__file__).parents[1]
OUT = ROOT / ".release"
NAME = "airflow-provider-aixplain"


def main() -> None:
    """Build, check and describe the release."""
    os.environ["SOURCE_DATE_EPOCH"] = epoch = git("log", "-1", "--format=%ct").strip()
    changelog = ROOT / "CHANGELOG.md"
    date = datetime.fromtimestamp(int(epoch), timezone.utc).date().isoformat()
    changelog.write_text(dated(changelog.read_text(encoding="utf-8"), __version__, date), encoding="utf-8")

    shutil.rmtree(OUT, ignore_errors=True)
    first, second = build(OUT / "dist", OUT / "first"), build(OUT / "again/dist", OUT / "again/in another folder")
    for one, other in zip(first, second, strict=True):
        if one.name != other.name or not filecmp.cmp(one, other, shallow=False):
            sys.exit(f"{one.name} is not reproducible: two builds of the same files differ")
    run(sys.executable, "-m", "twine", "check", "--strict", *first)

    wheel, sdist = first
    install(sdist, OUT / "from-sdist")
    python = install(wheel, OUT / "from-wheel")
    write_bill_of_materials(python, OUT / f"{wheel.name.partition('-py3')[0]}.cdx.json")
    demonstrate(python, wheel, sdist)
    print(f"\n{OUT.name}/ has version {__version__}. What is left for a person: CONTRIBUTING.md, Release")


def dated(changelog: str, version: str, date: str) -> str:
    """Return the changelog with the unreleased changes as those of a version; unchanged if they are already.

    :param date: the day of the release, in ISO 8601.
    """
    is_released = re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.MULTILINE)
    text, changes = re.subn(r"^## Unreleased$", f"## {version} ({date})", changelog, flags=re.MULTILINE)
    if changes and is_released:
        sys.exit(f"CHANGELOG.md has unreleased changes, and {version} is released: raise __version__")
    if not changes and not is_released:
        sys.exit(f"CHANGELOG.md has neither a section 'Unreleased' nor one of {version}")
    return text


def build(dist: Path, source: Path) -> list[Path]:
    """Build the wheel and the sdist in a copy of the files that git tracks, with their changes; return their paths.

    :param dist: the folder of the distributions.
    :param source: the folder of the copy.
    """
    for name in git("ls-files", "-z").split("\0")[:-1]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, source)
    return [*dist.glob("*.whl"), *dist.glob("*.tar.gz")]


def install(distribution: Path, environment: Path) -> Path:
    """Install a distribution into an empty environment, where Airflow has to find the provider; return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin/python"
    pip_install(python, distribution)
    os.environ["AIRFLOW_HOME"] = str(OUT / "airflow")
    run(environment / "bin/airflow", "providers", "get", NAME)
    return python


def pip_install(python: Path, package: str | Path) -> None:
    """Install a package for another Python, its dependencies in the versions that are tested."""
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--disable-pip-version-check")
    run(*pip, "--no-compile", "-c", ROOT / "constraints/airflow-3.3.2.txt", package)


def write_bill_of_materials(python: Path, path: Path) -> None:
    """Write what an installation of the wheel consists of, in the format CycloneDX."""
    from cyclonedx.schema import SchemaVersion  # only the environment of make release has it
    from cyclonedx.validation.json import JsonStrictValidator

    options = ("--pyproject", ROOT / "pyproject.toml", "--mc-type", "library", "--output-reproducible")
    run(sys.executable, "-m", "cyclonedx_py", "environment", *options, "-o", path, python)
    bom = json.loads(path.read_text(encoding="utf-8"))
    root = bom["metadata"]["component"]
    root.update(version=__version__, purl=f"pkg:pypi/{NAME}@{__version__}")  # which pyproject.toml does not state
    packages = bundled(json.loads((ROOT / "ui/package-lock.json").read_text(encoding="utf-8")))
    bom["components"] += packages
    (dependencies,) = (entry for entry in bom["dependencies"] if entry["ref"] == root["bom-ref"])
    dependencies["dependsOn"] += [package["bom-ref"] for package in packages]
    text = json.dumps(bom, indent=2)
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"The bill of materials is invalid: {error}")
    path.write_text(text, encoding="utf-8")


def bundled(lock: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the npm packages in the bundle of the page in Airflow's UI, as components of CycloneDX.

    :param lock: the contents of ``package-lock.json``; packages for development only are not in the bundle.
    """
    components = []
    for folder, package in lock["packages"].items():
        if folder and not package.get("dev"):
            name, version = folder.rpartition("node_modules/")[2], package["version"]
            algorithm, _, digest = package["integrity"].partition("-")
            purl = f"pkg:npm/{quote(name)}@{version}"
            components.append(
                {
                    "type": "library",
                    "bom-ref": purl,
                    "name": name,
                    "version": version,
                    "purl": purl,
                    "licenses": [{"license": {"id": package["license"]}}],
                    "hashes": [
                        {"alg": algorithm.upper().replace("SHA", "SHA-"), "content": base64.b64decode(digest).hex()}
                    ],
                }
            )
    return components


def demonstrate(python: Path, wheel: Path, sdist: Path) -> None:
    """Run the demo with the installed wheel: what runs it comes from the sdist, without the sdist's package."""
    pip_install(python, f"{wheel}[emulator]")
    shutil.unpack_archive(sdist, OUT)
    unpacked = OUT / sdist.name.removesuffix(".tar.gz")
    shutil.copytree(unpacked / "example_dags", OUT / "demo/example_dags")
    shutil.copytree(unpacked / "tests", OUT / "demo/tests")
    for name in ("AIXPLAIN_API_KEY", "KEEP"):  # with a key its runs would be billed
        os.environ.pop(name, None)
    run(python, "-m", "tests.airflow.demo", folder=OUT / "demo")


def git(*arguments: str) -> str:
    """Return the output of a git command."""
    return subprocess.check_output(["git", *arguments], cwd=ROOT, text=True)


def run(*command: str | Path, folder: Path = OUT) -> None:
    """Run a command; stop the release if it fails."""
    print("$", *command, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    if code := subprocess.call(command, cwd=folder):
        sys.exit(code)


if __name__ == "__main__":
    main()
