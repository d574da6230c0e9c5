"""The toy world: tiny trained models that show, with no download, what an image prompt does."""
