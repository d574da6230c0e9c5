"""The command lines of training and evaluation. `training/__main__.py` and `evaluation/__main__.py` are their doors."""
