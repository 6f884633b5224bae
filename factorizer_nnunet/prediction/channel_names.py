"""Do the images of another place have the channels of an exported model, in its order?

Files say only the number of a channel. Where the images belong to a data set of nnU-Net, its ``dataset.json`` names
them, and a model from elsewhere must not take a T2 for a FLAIR.
"""

from __future__ import annotations

from pathlib import Path

from factorizer_nnunet.core.errors import UserError
from factorizer_nnunet.nnunet.dataset_json import DATASET_FILE, DatasetJson

_FIX = "Correct it, or copy the images to a folder without a dataset.json next to it"


def check_channel_names(images: Path, model: Path, dataset: DatasetJson) -> None:
    """Compare the names of the channels; nothing is checked without a ``dataset.json`` next to the images.

    Args:
        images: folder of the images, such as ``imagesTs`` of a data set.
        model: the exported model, for messages.
        dataset: of the model.

    Raises:
        UserError: the images have channels that the model does not know, or in another order.
    """
    file = next((one for one in (images / DATASET_FILE, images.parent / DATASET_FILE) if one.is_file()), None)
    if file is None:
        return
    found, expected = DatasetJson.read(file, _FIX).channel_names, dataset.channel_names
    if list(map(_key, found)) == list(map(_key, expected)) or not found:
        return
    unknown = [name for name in found if _key(name) not in map(_key, expected)]
    what = f"has channels that the model does not know ({', '.join(unknown)})" if unknown else "has other channels"
    if sorted(map(_key, found)) == sorted(map(_key, expected)):
        what = "has the channels in another order"
    raise UserError(
        f"{file} {what}: its images are {', '.join(found)}, {model} takes {', '.join(expected)}. Copy the images to a "
        "folder without a dataset.json next to it, under the numbers that the model has for them"
    )


def _key(name: str) -> str:
    """The name without what differs between places: capitals, spaces, dashes and the like."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
