"""minivis: DETR, CLIP and DINO, small enough to be read and real enough to be trained.

`import minivis` is quick: the names below are imported when they are first used.

    model = minivis.load("detr-mini")
    with minivis.record_attention(model) as maps:
        model(images)
"""

from importlib import import_module, metadata

__version__ = "0.1.0"

_LAZY = {
    "load": "minivis.pretrained",
    "load_released": "minivis.pretrained",
    "from_transformers": "minivis.pretrained",
    "to_transformers": "minivis.pretrained",
    "record_attention": "minivis.attention",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def _require_matching_torchvision() -> None:
    """Raises ImportError when torchvision cannot load its operators into the torch installed beside it.

    torchvision's compiled operators fit one build of torch only. With another (most often torch's CPU-only
    build beside torchvision's ordinary one) its import ends in "operator torchvision::nms does not exist".
    Importing both takes seconds: it is tried here only where the installed versions make one suspicious.
    """
    try:
        torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    except metadata.PackageNotFoundError:  # the import that needs it says which one is missing
        return
    # torch 2.n goes with torchvision 0.(n + 15); a build's kind is the part after "+", as in 2.14.1+cpu
    (release, _, build), (vision_release, _, vision_build) = torch.partition("+"), torchvision.partition("+")
    released_together = int(release.split(".")[1]) + 15 == int(vision_release.split(".")[1])
    if released_together and build == vision_build:
        return
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        raise ImportError(
            f"torch {torch} and torchvision {torchvision} are builds that do not fit together: torchvision "
            f"cannot load its operators ({error}). The usual cause is torch's CPU-only build beside "
            "torchvision's ordinary one. Install both together, in their ordinary builds:\n"
            "    python -m pip uninstall --yes torch torchvision\n"
            "    python -m pip install torch torchvision\n"
            "then restart Python. (README.md, 'Installing', says more.)"
        ) from None


_require_matching_torchvision()
