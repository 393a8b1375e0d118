"""Embeddings of photo files, kept in one file for each encoder.

The key is the SHA-256 of a photo's bytes: a renamed or copied photo is found again, a changed one is not.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, to_pixels
from carcond.errors import UnreadableImageError
from carcond.files import replaced_file
from carcond.model.encoder import BATCH_SIZE, Encoder

Progress = Callable[[int, int], None]
"""Progress callback, called with the number done and the total."""

# Number of photos encoded between two writes of the file, so that an interruption loses little.
_SAVE_EVERY = 50 * BATCH_SIZE


@dataclass(frozen=True)
class EmbeddedPhotos:
    """Embeddings of photo files.

    Attributes:
        embeddings: ``(N, D)``; zeros for photos that cannot be read.
        problems: position -> why that photo cannot be read.
    """

    embeddings: FloatArray
    problems: dict[int, str]


def embed_files(
    encoder: Encoder, files: Sequence[Path], cache_dir: Path, max_pixels: int, progress: Progress
) -> EmbeddedPhotos:
    """Embeddings of photo files, from the cache as far as they are in it.

    Args:
        encoder: computes the embeddings.
        files: N photos.
        cache_dir: home of the cache; made when it is missing.
        max_pixels: limit of width x height of a photo.
        progress: called after each batch with the number of newly encoded photos.
    """
    path = cache_dir / f"{encoder.encoder_id}.safetensors"
    problems: dict[int, str] = {}
    keys = [_key(file, position, problems) for position, file in enumerate(files)]
    kept = _load(path)
    wanted = {key: file for key, file in zip(keys, files, strict=True) if key and key not in kept}
    unreadable: dict[str, str] = {}
    missing = list(wanted)
    for start in range(0, len(missing), BATCH_SIZE):
        batch = missing[start : start + BATCH_SIZE]
        kept |= _embed(encoder, {key: wanted[key] for key in batch}, max_pixels, unreadable)
        done = start + len(batch)
        progress(done, len(missing))
        if done % _SAVE_EVERY == 0 or done == len(missing):
            _save(path, kept)
    problems |= {position: unreadable[key] for position, key in enumerate(keys) if key in unreadable}
    nothing = np.zeros(encoder.dimension, np.float32)
    embeddings = np.array([kept.get(key, nothing) for key in keys], dtype=np.float32)
    return EmbeddedPhotos(embeddings.reshape(len(keys), encoder.dimension), problems)


def _key(file: Path, position: int, problems: dict[int, str]) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        problems[position] = f"{file} cannot be read: {error.strerror}"
        return ""


def _embed(
    encoder: Encoder, files: dict[str, Path], max_pixels: int, unreadable: dict[str, str]
) -> dict[str, FloatArray]:
    pixels = {}
    for key, file in files.items():
        try:
            image = decode_photo(file.read_bytes(), target=encoder.spec.size, max_pixels=max_pixels)
            pixels[key] = to_pixels(image, encoder.spec)
        except UnreadableImageError as error:
            unreadable[key] = f"{file}: {error}"
    if not pixels:
        return {}
    return dict(zip(pixels, encoder.embed(np.stack(list(pixels.values()))), strict=True))


def _load(path: Path) -> dict[str, FloatArray]:
    """Key -> embedding ``(D,)``; empty when there is no cache, or a broken one: it can always be made again."""
    try:
        tensors = load_file(path)
        return {bytes(key).hex(): row for key, row in zip(tensors["sha256"], tensors["embeddings"], strict=True)}
    except (OSError, SafetensorError, KeyError, ValueError):
        return {}


def _save(path: Path, kept: dict[str, FloatArray]) -> None:
    if not kept:
        return
    keys = np.array([list(bytes.fromhex(key)) for key in kept], dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as file:
        save_file({"sha256": keys, "embeddings": np.stack(list(kept.values()))}, file)
