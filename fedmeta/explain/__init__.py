"""Understanding a model and a round: influence, movement, maps of updates, shares of scores, worth, saliency.

Pure functions of tensors; `simulations.explain` gathers what they need from a run.
"""
