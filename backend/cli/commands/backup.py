"""`carcond backup`: the data of a stack of `scripts/up`, in one file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.backup import back_up


def backup(
    file: Annotated[Path, typer.Argument(help="the file to write; it must not exist")],
    data: Annotated[Path, typer.Option(help="the data folder that scripts/up was started with")] = Path(".carcond"),
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Save Label Studio's data, the store, models and passwords of a stack that scripts/up started, while it runs.

    Photos of your own are not saved: they stay where they are. Stacks of Compose: scripts/compose_backup.

    Example: carcond backup ~/carcond-monday.tar
    """
    manifest = back_up(data, file)
    size = file.stat().st_size
    if as_json:
        print(json.dumps({"file": str(file), "bytes": size, "files": len(manifest.files), "photos": manifest.links}))
        return
    print(f"wrote {file}: {len(manifest.files)} files, {size / 1e6:.1f} MB. It holds passwords: only you can read it")
    for target in manifest.links.values():
        if target.startswith("/"):
            print(f"not in it: the photos in {target}")
