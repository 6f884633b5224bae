"""Export a model for other places: one folder or zip.

Write a trained model as one folder or zip that can be published: weights as safetensors, plans, channels and labels,
measured scores, licence, a model card (README.md in the form of the Hugging Face Hub) and digests of all files. Names
of cases and paths of this machine are left out. predict, explain and Predictor take the folder or zip with -m, compare
all digests first, and execute nothing. The labels are those of the original. With --onnx it also has the networks for
onnxruntime, and a script that predicts with them without PyTorch and nnU-Net.
"""

from __future__ import annotations

import argparse
import shlex

from factorizer_nnunet.commands.options import add_model_options, add_shared, model_folder, request_of, user_path

EPILOG = """\
examples:
  factorizer-nnunet export -d 4 -c 3d_fullres -o hippocampus.zip --license cc-by-sa-4.0 --author "A. Author, Clinic"
  factorizer-nnunet export -m MODEL_FOLDER -f all -o FOLDER --license other --license-file LICENSE.txt --onnx
  factorizer-nnunet predict -m hippocampus.zip -i IMAGES -o OUT

exit status: 0 written; 2 refused, nothing written; 130 interrupted
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    model = add_model_options(parser)
    add_shared(model, "-f", nargs="+", help="folds (default: every number that has the checkpoint, else all)")
    add_shared(parser, "-o", dest="out", required=True, metavar="OUT", help="new folder, or FILE.zip")
    add("--onnx", action="store_true", help="also networks for onnxruntime with a script (needs the extra onnx)")
    add(
        "--test-scores",
        dest="scores",
        type=user_path,
        metavar="SUMMARY",
        help="summary.json of test cases, or its folder, by evaluate or nnUNetv2_evaluate_folder; added to the scores "
        "of the validation",
    )
    card = parser.add_argument_group("the model card")
    add = card.add_argument
    add("--license", metavar="ID", help="of the model: apache-2.0, cc-by-4.0, … or other (default: unknown)")
    add("--license-file", type=user_path, metavar="FILE", help="text of the licence, copied to LICENSE")
    add("--title", metavar="TEXT", help="(default: data set, network, configuration)")
    add("--description", metavar="TEXT", help="what it segments, in a sentence or two")
    add("--author", dest="authors", nargs="+", metavar="NAME", help="who trained it")
    add("--contact", metavar="TEXT", help="an address for questions")
    add("--intended-use", metavar="TEXT", help="what it was made for")
    add("--limitations", metavar="TEXT", help="where it is known to fail")
    add("--citation", metavar="TEXT", help="what to cite")


def run(args: argparse.Namespace) -> int:
    """Export, then print what was written and what the card does not say yet."""
    from factorizer_nnunet.nnunet.environment import use_own_trainer

    use_own_trainer()
    folder = model_folder(args)

    from factorizer_nnunet.exporting.card import CardText
    from factorizer_nnunet.exporting.export import ExportRequest, export_model

    request = request_of(ExportRequest, args, model=folder, text=request_of(CardText, args))
    outcome = export_model(request)
    record = outcome.record
    print(f"{request.out}: {record.trainer}, {record.configuration}, fold {', '.join(record.folds)}; ", end="")
    print(f"{outcome.size / 1e6:.1f} MB")
    for line in outcome.advice:
        print(f"note: {line}")
    print(f"predict with it: factorizer-nnunet predict -m {shlex.quote(str(request.out))} -i IMAGES -o OUT")
    return 0
