"""`carcond restore`: restore a backup of `carcond backup`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.backup import restore as run


def restore(
    file: Annotated[Path, typer.Argument(help="a file that carcond backup wrote")],
    data: Annotated[Path, typer.Option(help="the data folder to fill, for scripts/up --data")] = Path(".carcond"),
    replace: Annotated[bool, typer.Option("--replace", help="move existing data aside")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Restore a backup in a folder without data: all of it, or nothing.

    Example: carcond restore ~/carcond-monday.tar --data /srv/carcond
    """
    done = run(file, data, replace)
    if as_json:
        facts = {"files": len(done.manifest.files), "created": done.manifest.created, "photos": done.manifest.links}
        print(json.dumps(facts | {"replaced": str(done.replaced) if done.replaced else None}))
        return
    print(f"restored the {len(done.manifest.files)} files of {done.manifest.created} in {data}")
    if done.replaced:
        print(f"what was there before is in {done.replaced}")
    for name, target in done.manifest.links.items():
        print(f"photos are read from {target}")
        if not (data / name).exists():
            print(f"  which is MISSING here; when they are elsewhere: ln -sfn PLACE {data / name}")
    print(f"to start: scripts/up --data {data}")
