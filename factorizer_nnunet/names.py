"""The names by which nnU-Net's commands ask for what is ours; nothing is imported here."""

TRAINER = "nnUNetTrainerFactorizer"  # variants have their budget after it, see ``training.budget``
PLANS = "nnUNetFactorizerPlans"  # other forms of the network than the default have theirs after it
