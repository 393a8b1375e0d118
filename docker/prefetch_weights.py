"""`prefetch_weights.py BACKBONE`: keeps pretrained weights in the image, if the build can reach the hub."""

import sys

import timm
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

_FILE = "model.safetensors"
_TIMEOUT_S = 5.0


def main() -> None:
    """Download the weights into the hub's cache, or report that `encoder` will download them when it runs."""
    (name,) = sys.argv[1:]
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        print(f"timm knows no weights of {name!r} in the hub")
        return
    try:
        # The download alone would retry for half a minute before it reports that the hub is unreachable.
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, _FILE), timeout=_TIMEOUT_S)
        path = hf_hub_download(config.hf_hub_id, _FILE)
    except Exception as error:  # the hub client's releases differ in what they let through
        print(f"the hub cannot be reached from this build ({error}): the weights are looked for at the first start")
        return
    print(f"the weights of {name} are in the image: {path}")


if __name__ == "__main__":
    main()
