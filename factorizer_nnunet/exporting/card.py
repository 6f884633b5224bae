"""The model card, in the form of the Hugging Face Hub: YAML with what a search needs, then text for readers.

Form: https://huggingface.co/docs/hub/model-cards, with the sections of Mitchell et al., "Model Cards for Model
Reporting", 2019. What only the authors know is left to options of the command; the card says where nothing was given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factorizer_nnunet import __version__
from factorizer_nnunet.calibration.calibration_file import CALIBRATION_FILE
from factorizer_nnunet.core.markdown import markdown_table
from factorizer_nnunet.core.wording import count_of
from factorizer_nnunet.exporting.scores import METRIC, ScoredCases, lacking_scores
from factorizer_nnunet.nnunet.dataset_json import DatasetJson
from factorizer_nnunet.nnunet.exported_model import (
    LICENSE_FILE,
    NNUNET_POSTPROCESSING_FILE,
    ExportRecord,
)
from factorizer_nnunet.nnunet.model_folder import FINGERPRINT_FILE, POSTPROCESSING_FILE
from factorizer_nnunet.nnunet.model_name import short_trainer
from factorizer_nnunet.postprocessing.rules import RegionRule

UNKNOWN_LICENSE, OTHER_LICENSE = "unknown", "other"  # identifiers of the Hub
_NOT_GIVEN = "Not given by the authors."
_RESEARCH = (
    "A research model. It is not a medical device, and has not been evaluated for use in patient care. Results on "
    "images of other scanners, protocols, diseases or age groups than those of the training data may be much worse "
    "than the scores below: evaluate it on labelled cases of your own first."
)


@dataclass(frozen=True, kw_only=True)
class CardText:
    """What the authors say about their model; "" and () where they say nothing."""

    title: str = ""
    description: str = ""
    license: str = UNKNOWN_LICENSE
    authors: tuple[str, ...] = ()
    contact: str = ""
    intended_use: str = ""
    limitations: str = ""
    citation: str = ""


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the files of a model say.

    Attributes:
        spacing_mm, patch: in the order of the network's axes.
        normalization: of each channel.
        scores: of validation cases first.
        nnunets_postprocessing: what nnU-Net found to help, in words; it is not applied.
        rules: of postprocessing, by region, which are applied.
        files: names of what was written next to the card, below the folder.
    """

    record: ExportRecord
    dataset: DatasetJson
    dataset_name: str
    network: str
    weights: int
    spacing_mm: Sequence[float]
    patch: Sequence[int]
    normalization: Sequence[str]
    takes_absent: bool
    is_cascade: bool
    scores: Sequence[ScoredCases]
    nnunets_postprocessing: str
    rules: Mapping[str, RegionRule]
    files: Sequence[str]


def model_card(facts: CardFacts, text: CardText) -> str:
    """The content of ``README.md``."""
    title = text.title or f"{facts.dataset_name}: {facts.network}, {facts.record.configuration}"
    sections = {
        "Model": _model(facts, text),
        "Intended use": "\n\n".join([text.intended_use or _NOT_GIVEN, _RESEARCH]),
        "Limitations": text.limitations or _NOT_GIVEN,
        "How to use": _usage(facts),
        "Inputs": _inputs(facts),
        "Outputs": _outputs(facts),
        "Training data": "\n".join(_training_data(facts)),
        "Scores": "\n\n".join(_scores(facts)),
        "Files": _files(facts),
        "Licence": _licence(facts, text),
        "Citation": _citation(text),
    }
    body = "\n\n".join(f"## {heading}\n\n{content}" for heading, content in sections.items())
    return f"{_front_matter(facts, text, title)}\n# {title}\n\n{text.description or _summary(facts)}\n\n{body}\n"


def _front_matter(facts: CardFacts, text: CardText, title: str) -> str:
    tags = ["medical-imaging", "segmentation", "nnunet", facts.network.lower(), f"{len(facts.patch)}d"]
    entries: dict[str, Any] = {"license": text.license}
    if text.license == OTHER_LICENSE:
        entries |= {"license_name": "see-license-file", "license_link": LICENSE_FILE}
    entries |= {
        "library_name": "factorizer-nnunet",
        "pipeline_tag": "image-segmentation",
        "tags": [*tags, *(["onnx"] if any(name.endswith(".onnx") for name in facts.files) else [])],
        "metrics": ["dice"],
    }
    if facts.scores:
        dataset = {"type": facts.dataset_name, "name": facts.dataset_name}
        results = [
            {
                "task": {"type": "image-segmentation"},
                "dataset": dataset,
                "metrics": [
                    {
                        "type": METRIC.lower(),
                        "value": round(score.mean, 4),
                        "name": f"{METRIC} of {score.region}, {count_of(score.cases, 'case')}",
                    }
                    for score in group.scores
                ],
            }
            for group in facts.scores
        ]
        entries["model-index"] = [{"name": title, "results": results}]
    # Values in JSON are values in YAML, whatever they contain.
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items()]
    return "\n".join(["---", *lines, "---", ""])


def _summary(facts: CardFacts) -> str:
    return (
        f"Segments {', '.join(facts.dataset.regions)} in images with the channels "
        f"{', '.join(facts.dataset.channel_names)}."
    )


def _model(facts: CardFacts, text: CardText) -> str:
    record = facts.record
    rows = [
        ["property", "value"],
        ["network", f"{facts.network}, {facts.weights / 1e6:.1f} million weights in each fold"],
        ["trainer", f"{record.trainer} ({short_trainer(record.trainer)})"],
        ["plans, configuration", f"{record.plans}, {record.configuration}"],
        ["folds", f"{', '.join(record.folds)}{'; their outputs are averaged' if len(record.folds) > 1 else ''}"],
        ["voxel size", f"{' × '.join(f'{mm:g}' for mm in facts.spacing_mm)} mm; images are resampled"],
        ["patch", f"{' × '.join(map(str, facts.patch))} voxels"],
        ["exported by", f"factorizer-nnunet {record.version}"],
        ["authors", ", ".join(text.authors) or _NOT_GIVEN],
        ["contact", text.contact or _NOT_GIVEN],
    ]
    return markdown_table(rows)


def _usage(facts: CardFacts) -> str:
    parts = [
        f"With factorizer-nnunet {facts.record.version} or newer:",
        "```bash\nfactorizer-nnunet predict -m THIS_FOLDER_OR_ZIP -i IMAGES -o OUT\n```",
        "Every file is compared with `SHA256SUMS` first, and nothing in this folder is executed. `IMAGES` has the "
        f"files `CASE_0000{facts.dataset.file_ending}`, … of each case, numbered as below.",
    ]
    if facts.is_cascade:
        parts.append("It continues another model's segmentations: name their folder with `-prev_stage_predictions`.")
    if any(name.endswith(".onnx") for name in facts.files):
        parts.append("Without PyTorch and nnU-Net: `python onnx/run_model.py -i IMAGES -o OUT`, see `onnx/README.md`.")
    return "\n\n".join(parts)


def _inputs(facts: CardFacts) -> str:
    rows = [["file ends in", "channel", "normalisation"]]
    for number, (name, scheme) in enumerate(zip(facts.dataset.channel_names, facts.normalization, strict=True)):
        rows.append([f"_{number:04d}{facts.dataset.file_ending}", name, scheme])
    absent = "Channels may be absent: the model was trained for it." if facts.takes_absent else "All are needed."
    return f"{markdown_table(rows)}\n\n{absent} The channels of a case are on one grid."


def _outputs(facts: CardFacts) -> str:
    rows = [["structure", "label values"]]
    rows += [[name, ", ".join(map(str, values))] for name, values in facts.dataset.regions.items()]
    parts = ["Labels on the grid of the image.", markdown_table(rows)]
    if facts.rules:
        parts.append(f"Postprocessed: {'; '.join(f'{name}: {rule}' for name, rule in facts.rules.items())}.")
    if facts.nnunets_postprocessing:
        parts.append(f"nnU-Net found that this helps, which is not applied: {facts.nnunets_postprocessing}.")
    return "\n\n".join(parts)


def _training_data(facts: CardFacts) -> Iterator[str]:
    content = facts.dataset.content
    yield f"* data set: {facts.dataset_name}"
    if facts.dataset.num_training:
        yield f"* cases: {facts.dataset.num_training}"
    for key, what in (("description", "description"), ("reference", "source"), ("licence", "licence of the data")):
        if content.get(key):
            yield f"* {what}: {' '.join(str(content[key]).split())}"


def _scores(facts: CardFacts) -> Iterator[str]:
    if (lacking := lacking_scores(facts.record.checkpoint)) is not None:
        yield f"Not complete: {lacking}."
    elif not facts.scores:
        yield "Not measured, or not exported."
    for group in facts.scores:
        rows = [["structure", f"mean {METRIC}", "cases that have it"]]
        for score in group.scores:
            rows.append([score.region, f"{score.mean:.4f}", f"{score.cases} of {group.cases}"])
        yield f"{group.title[:1].upper()}{group.title[1:]}.{f' Note: {group.note}.' if group.note else ''}"
        yield markdown_table(rows)


def _files(facts: CardFacts) -> str:
    rows = [
        ["file", "what it is"],
        ["fold_*/weights.safetensors", "the weights of each fold"],
        ["plans.json, dataset.json", "network, preprocessing, channels and labels, as nnU-Net writes them"],
        ["factorizer_model.json", "name, version and folds"],
        ["SHA256SUMS", "digests of all files: `sha256sum -c SHA256SUMS`"],
    ]
    known = {
        "scores.json": "the scores above, as numbers",
        POSTPROCESSING_FILE: "rules by which segmentations are postprocessed",
        NNUNET_POSTPROCESSING_FILE: "what nnU-Net's postprocessing would remove",
        "factorizer_inference.json": "how the model predicts, where it was tuned",
        CALIBRATION_FILE: "how sure predictions are, calibrated",
        FINGERPRINT_FILE: "spacings, sizes and orientations of the training images",
        LICENSE_FILE: "the text of the licence",
    }
    rows += [[name, what] for name, what in known.items() if name in facts.files]
    if any(name.startswith("onnx/") for name in facts.files):
        rows.append(["onnx/", "the same networks for onnxruntime, with a runner"])
    return markdown_table(rows)


def _licence(facts: CardFacts, text: CardText) -> str:
    if text.license == UNKNOWN_LICENSE:
        return "No licence was given: ask the authors before you use or pass on the model."
    where = f", see {LICENSE_FILE}" if LICENSE_FILE in facts.files else ""
    return f"{text.license}{where}. The licence of the training data may restrict its use further."


def _citation(text: CardText) -> str:
    own = f"{text.citation}\n\n" if text.citation else ""
    return (
        f"{own}Isensee et al., *nnU-Net: a self-configuring method for deep learning-based biomedical image "
        "segmentation*, Nature Methods 18, 2021. Ashtari et al., *Factorizer: A scalable interpretable approach to "
        "context modeling for medical image segmentation*, Medical Image Analysis 84, 2023, 102706. Written by "
        f"factorizer-nnunet {__version__}."
    )
