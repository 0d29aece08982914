"""How long the local Entra ID takes to start with many applications; time and size of its pages.

    make bench-emulator

Prints one row for the start and one for each page, with its goal. Wall-clock times are medians; CPU time of
the start is shown, too, because it says more on a machine that is busy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

START_SECONDS, MAP_SECONDS, PAGE_BYTES = 2.0, 0.3, 200_000
"""The goals."""
APPLICATIONS_IN_A_NAMESPACE = 12
TENANT = "trygdeetaten.no"


def write_manifests(folder: Path, applications: int, users: int) -> tuple[Path, Path]:
    """Manifests with three inbound rules each, one file for each namespace; and a directory."""
    choose = random.Random(1)
    names = [(f"team-{n // APPLICATIONS_IN_A_NAMESPACE:03}", f"app-{n}") for n in range(applications)]
    manifests = folder / "manifests"
    manifests.mkdir()
    documents: dict[str, list[str]] = {}
    for number, (namespace, name) in enumerate(names):
        callers = choose.sample(names, min(3, len(names)))
        rules = "".join(f"\n        - {{application: {app}, namespace: {ns}}}" for ns, app in callers)
        documents.setdefault(namespace, []).append(
            "apiVersion: nais.io/v1alpha1\n"
            "kind: Application\n"
            f"metadata:\n  name: {name}\n  namespace: {namespace}\n"
            "spec:\n  image: example\n"
            "  azure:\n    application:\n      enabled: true\n"
            f"      claims:\n        groups:\n          - id: {group_id(number % 50)}\n"
            f"  accessPolicy:\n    inbound:\n      rules:{rules}\n"
        )
    for namespace, texts in documents.items():
        (manifests / f"{namespace}.yaml").write_text("---\n".join(texts))
    groups = "".join(f"  - {{name: group-{n}, id: {group_id(n)}}}\n" for n in range(50))
    people = "".join(
        f"  - {{name: User {n}, username: user{n}@{TENANT}, "
        f"groups: [group-{n % 50}, group-{(n * 7 + 1) % 50}]}}\n"
        for n in range(users)
    )
    directory = folder / "directory.yaml"
    directory.write_text(f"tenant: {TENANT}\ngroups:\n{groups}users:\n{people}")
    return manifests, directory


def group_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def started(manifests: Path, directory: Path) -> tuple[subprocess.Popen[str], str, float]:
    """A local Entra ID in a process of its own: the process, its address, seconds until it answered."""
    command = [sys.executable, "-m", "entra_fast", "emulator", "--port", "0"]
    command += ["--manifests", str(manifests), "--directory", str(directory)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{url}/healthz") as answer:
        answer.read()
    return process, url, time.perf_counter() - began


def stopped(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait()


def fetched(url: str) -> tuple[float, int]:
    """Seconds and bytes of a page."""
    request = urllib.request.Request(url, headers={"Accept": "text/html"})
    began = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        size = len(answer.read())
    return time.perf_counter() - began, size


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--applications", type=int, default=1000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument(
        "--repeat", type=int, default=5, help="number of starts; pages are fetched 4 times as often"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sources = write_manifests(Path(folder), options.applications, options.users)
        starts, processor = [], []
        for _ in range(options.repeat):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            process, _, seconds = started(*sources)
            stopped(process)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            starts.append(seconds)
            processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        process, url, _ = started(*sources)
        try:
            pages = measured_pages(url, 4 * options.repeat)
        finally:
            stopped(process)
    figures = {"start": statistics.median(starts), "start_cpu": statistics.median(processor), "pages": pages}
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{options.applications} applications, {options.users} users, {os.cpu_count()} cores\n")
    start = f"{figures['start']:.2f} s ({figures['start_cpu']:.2f} s of CPU until it has stopped again)"
    print(f"{'start':<44} {start}, goal {START_SECONDS:g} s")
    for path, (seconds, size) in pages.items():
        goal = f", goal {MAP_SECONDS * 1000:.0f} ms" if path.startswith("/map") else ""
        print(
            f"{path:<44} {seconds * 1000:6.1f} ms{goal}, {size / 1000:.1f} KB, goal {PAGE_BYTES // 1000} KB"
        )


def measured_pages(url: str, repeat: int) -> dict[str, tuple[float, int]]:
    """Median seconds and bytes of pages, the compilation of templates left out."""
    paths = [
        "/",
        "/map",
        "/map?namespace=dev-gcp:team-000",
        "/map?application=dev-gcp:team-000:app-0",
        "/applications/dev-gcp:team-000:app-0",
        "/users",
        "/users?q=user99",
        "/log",
        "/explain",
        "/mint",
        "/faults",
        "/endpoints",
    ]
    measured = {}
    for path in paths:
        fetched(url + path)
        times = [fetched(url + path) for _ in range(repeat)]
        measured[path] = (statistics.median(seconds for seconds, _ in times), times[0][1])
    return measured


if __name__ == "__main__":
    main()
