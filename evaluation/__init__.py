"""Evaluation: score folders of pictures as the paper does, make those pictures with any workflow, print its table 1."""
