"""The names by which nnU-Net's commands ask for what is ours or find it; nothing is imported here."""

TRAINER = "nnUNetTrainerFactorizer"  # variants have their budget after it, see ``training.budget``
PLANS = "nnUNetFactorizerPlans"  # other forms of the network than the default have theirs after it
SPLITS_FILE = "splits_final.json"  # folds; beside raw data, nnU-Net's planner copies them to nnUNet_preprocessed
